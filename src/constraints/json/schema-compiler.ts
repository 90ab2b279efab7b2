// A JSON schema as an expression: all JSON texts, without whitespace, that it allows, or those of them that can be told
// from the others by a grammar.

import { alternatives, concatenation, type Expression, literal, nothing, type Rule, repeat } from "../expressions.js";
import { textsWithMatch } from "../regular-expressions.js";
import { formatPatterns } from "./formats.js";
import { listedValues, typesOf } from "./merge-schemas.js";
import { integersIn, numbersIn } from "./number-ranges.js";
import { compileObject } from "./object-schema.js";
import { combines, SchemaBranches, typeOf } from "./schema-branches.js";
import {
  checkedKeywords,
  keywordsOfType,
  type Schema,
  type SchemaObject,
  schemaError,
  typeNames,
} from "./schema-keywords.js";
import { copySchema, resolveReference } from "./schema-references.js";
import {
  anyArray,
  anyBoolean,
  anyInteger,
  anyNumber,
  anyObject,
  anyString,
  anyValue,
  arrayOf,
  nullValue,
  stringOf,
  writtenInString,
} from "./values.js";

/**
 * The expression of a schema.
 *
 * @throws OptionError for a schema that is wrong, or that has keywords which cannot be held to; it says which and where
 */
export function compileSchema(schema: unknown): Expression {
  const root = copySchema(schema);
  return new SchemaCompiler(root).compileRoot();
}

/** Compiles the parts of one schema. */
class SchemaCompiler {
  readonly #root: Schema;
  readonly #branches: SchemaBranches;
  /** The rules of schemas that are referred to. */
  readonly #rules = new Map<Schema, Rule>();
  readonly #strings = new Map<string, Rule>();
  /** Those rules of references whose bodies are still to be compiled: not at once, since one may refer to the next without end. */
  readonly #waiting: { rule: Rule; schema: Schema }[] = [];

  constructor(root: Schema) {
    this.#root = root;
    this.#branches = new SchemaBranches(root);
  }

  compileRoot(): Expression {
    const expression = this.compile(this.#root, "");
    for (let next = this.#waiting.pop(); next; next = this.#waiting.pop()) {
      next.rule.body = this.compile(next.schema, next.rule.name);
    }
    return expression;
  }

  /** @param place where the schema stands, for errors */
  compile(schema: Schema, place: string): Expression {
    if (schema === true) return anyValue;
    if (schema === false) return nothing;
    const keywords = checkedKeywords(schema, place);
    const names = Object.keys(keywords);
    // What stands alone needs no merging, and so may refer to itself.
    if (names.length === 1) {
      const { $ref, anyOf, oneOf } = keywords;
      if ($ref !== undefined) return this.#reference($ref as string, place);
      if (oneOf) this.#branches.checkOneOf(oneOf as Schema[], place);
      const parts = (anyOf ?? oneOf) as Schema[] | undefined;
      if (parts) return alternatives(parts.map((part, i) => this.compile(part, `${place}/${names[0]}/${i}`)));
    }
    if (!combines(keywords)) return this.#branch(keywords, place);
    return alternatives(this.#branches.of(schema, place).map((branch) => this.#branch(branch, place)));
  }

  #reference(reference: string, place: string): Expression {
    const target = resolveReference(this.#root, reference, place);
    let rule = this.#rules.get(target);
    if (!rule) {
      rule = { name: reference, body: nothing };
      this.#rules.set(target, rule);
      this.#waiting.push({ rule, schema: target });
    }
    return { kind: "rule", rule };
  }

  /** A schema without combinations. */
  #branch(keywords: SchemaObject, place: string): Expression {
    const types = keywords["type"] === undefined ? this.#impliedTypes(keywords) : typesOf(keywords["type"]);
    const values = listedValues(keywords);
    if (values) return listed(values, types, keywords, place);
    return alternatives(types.map((type) => this.#typed(type, keywords, place)));
  }

  /** Without a type, keywords that speak of some types only are taken to mean these. */
  #impliedTypes(keywords: SchemaObject): readonly string[] {
    const implied = Object.keys(keywordsOfType).filter((type) => speaksOf(type, keywords));
    return implied.length > 0 ? implied : typeNames.filter((type) => type !== "integer");
  }

  #typed(type: string, keywords: SchemaObject, place: string): Expression {
    switch (type) {
      case "object":
        return speaksOf("object", keywords) ? compileObject(this, keywords, place) : anyObject;
      case "array":
        return speaksOf("array", keywords) ? this.#array(keywords, place) : anyArray;
      case "string":
        return speaksOf("string", keywords) ? stringSchema(keywords, place, this.#strings) : anyString;
      case "number":
      case "integer":
        return number(type, keywords);
      case "boolean":
        return anyBoolean;
      default:
        return nullValue;
    }
  }

  #array(keywords: SchemaObject, place: string): Expression {
    const { items, prefixItems, additionalItems, minItems, maxItems } = keywords as {
      items?: Schema | Schema[];
      prefixItems?: Schema[];
      additionalItems?: Schema;
      minItems?: number;
      maxItems?: number;
    };
    const first = prefixItems ?? (Array.isArray(items) ? items : []);
    const rest = Array.isArray(items) ? (additionalItems ?? true) : (items ?? true);
    const [min, max] = [minItems ?? 0, maxItems ?? Number.POSITIVE_INFINITY];
    if (min > max) return nothing;
    const item = rest === false ? nothing : this.compile(rest, `${place}/items`);
    if (first.length === 0) return arrayOf(item, min, rest === false ? Math.min(max, 0) : max);
    if (first.length > 1000) throw schemaError(`${place}/prefixItems`, `${first.length}`, "at most 1000");
    const count = Math.min(first.length, max);
    // Node i: after i items; behind them, where a comma was read after i items.
    const edges = first
      .slice(0, count)
      .flatMap((schema, i) => [
        i === 0 ? { from: 0, to: count + 1 } : { from: i, to: count + 1 + i, reads: literal(",") },
        { from: count + 1 + i, to: i + 1, reads: this.compile(schema, `${place}/prefixItems/${i}`) },
      ]);
    const end = 2 * count + 1;
    const more = repeat(concatenation(",", item), Math.max(0, min - count), max - count);
    const final = Array.from({ length: count }, (_, i) => i).filter((i) => i >= min);
    const list: Expression = {
      kind: "graph",
      nodes: end + 1,
      edges: [...edges, { from: count, to: end, reads: more }],
      final: [...final, end],
    };
    return concatenation("[", list, "]");
  }
}

/** Whether a schema says more of the values of a type than that they may occur. */
function speaksOf(type: string, keywords: SchemaObject): boolean {
  return (keywordsOfType[type] ?? []).some((name) => Object.hasOwn(keywords, name));
}

function listed(
  values: readonly unknown[],
  types: readonly string[],
  keywords: SchemaObject,
  place: string,
): Expression {
  const texts: string[] = [];
  for (const value of values) {
    const type = typeOf(value);
    const isInteger = type === "number" && Number.isInteger(value) && types.includes("integer");
    if (keywords["type"] !== undefined && !types.includes(type) && !isInteger) continue;
    const keyword = (keywordsOfType[type] ?? []).find((name) => Object.hasOwn(keywords, name));
    if (keyword !== undefined) {
      throw schemaError(place, `the keyword ${JSON.stringify(keyword)} beside listed values`, "one or the other");
    }
    texts.push(JSON.stringify(value));
  }
  return texts.length === 0 ? nothing : { kind: "texts", texts };
}

function number(type: "number" | "integer", keywords: SchemaObject): Expression {
  const names = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"].filter((name) => name in keywords);
  const isInteger = type === "integer" || "multipleOf" in keywords;
  if (names.length === 0) return isInteger ? anyInteger : anyNumber;
  const range = Object.fromEntries(names.map((name) => [name, keywords[name] as number]));
  return isInteger ? integersIn(range) : numbersIn(range);
}

/** A string with a length, a pattern or a format. */
function stringSchema(keywords: SchemaObject, place: string, rules: Map<string, Rule>): Expression {
  const { minLength, maxLength, pattern, format } = keywords as {
    minLength?: number;
    maxLength?: number;
    pattern?: string;
    format?: string;
  };
  const [min, max] = [minLength ?? 0, maxLength ?? Number.POSITIVE_INFINITY];
  const hasLength = minLength !== undefined || maxLength !== undefined;
  if (min > max) return nothing;
  if ([hasLength, pattern !== undefined, format !== undefined].filter(Boolean).length > 1) {
    const names = ["minLength", "maxLength", "pattern", "format"].filter((name) => name in keywords);
    throw schemaError(place, `the keywords ${names.join(", ")} together`, "a length, a pattern, or a format");
  }
  if (hasLength) return stringOf(min, max, rules);
  const known = format !== undefined && Object.hasOwn(formatPatterns, format) ? formatPatterns[format] : undefined;
  if (format !== undefined && known === undefined) {
    throw schemaError(`${place}/format`, JSON.stringify(format), `one of ${Object.keys(formatPatterns).join(", ")}`);
  }
  return concatenation(
    '"',
    textsWithMatch((known ?? pattern) as string, `schema${place}/pattern`, writtenInString),
    '"',
  );
}
