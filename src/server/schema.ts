// Schemas of valibot. Bodies that clients send are checked by them, with errors in the API's shape: unknown fields are left out, null stands
// for absent. Those of answers are for the compiler and the description of the API, and have no more fields than they say.

import * as v from "valibot";
import { ApiError } from "./errors.js";

/** Any schema of a body, or of an answer. */
export type Schema = v.GenericSchema<unknown, unknown>;

/** The type of an answer with this schema, which nobody changes. */
export type Described<S extends Schema> = DeepReadonly<v.InferOutput<S>>;
type DeepReadonly<T> = T extends readonly (infer Item)[]
  ? readonly DeepReadonly<Item>[]
  : T extends object
    ? { readonly [Key in keyof T]: DeepReadonly<T[Key]> }
    : T;

/** An object of a request as it is told again: with no other fields. */
export function retold<Entries extends v.ObjectEntries>({ entries }: v.ObjectSchema<Entries, undefined>) {
  return v.strictObject(entries);
}

/** A field that may be absent or null. */
export function optional<S extends Schema>(schema: S) {
  return v.pipe(
    v.nullish(schema),
    v.transform((value) => value ?? undefined),
  );
}

/** A number from `low` to `high`. */
export function number(low: number, high: number) {
  return v.pipe(v.number(), v.minValue(low), v.maxValue(high));
}

/** A whole number from `low` to `high`. */
export function wholeNumber(low: number, high: number = Number.MAX_SAFE_INTEGER) {
  return v.pipe(v.number(), v.safeInteger(), v.minValue(low), v.maxValue(high));
}

/** A text that is not empty. */
export function text() {
  return v.pipe(v.string(), v.minLength(1));
}

/**
 * Checks a body.
 *
 * @throws ApiError that names the field, what was expected and what was found
 */
export function parseBody<S extends Schema>(schema: S, body: unknown): v.InferOutput<S> {
  const result = v.safeParse(schema, body, { abortEarly: true, abortPipeEarly: true });
  if (result.success) return result.output;
  const issue = deepest(result.issues[0], []);
  const param = pathText(issue.path);
  const message = `${param ? `${param}: ` : ""}expected ${issue.expected}, found ${issue.received}`;
  throw new ApiError(400, message, { ...(param && { param }), code: "invalid_value" });
}

interface FoundIssue {
  readonly path: readonly (string | number)[];
  readonly expected: string;
  readonly received: string;
}

/** Of the alternatives of a union, the one that was followed furthest says most. */
function deepest(issue: v.BaseIssue<unknown>, before: readonly (string | number)[]): FoundIssue {
  const path = [...before, ...(issue.path ?? []).map((item) => item.key as string | number)];
  const inner = (issue.issues ?? []).map((one) => deepest(one, path));
  const furthest = inner.reduce<FoundIssue | undefined>(
    (most, one) => (one.path.length > (most?.path.length ?? path.length) ? one : most),
    undefined,
  );
  if (furthest) return furthest;
  return { path, expected: issue.expected ?? issue.message, received: issue.received.slice(0, 100) };
}

/** A path as it would be written in code: messages[0].content. */
function pathText(path: readonly (string | number)[]): string {
  return path.map((key, i) => (typeof key === "number" ? `[${key}]` : `${i > 0 ? "." : ""}${key}`)).join("");
}
