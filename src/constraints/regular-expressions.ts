// Regular expressions in JavaScript's syntax, as far as they are regular: no lookaround, back references or word
// boundaries; anchors only at the ends of the whole.

import { Found, OptionError } from "../errors.js";
import {
  alternatives,
  type CodePointRange,
  characters,
  complement,
  concatenation,
  type Expression,
  maxCodePoint,
  normalizeRanges,
  repeat,
} from "./expressions.js";
import { maxNesting, maxRepetitions, maxSourceLength } from "./limits.js";

/** How a character out of ranges is written; in a JSON string some are escaped. */
export type CharacterWriter = (ranges: readonly CodePointRange[]) => Expression;

/** One of the alternatives of a whole expression. */
interface Branch {
  readonly body: Expression;
  readonly atStart: boolean;
  readonly atEnd: boolean;
}

/** The texts that a pattern matches from beginning to end. @throws OptionError for a pattern that cannot be used */
export function wholeMatches(pattern: string, option: string): Expression {
  return alternatives(
    new PatternReader(pattern, option, (ranges) => characters(...ranges)).read().map(({ body }) => body),
  );
}

/**
 * The texts in which a pattern matches somewhere, as in JSON Schema.
 *
 * @param write how characters are written
 * @throws OptionError for a pattern that cannot be used
 */
export function textsWithMatch(pattern: string, option: string, write: CharacterWriter): Expression {
  const anything = repeat(write([[0, maxCodePoint]]), 0, Number.POSITIVE_INFINITY);
  const branches = new PatternReader(pattern, option, write).read();
  return alternatives(
    branches.map(({ body, atStart, atEnd }) =>
      concatenation(...(atStart ? [] : [anything]), body, ...(atEnd ? [] : [anything])),
    ),
  );
}

const digits: readonly CodePointRange[] = [[0x30, 0x39]];
const wordCharacters: readonly CodePointRange[] = [...digits, [0x41, 0x5a], [0x5f, 0x5f], [0x61, 0x7a]];
const lineEnds: readonly CodePointRange[] = [
  [0x0a, 0x0a],
  [0x0d, 0x0d],
  [0x2028, 0x2029],
];
/** What \s matches: ECMA-262, WhiteSpace and LineTerminator. */
const spaces: readonly CodePointRange[] = [
  [0x09, 0x0d],
  [0x20, 0x20],
  [0xa0, 0xa0],
  [0x1680, 0x1680],
  [0x2000, 0x200a],
  [0x2028, 0x2029],
  [0x202f, 0x202f],
  [0x205f, 0x205f],
  [0x3000, 0x3000],
  [0xfeff, 0xfeff],
];
const classEscapes: Readonly<Record<string, readonly CodePointRange[]>> = {
  d: digits,
  D: complement(digits),
  w: wordCharacters,
  W: complement(wordCharacters),
  s: spaces,
  S: complement(spaces),
};
const controlEscapes: Readonly<Record<string, number>> = { t: 9, n: 10, v: 11, f: 12, r: 13, 0: 0 };

class PatternReader {
  readonly #characters: readonly string[];
  readonly #option: string;
  readonly #write: CharacterWriter;
  #at = 0;
  #depth = 0;

  constructor(pattern: string, option: string, write: CharacterWriter) {
    if (pattern.length > maxSourceLength) {
      throw new OptionError(option, new Found(`${pattern.length}`), `at most ${maxSourceLength} characters`);
    }
    this.#characters = [...pattern];
    this.#option = option;
    this.#write = write;
  }

  read(): Branch[] {
    const branches: Branch[] = [];
    do {
      const atStart = this.#take("^");
      const body = this.#sequence();
      const atEnd = this.#take("$");
      branches.push({ body, atStart, atEnd });
    } while (this.#take("|"));
    if (this.#at < this.#characters.length) {
      const character = this.#characters[this.#at] as string;
      if (character === "^" || character === "$")
        throw this.#refuse(character, "anchors only at the ends of the whole expression");
      throw this.#refuse(character, "an opening bracket for each closing one");
    }
    return branches;
  }

  #peek(offset = 0): string | undefined {
    return this.#characters[this.#at + offset];
  }

  #take(text: string): boolean {
    for (let i = 0; i < text.length; i++) if (this.#peek(i) !== text[i]) return false;
    this.#at += text.length;
    return true;
  }

  #refuse(found: string, expected: string): OptionError {
    const place = `${found === "" ? "its end" : `${JSON.stringify(found)}`} at character ${this.#at + 1}`;
    return new OptionError(this.#option, new Found(place), `a regular expression with ${expected}`);
  }

  #alternatives(): Expression {
    if (++this.#depth > maxNesting) throw this.#refuse("(", `groups that are nested at most ${maxNesting} times`);
    const parts = [this.#sequence()];
    while (this.#take("|")) parts.push(this.#sequence());
    this.#depth--;
    return alternatives(parts);
  }

  #sequence(): Expression {
    const parts: Expression[] = [];
    for (let next = this.#peek(); next !== undefined && !"|)^$".includes(next); next = this.#peek()) {
      parts.push(this.#quantified(this.#atom()));
    }
    return concatenation(...parts);
  }

  #quantified(body: Expression): Expression {
    const counts = this.#counts();
    if (!counts) return body;
    this.#take("?"); // a lazy quantifier matches the same texts
    if (this.#counts())
      throw this.#refuse(this.#characters[this.#at - 1] as string, "one quantifier after another in a group");
    return repeat(body, ...counts);
  }

  #counts(): [min: number, max: number] | undefined {
    if (this.#take("*")) return [0, Number.POSITIVE_INFINITY];
    if (this.#take("+")) return [1, Number.POSITIVE_INFINITY];
    if (this.#take("?")) return [0, 1];
    if (this.#peek() !== "{") return undefined;
    const close = this.#characters.indexOf("}", this.#at);
    const text = close < 0 || close - this.#at > 20 ? "" : this.#characters.slice(this.#at, close + 1).join("");
    const [found, low, comma, high] = /^\{(\d+)(,?)(\d*)\}$/.exec(text) ?? [];
    if (found === undefined || (!comma && high !== ""))
      throw this.#refuse("{", "{n}, {n,} or {n,m} (\\{ for the character)");
    const min = Number(low);
    const max = high ? Number(high) : comma ? Number.POSITIVE_INFINITY : min;
    if (min > max) throw this.#refuse(found, "a first number that is not above the second");
    if (min > maxRepetitions || (max > maxRepetitions && max < Number.POSITIVE_INFINITY)) {
      throw this.#refuse(found, `at most ${maxRepetitions} repetitions`);
    }
    this.#at += found.length;
    return [min, max];
  }

  #atom(): Expression {
    const character = this.#characters[this.#at] as string;
    if (character === "(") return this.#group();
    if (character === "[") return this.#write(this.#class());
    if (character === ".") {
      this.#at++;
      return this.#write(complement(lineEnds));
    }
    if (character === "\\") return this.#write(this.#escape(false));
    if ("*+?{".includes(character)) throw this.#refuse(character, "something before each quantifier");
    this.#at++;
    return this.#write([only(character)]);
  }

  #group(): Expression {
    this.#at++;
    if (this.#take("?")) {
      const isNamed = this.#peek() === "<" && !["=", "!"].includes(this.#peek(1) ?? "");
      if (isNamed) {
        while (this.#peek() !== undefined && !this.#take(">")) this.#at++;
      } else if (!this.#take(":")) {
        throw this.#refuse(`(?${this.#peek() ?? ""}`, "groups without lookaround or flags");
      }
    }
    const body = this.#alternatives();
    if (!this.#take(")")) {
      const found = this.#peek() ?? "";
      throw this.#refuse(
        found,
        found === "" ? "a closing bracket for each group" : "anchors only at the ends of the whole",
      );
    }
    return body;
  }

  #class(): readonly CodePointRange[] {
    this.#at++;
    const isNegated = this.#take("^");
    const ranges: CodePointRange[] = [];
    while (!this.#take("]")) {
      const low = this.#classMember();
      const isRange = this.#peek() === "-" && this.#peek(1) !== "]" && this.#peek(1) !== undefined;
      if (!isRange) {
        ranges.push(...low);
        continue;
      }
      this.#at++;
      const high = this.#classMember();
      const [from, to] = [single(low), single(high)];
      if (from === undefined || to === undefined || from > to) {
        throw this.#refuse("-", "ranges from one character to a later one (\\- for the character)");
      }
      ranges.push([from, to]);
    }
    return isNegated ? complement(ranges) : normalizeRanges(ranges);
  }

  #classMember(): readonly CodePointRange[] {
    const character = this.#peek();
    if (character === undefined) throw this.#refuse("", "a closing bracket for each class");
    if (character === "\\") return this.#escape(true);
    this.#at++;
    return [only(character)];
  }

  /** What a backslash and what follows it stand for. */
  #escape(inClass: boolean): readonly CodePointRange[] {
    const start = this.#at++;
    const letter = this.#characters[this.#at++] ?? "";
    const refuse = (expected: string) => {
      const found = this.#characters.slice(start, this.#at).join("");
      this.#at = start;
      return this.#refuse(found, expected);
    };
    const named = classEscapes[letter];
    if (named) return named;
    if (letter === "0" && /\d/.test(this.#peek() ?? "")) throw refuse("no octal numbers");
    const control = controlEscapes[letter];
    if (control !== undefined) return [[control, control]];
    if (letter === "b" && inClass) return [[8, 8]];
    if (letter === "x" || letter === "u") {
      const rest = this.#characters.slice(this.#at, this.#at + 12).join("");
      const form = letter === "x" ? /^([\da-fA-F]{2})/ : /^(?:\{([\da-fA-F]{1,6})\}|([\da-fA-F]{4}))/;
      const [found, first, second] = form.exec(rest) ?? [];
      const code = Number.parseInt(first ?? second ?? "", 16);
      if (found === undefined || code > maxCodePoint)
        throw refuse("\\xHH, \\uHHHH or \\u{H} with the number of a character");
      this.#at += found.length;
      const low = /^\\u([dD][c-fC-F][\da-fA-F]{2})/.exec(rest.slice(found.length));
      if (second && code >= 0xd800 && code <= 0xdbff && low) {
        this.#at += 6;
        return [only(String.fromCharCode(code, Number.parseInt(low[1] as string, 16)))];
      }
      return [[code, code]];
    }
    if (letter === "p" || letter === "P") {
      const [found] = /^\{[\w=]{1,60}\}/.exec(this.#characters.slice(this.#at, this.#at + 64).join("")) ?? [];
      this.#at += found?.length ?? 0;
      const ranges = found && propertyRanges(found);
      if (!ranges) throw refuse("\\p{...} with a property of Unicode");
      return letter === "p" ? ranges : complement(ranges);
    }
    if (letter === "" || /[\p{L}\d]/u.test(letter)) {
      throw refuse("no back references, word boundaries or unknown escapes");
    }
    return [only(letter)];
  }
}

function only(character: string): CodePointRange {
  const code = character.codePointAt(0) as number;
  return [code, code];
}

function single(ranges: readonly CodePointRange[]): number | undefined {
  const [range, ...more] = ranges;
  return range && more.length === 0 && range[0] === range[1] ? range[0] : undefined;
}

const properties = new Map<string, readonly CodePointRange[] | undefined>();

/** The characters with a property of Unicode, such as {L}, as the engine knows it; undefined where there is none. */
function propertyRanges(name: string): readonly CodePointRange[] | undefined {
  if (properties.has(name)) return properties.get(name);
  let test: RegExp;
  try {
    test = new RegExp(`\\p${name}`, "u");
  } catch {
    return undefined;
  }
  const ranges: [number, number][] = [];
  for (let code = 0; code <= maxCodePoint; code++) {
    if (!test.test(String.fromCodePoint(code))) continue;
    const last = ranges.at(-1);
    if (last && last[1] === code - 1) last[1] = code;
    else ranges.push([code, code]);
  }
  properties.set(name, ranges);
  return ranges;
}
