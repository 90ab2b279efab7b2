// Grammars in GBNF, llama.cpp's notation: rules `name ::= alternatives`, the first of which to be followed is `root`.
// Its description: https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md

import { Found, OptionError } from "../errors.js";
import {
  alternatives,
  anyCharacter,
  type CodePointRange,
  characters,
  complement,
  concatenation,
  type Expression,
  literal,
  maxCodePoint,
  normalizeRanges,
  nothing,
  type Rule,
  repeat,
} from "./expressions.js";
import { maxNesting, maxRepetitions, maxSourceLength } from "./limits.js";

/** Reads a grammar. @throws OptionError that says in which line what was expected */
export function readGbnf(source: string, option: string): Expression {
  if (source.length > maxSourceLength) {
    throw new OptionError(option, new Found(`${source.length}`), `at most ${maxSourceLength} characters`);
  }
  return new GbnfReader(source, option).read();
}

const spaceInLine = /(?:[ \t]|#[^\r\n]*)*/y;
const spaceOverLines = /(?:[ \t\r\n]|#[^\r\n]*)*/y;
const ruleName = /[A-Za-z0-9_-]+/y;
const counts = /\{[ \t]*(\d{1,9})?[ \t]*(,)?[ \t]*(\d{1,9})?[ \t]*\}/y;
const escapes: Readonly<Record<string, string>> = { n: "\n", t: "\t", r: "\r" };

class GbnfReader {
  readonly #source: string;
  readonly #option: string;
  readonly #rules = new Map<string, Rule>();
  /** Rules that were described, not only referred to. */
  readonly #described = new Set<string>();
  #at = 0;
  #depth = 0;

  constructor(source: string, option: string) {
    this.#source = source;
    this.#option = option;
  }

  read(): Expression {
    this.#skip(spaceOverLines);
    while (this.#at < this.#source.length) {
      this.#rule();
      this.#skip(spaceOverLines);
    }
    for (const name of this.#rules.keys()) {
      if (!this.#described.has(name)) throw this.#refuse(`no rule ${name}`, "a rule for each name that is used");
    }
    const root = this.#rules.get("root");
    if (!root) throw this.#refuse("none", "a rule root");
    return { kind: "rule", rule: root };
  }

  #rule(): void {
    const name = this.#match(ruleName)?.[0];
    if (name === undefined) throw this.#expected("the name of a rule");
    this.#skip(spaceInLine);
    if (!this.#take("::=")) throw this.#expected(`::= after ${name}`);
    if (this.#described.has(name)) throw this.#refuse(`a second rule ${name}`, "one rule of each name");
    this.#described.add(name);
    this.#skip(spaceOverLines);
    this.#ruleOf(name).body = this.#alternatives(false);
    if (this.#at < this.#source.length && !/[\r\n]/.test(this.#source[this.#at] as string)) {
      throw this.#expected("the end of the line");
    }
  }

  #ruleOf(name: string): Rule {
    let rule = this.#rules.get(name);
    if (!rule) {
      rule = { name, body: nothing };
      this.#rules.set(name, rule);
    }
    return rule;
  }

  /** @param inGroup whether lines end nothing, because a bracket is open */
  #alternatives(inGroup: boolean): Expression {
    if (++this.#depth > maxNesting) throw this.#refuse("more", `groups that are nested at most ${maxNesting} times`);
    const parts = [this.#sequence(inGroup)];
    while (this.#take("|")) {
      this.#skip(spaceOverLines);
      parts.push(this.#sequence(inGroup));
    }
    this.#depth--;
    return alternatives(parts);
  }

  #sequence(inGroup: boolean): Expression {
    const space = inGroup ? spaceOverLines : spaceInLine;
    const parts: Expression[] = [];
    for (let part = this.#part(); part; part = this.#part()) {
      parts.push(this.#quantified(part, space));
      this.#skip(space);
    }
    return concatenation(...parts);
  }

  #part(): Expression | undefined {
    const next = this.#source[this.#at];
    if (next === '"') return literal(this.#literal());
    if (next === "[") return this.#class();
    if (this.#take(".")) return anyCharacter;
    if (this.#take("(")) {
      this.#skip(spaceOverLines);
      const body = this.#alternatives(true);
      if (!this.#take(")")) throw this.#expected("a closing bracket");
      return body;
    }
    const name = this.#match(ruleName)?.[0];
    return name === undefined ? undefined : { kind: "rule", rule: this.#ruleOf(name) };
  }

  #quantified(part: Expression, space: RegExp): Expression {
    let body = part;
    for (let depth = 0; ; depth++) {
      const before = this.#at;
      this.#skip(space);
      let range: [number, number];
      if (this.#take("*")) range = [0, Number.POSITIVE_INFINITY];
      else if (this.#take("+")) range = [1, Number.POSITIVE_INFINITY];
      else if (this.#take("?")) range = [0, 1];
      else if (this.#source[this.#at] === "{") range = this.#counts();
      else {
        this.#at = before;
        return body;
      }
      if (depth >= maxNesting) throw this.#refuse("more", `at most ${maxNesting} quantifiers after each other`);
      body = repeat(body, ...range);
    }
  }

  #counts(): [number, number] {
    const [found, low, comma, high] = this.#match(counts) ?? [];
    if (found === undefined || (low === undefined && high === undefined))
      throw this.#expected("{n}, {n,}, {,m} or {n,m}");
    const min = Number(low ?? 0);
    const max = high !== undefined ? Number(high) : comma ? Number.POSITIVE_INFINITY : min;
    if (min > max) throw this.#refuse(found, "a first number that is not above the second");
    if (min > maxRepetitions || (max > maxRepetitions && max < Number.POSITIVE_INFINITY)) {
      throw this.#refuse(found, `at most ${maxRepetitions} repetitions`);
    }
    return [min, max];
  }

  #literal(): string {
    this.#at++;
    let text = "";
    while (!this.#take('"')) text += this.#character("a closing quotation mark");
    return text;
  }

  #class(): Expression {
    this.#at++;
    const isNegated = this.#take("^");
    const ranges: CodePointRange[] = [];
    while (!this.#take("]")) {
      const low = this.#character("a closing bracket").codePointAt(0) as number;
      let high = low;
      if (this.#source[this.#at] === "-" && this.#source[this.#at + 1] !== "]") {
        this.#at++;
        high = this.#character("a closing bracket").codePointAt(0) as number;
      }
      if (low > high) throw this.#refuse("another", "ranges from one character to a later one");
      ranges.push([low, high]);
    }
    return characters(...(isNegated ? complement(ranges) : normalizeRanges(ranges)));
  }

  /** The next character of a literal or class. @param closing what must come before the end of the text */
  #character(closing: string): string {
    const code = this.#source.codePointAt(this.#at);
    if (code === undefined || code === 0x0a || code === 0x0d) throw this.#expected(closing);
    const character = String.fromCodePoint(code);
    if (character !== "\\") {
      this.#at += character.length;
      return character;
    }
    const [found, letter] = this.#match(/\\(?:([ntr"[\]\\-])|[xuU])/y) ?? [];
    if (found === undefined)
      throw this.#expected('one of the escapes \\n \\t \\r \\" \\[ \\] \\\\ \\xHH \\uHHHH \\UHHHHHHHH');
    if (letter !== undefined) return escapes[letter] ?? letter;
    const length = { x: 2, u: 4, U: 8 }[found[1] as "x" | "u" | "U"];
    const digits = this.#source.slice(this.#at, this.#at + length);
    const number = Number.parseInt(digits, 16);
    if (!/^[\da-fA-F]+$/.test(digits) || number > maxCodePoint || (number >= 0xd800 && number <= 0xdfff)) {
      throw this.#expected(`${length} hexadecimal digits that are the number of a character`);
    }
    this.#at += length;
    return String.fromCodePoint(number);
  }

  #match(pattern: RegExp): RegExpExecArray | null {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#source);
    if (found) this.#at += found[0].length;
    return found;
  }

  #skip(space: RegExp): void {
    this.#match(space);
  }

  #take(text: string): boolean {
    if (!this.#source.startsWith(text, this.#at)) return false;
    this.#at += text.length;
    return true;
  }

  #expected(expected: string): OptionError {
    const rest = this.#source.slice(this.#at, this.#at + 30).split(/[\r\n]/)[0] as string;
    const found =
      this.#at >= this.#source.length ? "the end" : rest === "" ? "the end of the line" : JSON.stringify(rest);
    return this.#refuse(found, expected);
  }

  #refuse(found: string, expected: string): OptionError {
    const line = this.#source.slice(0, this.#at).split("\n").length;
    return new OptionError(this.#option, new Found(`${found} in line ${line}`), expected);
  }
}
