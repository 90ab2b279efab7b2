// The public API of rwkv/constraints: grammars that a generation is held to. They stand beside the package's main entry,
// so that a page which does not use them does not load them.

import { Found, OptionError } from "../errors.js";
import { alternatives, concatenation, type Expression } from "./expressions.js";
import { readGbnf } from "./gbnf.js";
import { type ConstrainedModel, Grammar } from "./grammar.js";
import { compileSchema } from "./json/schema-compiler.js";
import { anyObject } from "./json/values.js";
import { maxSourceLength } from "./limits.js";
import { wholeMatches } from "./regular-expressions.js";
import { textBefore } from "./text-until.js";

export type { ConstrainedModel, Grammar };

/**
 * JSON, without whitespace, that satisfies a schema. docs/constraints.md lists the keywords of JSON Schema.
 *
 * @throws OptionError for a schema that is wrong, or that has keywords which cannot be held to; it says which and where
 */
export function jsonSchema(schema: object | boolean): Grammar {
  return new Grammar(compileSchema(schema), "schema").checked();
}

/** Any JSON object, without whitespace. */
export function jsonObject(): Grammar {
  return new Grammar(anyObject, "json");
}

/**
 * The texts of a grammar in GBNF, the notation of llama.cpp.
 *
 * @throws OptionError for a grammar that is wrong, is left-recursive, or has rules that no text can end
 */
export function gbnf(source: string): Grammar {
  if (typeof source !== "string") throw new OptionError("grammar", source, "a string with a grammar in GBNF");
  return new Grammar(readGbnf(source, "grammar"), "grammar").checked();
}

/**
 * The texts that a regular expression matches from beginning to end. Its syntax is JavaScript's, with the flag u,
 * without what is not regular: lookaround, back references, word boundaries.
 *
 * @throws OptionError for an expression that is wrong, or not regular
 */
export function regex(pattern: string): Grammar {
  if (typeof pattern !== "string") {
    throw new OptionError("pattern", pattern, "a string with a regular expression (the source of a RegExp)");
  }
  return new Grammar(wholeMatches(pattern, "pattern"), "pattern").checked();
}

/** One of these texts. @throws OptionError for something else than non-empty strings, at least one */
export function choice(texts: readonly string[]): Grammar {
  if (!Array.isArray(texts) || texts.length === 0) throw new OptionError("choices", texts, "an array of strings");
  let length = 0;
  for (const text of texts as unknown[]) {
    if (typeof text !== "string" || text === "") throw new OptionError("choices", text, "non-empty strings");
    length += text.length;
    if (length > maxSourceLength) {
      throw new OptionError("choices", new Found("more"), `at most ${maxSourceLength} characters in all`);
    }
  }
  return new Grammar({ kind: "texts", texts: [...texts] }, "choices").checked();
}

/**
 * One part after the other: grammars, or strings, which stand for themselves.
 *
 * @throws OptionError for something else
 */
export function sequence(...parts: (Grammar | string)[]): Grammar {
  return new Grammar(concatenation(...parts.map(expressionOf)), "parts");
}

/**
 * One of the parts: grammars, or strings, which stand for themselves.
 *
 * @throws OptionError for something else, or none
 */
export function oneOf(...parts: (Grammar | string)[]): Grammar {
  if (parts.length === 0) throw new OptionError("parts", new Found("none"), "grammars and strings");
  return new Grammar(alternatives(parts.map(expressionOf)), "parts");
}

/** Free text that ends with the first occurrence of a mark. @throws OptionError for something else than a short string */
export function textUntil(mark: string): Grammar {
  return new Grammar(textBefore(checkMark(mark), true), "mark");
}

/** Free text in which a mark does not occur. @throws OptionError for something else than a short string */
export function textWithout(mark: string): Grammar {
  return new Grammar(textBefore(checkMark(mark), false), "mark");
}

const maxMark = 1000;

function checkMark(mark: string): string {
  if (typeof mark === "string" && mark !== "" && mark.length <= maxMark) return mark;
  throw new OptionError("mark", mark, `a string of 1 to ${maxMark} characters`);
}

function expressionOf(part: Grammar | string): Expression {
  if (typeof part === "string") return { kind: "texts", texts: [part] };
  if (part instanceof Grammar) return part.expression;
  throw new OptionError("parts", part, "grammars and strings");
}
