// What a request says of the form of its answer: JSON, a schema, a grammar, a regular expression, a choice.

import * as v from "valibot";
import { choice, type Grammar, gbnf, jsonObject, jsonSchema, regex } from "../constraints/index.js";
import { OptionError } from "../errors.js";
import type { Constraint } from "../generation/generation-options.js";
import { invalidField } from "./errors.js";
import { optional, text } from "./schema.js";
import type { Services } from "./services.js";

const schema = v.record(v.string(), v.unknown());
const choices = v.pipe(v.array(text()), v.minLength(1));

/** Fields of a schema, to be spread into that of a body. */
export const constraintFields = {
  response_format: optional(
    v.variant("type", [
      v.object({ type: v.literal("text") }),
      v.object({ type: v.literal("json_object") }),
      v.object({
        type: v.literal("json_schema"),
        json_schema: v.object({ name: optional(v.string()), schema, strict: optional(v.boolean()) }),
      }),
    ]),
  ),
  /** A grammar in llama.cpp's notation, GBNF. */
  grammar: optional(text()),
  regex: optional(text()),
  choice: optional(choices),
  /** The same, as vLLM has it. */
  structured_outputs: optional(
    v.object({
      json: optional(v.union([schema, text()])),
      json_object: optional(v.boolean()),
      grammar: optional(text()),
      regex: optional(text()),
      choice: optional(choices),
    }),
  ),
};

const { response_format: _, ...own } = constraintFields;
/** Those that are not OpenAI's, for APIs that have JSON and schemas in other fields. */
export const ownConstraintFields = own;

const constraintSchema = v.object(constraintFields);
export type ConstraintRequest = v.InferOutput<typeof constraintSchema>;

/** A form that is asked for: the field that does, and how its grammar is made. */
interface AskedForm {
  readonly field: string;
  readonly grammar: () => Grammar;
}

/**
 * The texts that a request allows as an answer; undefined for all.
 *
 * @throws ApiError that names the field whose schema, grammar or expression cannot be used, and for more than one
 */
export function requestedGrammar(request: ConstraintRequest): Grammar | undefined {
  const [form, another] = askedForms(request);
  if (!form) return undefined;
  if (another) throw invalidField(another.field, `cannot be asked for together with ${form.field}`);
  return ofField(form.field, form.grammar);
}

/**
 * The constraint that a request asks for, for a text that the answer is the whole of.
 *
 * @throws ApiError as `requestedGrammar`
 */
export async function requestedConstraint(
  request: ConstraintRequest,
  services: Services,
): Promise<Constraint | undefined> {
  const { response_format, grammar, regex: pattern, choice: texts, structured_outputs } = request;
  const key = { response_format, grammar, pattern, texts, structured_outputs };
  // biome-ignore lint/correctness/useYield: a form is made in one step
  return services.constraints.of(key, function* () {
    return requestedGrammar(request);
  });
}

/**
 * Makes something of what a field says.
 *
 * @throws ApiError that names the field
 */
export function ofField<T>(field: string, make: () => T): T {
  try {
    return make();
  } catch (error) {
    throw fieldError(field, error);
  }
}

/** What is told of an error in making something of a field. */
export function fieldError(field: string, error: unknown): unknown {
  return error instanceof OptionError ? invalidField(field, withoutOption(error)) : error;
}

/** What an error says, without the name of the library's own option. */
export function withoutOption({ message, option }: OptionError): string {
  return message.replace(`option ${option}: `, "");
}

function askedForms(request: ConstraintRequest): AskedForm[] {
  const { response_format: format, structured_outputs: structured } = request;
  const forms: AskedForm[] = [];
  const ask = (field: string, grammar: () => Grammar) => forms.push({ field, grammar });
  if (format?.type === "json_object") ask("response_format", jsonObject);
  if (format?.type === "json_schema") {
    ask("response_format.json_schema.schema", () => jsonSchema(format.json_schema.schema));
  }
  for (const [prefix, own] of [
    ["", request],
    ["structured_outputs.", structured ?? {}],
  ] as const) {
    const { grammar, regex: pattern, choice: texts } = own;
    if (grammar !== undefined) ask(`${prefix}grammar`, () => gbnf(grammar));
    if (pattern !== undefined) ask(`${prefix}regex`, () => regex(pattern));
    if (texts !== undefined) ask(`${prefix}choice`, () => choice(texts));
  }
  const json = structured?.json;
  if (json !== undefined) ask("structured_outputs.json", () => jsonSchema(schemaOf(json)));
  if (structured?.json_object) ask("structured_outputs.json_object", jsonObject);
  return forms;
}

/** A schema, which may be written as JSON in a string. */
function schemaOf(json: object | string): object {
  if (typeof json !== "string") return json;
  try {
    return JSON.parse(json) as object;
  } catch {
    throw new OptionError("schema", json, "JSON");
  }
}
