// The keywords of JSON Schema (2020-12, with the lists of items and the definitions of draft 7): which are honoured, which
// say nothing about values, and what each of the honoured ones may be. Any other is refused by name.

import { Found, OptionError } from "../../errors.js";

/** A schema that is an object; true and false are schemas, too. */
export type SchemaObject = Readonly<Record<string, unknown>>;
export type Schema = boolean | SchemaObject;

/** Keywords that say nothing about values, or only something that RFC 8259 says already. */
const annotations = new Set([
  ..."title description default example examples deprecated readOnly writeOnly $comment $schema $id $anchor $defs".split(
    " ",
  ),
  ..."definitions discriminator contentMediaType contentEncoding contentSchema".split(" "),
]);

const isCount = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0;
const isNumber = (value: unknown) => typeof value === "number" && Number.isFinite(value);
const isText = (value: unknown) => typeof value === "string";
const isObject = (value: unknown) => typeof value === "object" && value !== null && !Array.isArray(value);
const isSchema = (value: unknown) => typeof value === "boolean" || isObject(value);
const isSchemas = (value: unknown) => Array.isArray(value) && value.length > 0 && value.every(isSchema);
const isSchemasByName = (value: unknown) => isObject(value) && Object.values(value as object).every(isSchema);

export const typeNames = ["object", "array", "string", "number", "integer", "boolean", "null"];
const isType = (value: unknown) => typeNames.includes(value as string);

/** What each keyword that is honoured may be: how it is told, and in words. */
const honoured: Readonly<Record<string, readonly [test: (value: unknown) => boolean, expected: string]>> = {
  $ref: [isText, "a reference within the schema, such as #/$defs/name"],
  type: [
    (value) => isType(value) || (Array.isArray(value) && value.every(isType)),
    `one or more of ${typeNames.join(", ")}`,
  ],
  enum: [(value) => Array.isArray(value) && value.length > 0, "an array of values"],
  const: [() => true, "a value"],
  anyOf: [isSchemas, "an array of schemas"],
  oneOf: [isSchemas, "an array of schemas"],
  allOf: [isSchemas, "an array of schemas"],
  properties: [isSchemasByName, "schemas by name"],
  required: [(value) => Array.isArray(value) && value.every(isText), "an array of names"],
  additionalProperties: [isSchema, "a schema"],
  unevaluatedProperties: [(value) => typeof value === "boolean", "true or false"],
  patternProperties: [isSchemasByName, "schemas by pattern"],
  propertyNames: [isSchema, "a schema"],
  minProperties: [isCount, "a whole number >= 0"],
  maxProperties: [isCount, "a whole number >= 0"],
  items: [(value) => isSchema(value) || (Array.isArray(value) && value.every(isSchema)), "a schema"],
  additionalItems: [isSchema, "a schema"],
  prefixItems: [(value) => Array.isArray(value) && value.every(isSchema), "an array of schemas"],
  minItems: [isCount, "a whole number >= 0"],
  maxItems: [isCount, "a whole number >= 0"],
  uniqueItems: [(value) => value === false, "false (that items differ cannot be held to)"],
  minLength: [isCount, "a whole number >= 0"],
  maxLength: [isCount, "a whole number >= 0"],
  pattern: [isText, "a regular expression"],
  format: [isText, "the name of a format"],
  minimum: [isNumber, "a number"],
  maximum: [isNumber, "a number"],
  exclusiveMinimum: [isNumber, "a number"],
  exclusiveMaximum: [isNumber, "a number"],
  multipleOf: [(value) => value === 1, "1 (that numbers are multiples of others cannot be held to)"],
};

/** The keywords that say something about values of a type. */
export const keywordsOfType: Readonly<Record<string, readonly string[]>> = {
  object: Object.keys(honoured).filter((name) => /propert|required/i.test(name)),
  array: Object.keys(honoured).filter((name) => /items/i.test(name)),
  string: ["minLength", "maxLength", "pattern", "format"],
  number: ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"],
};

/** An error about a part of a schema. @param place a JSON pointer to it */
export function schemaError(place: string, found: string, expected: string): OptionError {
  return new OptionError("schema", new Found(`${found} at ${place === "" ? "its root" : place}`), expected);
}

/**
 * The keywords of a schema that say something about values.
 *
 * @throws OptionError for a keyword that cannot be honoured, or of a wrong type
 */
export function checkedKeywords(schema: SchemaObject, place: string): SchemaObject {
  const own: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(schema)) {
    if (annotations.has(name) || name.startsWith("x-")) continue;
    const rule = Object.hasOwn(honoured, name) ? honoured[name] : undefined;
    if (!rule) {
      throw schemaError(
        place,
        `the keyword ${JSON.stringify(name.slice(0, 60))}`,
        "keywords that can be held to (docs/constraints.md lists them)",
      );
    }
    const [test, expected] = rule;
    if (!test(value)) throw schemaError(`${place}/${name}`, JSON.stringify(value).slice(0, 60), expected);
    own[name] = value;
  }
  return own;
}
