// JSON's own grammar (RFC 8259), without whitespace: strings, numbers, and any value.

import {
  alternatives,
  type CodePointRange,
  characters,
  complement,
  concatenation,
  type Expression,
  intersection,
  literal,
  nothing,
  oneOfCharacters,
  optional,
  type Rule,
  repeat,
} from "../expressions.js";

const unbounded = Number.POSITIVE_INFINITY;
const digit = characters([0x30, 0x39]);
const hexDigit = characters([0x30, 0x39], [0x41, 0x46], [0x61, 0x66]);

/** Characters that stand for themselves in a string. */
export const plainRanges = complement([
  [0x00, 0x1f],
  [0x22, 0x22],
  [0x5c, 0x5c],
]);

/** A character that stands for itself. */
export const plainCharacter = characters(...plainRanges);

/** A character of a string, in any way to write it but as one of two surrogates. */
const anyStringCharacter = alternatives([
  plainCharacter,
  concatenation(
    "\\",
    alternatives([
      oneOfCharacters('"\\/bfnrt'),
      concatenation(
        "u",
        alternatives([
          concatenation(
            characters([0x30, 0x39], [0x41, 0x43], [0x45, 0x46], [0x61, 0x63], [0x65, 0x66]),
            repeat(hexDigit, 3, 3),
          ),
          concatenation(oneOfCharacters("dD"), characters([0x30, 0x37]), repeat(hexDigit, 2, 2)),
        ]),
      ),
    ]),
  ),
]);

/**
 * A string of `min` to `max` characters, quotation marks included.
 *
 * @param rules the rules of the strings of one schema: those of the same lengths share one, and what is found out about it
 */
export function stringOf(min: number, max: number, rules: Map<string, Rule>): Expression {
  const name = `string ${min} ${max}`;
  let rule = rules.get(name);
  if (!rule) {
    rule = { name, body: concatenation('"', repeat(anyStringCharacter, min, max), '"') };
    rules.set(name, rule);
  }
  return { kind: "rule", rule };
}

const shortEscapes: ReadonlyMap<number, string> = new Map([
  [0x22, '\\"'],
  [0x5c, "\\\\"],
  [0x08, "\\b"],
  [0x0c, "\\f"],
  [0x0a, "\\n"],
  [0x0d, "\\r"],
  [0x09, "\\t"],
]);

/** A character out of ranges as it is written within a string: as itself where that is allowed, else escaped. */
export function writtenInString(ranges: readonly CodePointRange[]): Expression {
  const own = intersection(ranges, plainRanges);
  const escaped: Expression[] = [];
  for (const [low, high] of intersection(ranges, complement(plainRanges))) {
    for (let code = low; code <= high; code++) {
      escaped.push(literal(shortEscapes.get(code) ?? `\\u${code.toString(16).padStart(4, "0")}`));
    }
  }
  return alternatives([...(own.length > 0 ? [characters(...own)] : []), ...escaped]);
}

/** An integer of at most 15 digits, all of which a JavaScript number can hold. */
export const anyInteger: Expression = alternatives([
  literal("0"),
  concatenation(optional(literal("-")), characters([0x31, 0x39]), repeat(digit, 0, 14)),
]);

/** A number that is never too large for a JavaScript number. */
export const anyNumber: Expression = concatenation(
  optional(literal("-")),
  alternatives([literal("0"), concatenation(characters([0x31, 0x39]), repeat(digit, 0, 14))]),
  optional(concatenation(".", repeat(digit, 1, 15))),
  optional(concatenation(oneOfCharacters("eE"), optional(oneOfCharacters("+-")), repeat(digit, 1, 2))),
);

/** A string of any length: one rule for all that refer to it. */
export const anyString: Expression = stringOf(0, unbounded, new Map());

const valueRule: Rule = { name: "value", body: nothing };

/** Any value. */
export const anyValue: Expression = { kind: "rule", rule: valueRule };

/** Items with commas between them. */
export function separated(item: Expression, min: number, max: number): Expression {
  if (max === 0) return repeat(item, 0, 0);
  const items = concatenation(item, repeat(concatenation(",", item), Math.max(0, min - 1), max - 1));
  return min === 0 ? optional(items) : items;
}

/** An array of `min` to `max` items. */
export function arrayOf(item: Expression, min: number, max: number): Expression {
  return concatenation("[", separated(item, min, max), "]");
}

/** An object of `min` to `max` members. */
export function objectOf(key: Expression, value: Expression, min: number, max: number): Expression {
  return concatenation("{", separated(concatenation(key, ":", value), min, max), "}");
}

/** Any object. */
export const anyObject: Expression = objectOf(anyString, anyValue, 0, unbounded);

/** Any array. */
export const anyArray: Expression = arrayOf(anyValue, 0, unbounded);

export const anyBoolean: Expression = { kind: "texts", texts: ["true", "false"] };
export const nullValue: Expression = literal("null");

valueRule.body = alternatives([anyObject, anyArray, anyString, anyNumber, anyBoolean, nullValue]);
