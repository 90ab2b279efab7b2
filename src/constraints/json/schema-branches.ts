// A schema as branches: schemas without references and combinations, of which a value need satisfy one.

import { canonicalJson, listedValues, mergeSchemas, typesOf } from "./merge-schemas.js";
import { checkedKeywords, type Schema, type SchemaObject, schemaError } from "./schema-keywords.js";
import { resolveReference } from "./schema-references.js";

/** The most branches that combinations within combinations may give. */
const maxBranches = 1000;
/** How many references and combinations may follow each other before there is a value. */
const maxSteps = 100;

const combining = ["$ref", "allOf", "anyOf", "oneOf"];

/** Whether a schema has keywords that combine schemas. */
export function combines(keywords: SchemaObject): boolean {
  return combining.some((name) => Object.hasOwn(keywords, name));
}

/** Finds the branches of the schemas of one document. */
export class SchemaBranches {
  readonly #root: Schema;
  #steps = 0;

  constructor(root: Schema) {
    this.#root = root;
  }

  /**
   * The branches of a schema; none where nothing satisfies it.
   *
   * @param place where it stands, for errors
   * @throws OptionError for keywords that cannot be held to, too many branches, or references that lead in a circle
   */
  of(schema: Schema, place: string): readonly SchemaObject[] {
    if (schema === true) return [{}];
    if (schema === false) return [];
    if (this.#steps >= maxSteps) {
      throw schemaError(
        place,
        "more",
        `at most ${maxSteps} references and combinations of schemas without a value between`,
      );
    }
    this.#steps++;
    const { $ref, allOf, anyOf, oneOf, ...own } = checkedKeywords(schema, place);
    let branches: readonly SchemaObject[] = [own];
    if ($ref !== undefined) {
      const target = resolveReference(this.#root, $ref as string, place);
      branches = this.#all(branches, this.of(target, $ref as string), place);
    }
    for (const [i, part] of ((allOf ?? []) as Schema[]).entries()) {
      branches = this.#all(branches, this.of(part, `${place}/allOf/${i}`), place);
    }
    for (const [name, parts] of [
      ["anyOf", anyOf],
      ["oneOf", oneOf],
    ] as [string, Schema[] | undefined][]) {
      if (!parts) continue;
      const each = parts.map((part, i) => this.of(part, `${place}/${name}/${i}`));
      if (name === "oneOf") checkDisjoint(each, place);
      branches = this.#all(branches, each.flat(), place);
    }
    this.#steps--;
    return branches;
  }

  /** @throws OptionError unless every value satisfies at most one of the schemas, as far as can be told */
  checkOneOf(parts: readonly Schema[], place: string): void {
    checkDisjoint(
      parts.map((part, i) => this.of(part, `${place}/oneOf/${i}`)),
      place,
    );
  }

  /** The branches of what must satisfy one of both lists. */
  #all(a: readonly SchemaObject[], b: readonly SchemaObject[], place: string): readonly SchemaObject[] {
    if (a.length * b.length > maxBranches) {
      throw schemaError(place, `${a.length * b.length} combinations`, `at most ${maxBranches} combinations of schemas`);
    }
    return a.flatMap((left) => b.map((right) => mergeSchemas(left, right, place)));
  }
}

function checkDisjoint(each: readonly (readonly SchemaObject[])[], place: string): void {
  each.forEach((branches, i) => {
    for (const other of each.slice(i + 1)) {
      if (branches.every((a) => other.every((b) => areDisjoint(a, b)))) continue;
      throw schemaError(
        `${place}/oneOf`,
        "schemas that a value may satisfy both",
        "schemas that differ by type, or by the value of a required member (or anyOf)",
      );
    }
  });
}

/** Whether no value satisfies two schemas, as their types, listed values and required members tell. */
function areDisjoint(a: SchemaObject, b: SchemaObject, depth = 0): boolean {
  const [valuesA, valuesB] = [listedValues(a), listedValues(b)];
  if (valuesA && valuesB) {
    const texts = new Set(valuesA.map(canonicalJson));
    return !valuesB.some((value) => texts.has(canonicalJson(value)));
  }
  const [typesA, typesB] = [possibleTypes(a, valuesA), possibleTypes(b, valuesB)];
  if (!typesA || !typesB) return false;
  const common = typesA.filter((type) => typesB.includes(type));
  if (common.length === 0) return true;
  if (common.some((type) => type !== "object") || depth > 3) return false;
  const required = (schema: SchemaObject) => (schema["required"] ?? []) as string[];
  const property = (schema: SchemaObject, name: string) =>
    ((schema["properties"] ?? {}) as Record<string, Schema>)[name];
  return required(a).some((name) => {
    if (!required(b).includes(name)) return false;
    const [left, right] = [property(a, name), property(b, name)];
    const isPlain = (part: Schema | undefined): part is SchemaObject => typeof part === "object" && !combines(part);
    return isPlain(left) && isPlain(right) && areDisjoint(left, right, depth + 1);
  });
}

/** The types of the values of a schema, integers being numbers; undefined where they may be any. */
function possibleTypes(schema: SchemaObject, values: readonly unknown[] | undefined): readonly string[] | undefined {
  if (values) return values.map(typeOf);
  const { type } = schema;
  return type === undefined ? undefined : typesOf(type).map((name) => (name === "integer" ? "number" : name));
}

/** The type of a value, as schemas name it. */
export function typeOf(value: unknown): string {
  if (value === null) return "null";
  return Array.isArray(value) ? "array" : typeof value;
}
