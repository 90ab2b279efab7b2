// References within a schema, and the copy of it that everything else works on.

import { Found, OptionError } from "../../errors.js";
import { maxNesting, maxSourceLength } from "../limits.js";
import { type Schema, schemaError } from "./schema-keywords.js";

/**
 * Copies a schema, so that later changes by the caller do not matter.
 *
 * @throws OptionError for a value that is not a schema, or one that is too large
 */
export function copySchema(schema: unknown): Schema {
  const isSchema =
    typeof schema === "boolean" || (typeof schema === "object" && schema !== null && !Array.isArray(schema));
  if (!isSchema) throw new OptionError("schema", schema, "a JSON schema: an object, true or false");
  let text: string | undefined;
  try {
    text = JSON.stringify(schema);
  } catch {
    throw new OptionError("schema", new Found("a value that JSON cannot write"), "a JSON schema");
  }
  if (text === undefined) throw new OptionError("schema", new Found("a value that JSON cannot write"), "a JSON schema");
  if (text.length > maxSourceLength) {
    throw new OptionError("schema", new Found(`${text.length}`), `at most ${maxSourceLength} characters of JSON`);
  }
  if (nestingOf(text) > maxNesting) throw new OptionError("schema", new Found("more"), `at most ${maxNesting} levels`);
  return JSON.parse(text) as Schema;
}

/** How deeply arrays and objects are nested in JSON. */
function nestingOf(json: string): number {
  let [depth, most] = [0, 0];
  for (const [part] of json.matchAll(/"(?:[^"\\]|\\.)*"|[[\]{}]/g)) {
    if (part === "{" || part === "[") most = Math.max(most, ++depth);
    else if (part === "}" || part === "]") depth--;
  }
  return most;
}

/**
 * The schema that a reference stands for.
 *
 * @param place where the reference stands, for errors
 * @throws OptionError for one that leads outside the schema or nowhere
 */
export function resolveReference(root: Schema, reference: string, place: string): Schema {
  const expected = "a reference within the schema (# or #/ and names) to a part that there is";
  const refuse = () => schemaError(`${place}/$ref`, JSON.stringify(reference.slice(0, 100)), expected);
  if (!/^#(\/|$)/.test(reference)) throw refuse();
  let part: unknown = root;
  for (const name of reference.split("/").slice(1)) {
    let key: string;
    try {
      key = decodeURIComponent(name).replaceAll("~1", "/").replaceAll("~0", "~");
    } catch {
      throw refuse();
    }
    if (typeof part !== "object" || part === null || !Object.hasOwn(part, key)) throw refuse();
    part = (part as Record<string, unknown>)[key];
  }
  if (typeof part === "boolean" || (typeof part === "object" && part !== null && !Array.isArray(part)))
    return part as Schema;
  throw refuse();
}
