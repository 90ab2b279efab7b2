// Schemas that must all hold, as one: `allOf`, and keywords beside `anyOf` or `$ref`.

import { type Schema, type SchemaObject, schemaError } from "./schema-keywords.js";

/** By keyword, how two values that must both hold become one. */
const merges: Readonly<Record<string, (a: never, b: never) => unknown>> = {
  minimum: Math.max as never,
  exclusiveMinimum: Math.max as never,
  maximum: Math.min as never,
  exclusiveMaximum: Math.min as never,
  minLength: Math.max as never,
  minItems: Math.max as never,
  minProperties: Math.max as never,
  maxLength: Math.min as never,
  maxItems: Math.min as never,
  maxProperties: Math.min as never,
  required: (a: string[], b: string[]) => [...new Set([...a, ...b])],
  unevaluatedProperties: (a: boolean, b: boolean) => a && b,
  items: both,
  additionalItems: both,
  propertyNames: both,
  type: (a: unknown, b: unknown) => commonTypes(typesOf(a), typesOf(b)),
};

function both(a: Schema, b: Schema): Schema {
  return { allOf: [a, b] };
}

/** The types that a keyword `type` lists. */
export function typesOf(type: unknown): readonly string[] {
  return Array.isArray(type) ? type : [type as string];
}

function commonTypes(a: readonly string[], b: readonly string[]): string[] {
  const allows = (types: readonly string[], type: string) =>
    types.includes(type) || (type === "integer" && types.includes("number"));
  return [...new Set([...a.filter((type) => allows(b, type)), ...b.filter((type) => allows(a, type))])];
}

/** The values that a schema lists by `enum` or `const`; undefined where it lists none. */
export function listedValues(schema: SchemaObject): readonly unknown[] | undefined {
  const { enum: values, const: value } = schema as { enum?: unknown[]; const?: unknown };
  if (!Object.hasOwn(schema, "const")) return values;
  return values ? values.filter((other) => canonicalJson(other) === canonicalJson(value)) : [value];
}

/** JSON in which equal values have the same text: members are in the order of their names. */
export function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_, part: unknown) => {
    const isObject = typeof part === "object" && part !== null && !Array.isArray(part);
    return isObject ? Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1))) : part;
  });
}

/**
 * One schema for two. Neither may have keywords that combine schemas.
 *
 * @param place where they stand, for errors
 * @throws OptionError for keywords that cannot be made one
 */
export function mergeSchemas(a: SchemaObject, b: SchemaObject, place: string): SchemaObject {
  const merged: Record<string, unknown> = { ...a, ...b };
  const [listedA, listedB] = [listedValues(a), listedValues(b)];
  delete merged["const"];
  if (listedA && listedB) {
    const allowed = new Set(listedB.map(canonicalJson));
    merged["enum"] = listedA.filter((value) => allowed.has(canonicalJson(value)));
  } else if (listedA ?? listedB) merged["enum"] = listedA ?? listedB;
  for (const name of Object.keys(b)) {
    if (!Object.hasOwn(a, name) || ["enum", "const", ...objectKeywords].includes(name)) continue;
    const [left, right] = [a[name], b[name]];
    const merge = merges[name];
    if (merge) merged[name] = merge(left as never, right as never);
    else if (canonicalJson(left) !== canonicalJson(right)) {
      throw schemaError(place, `two different keywords ${JSON.stringify(name)} that must both hold`, "one of them");
    }
  }
  if (
    objectKeywords.some((name) => Object.hasOwn(a, name) && objectKeywords.some((other) => Object.hasOwn(b, other)))
  ) {
    mergeProperties(merged, a, b, place);
  }
  return merged;
}

const objectKeywords = ["properties", "additionalProperties", "patternProperties"];

/** What one schema says of the members that the other lists counts for them, too. */
function mergeProperties(merged: Record<string, unknown>, a: SchemaObject, b: SchemaObject, place: string): void {
  const propertiesOf = (schema: SchemaObject) => (schema["properties"] ?? {}) as Record<string, Schema>;
  for (const schema of [a, b]) {
    if (Object.hasOwn(schema, "patternProperties")) {
      throw schemaError(place, 'the keyword "patternProperties" beside others that must hold', "it alone");
    }
  }
  const properties: Record<string, Schema> = Object.create(null);
  for (const name of [...new Set([...Object.keys(propertiesOf(a)), ...Object.keys(propertiesOf(b))])]) {
    const parts = [a, b]
      .map((schema) =>
        Object.hasOwn(propertiesOf(schema), name) ? propertiesOf(schema)[name] : schema["additionalProperties"],
      )
      .filter((part) => part !== undefined) as Schema[];
    properties[name] = parts.length === 1 ? (parts[0] as Schema) : { allOf: parts };
  }
  merged["properties"] = properties;
  const [left, right] = [a["additionalProperties"], b["additionalProperties"]] as (Schema | undefined)[];
  if (left !== undefined && right !== undefined) merged["additionalProperties"] = { allOf: [left, right] };
  else merged["additionalProperties"] = left ?? right;
  if (merged["additionalProperties"] === undefined) delete merged["additionalProperties"];
}
