// The fields of requests that say how a text is written, shared by all resources that write one, and what they are as options of a
// generation.

import * as v from "valibot";
import type { GenerationOptions } from "../generation/generation-options.js";
import type { SamplingOptions } from "../sampling/sampling-options.js";
import type { Tokenizer } from "../tokenizers/tokenizer.js";
import { invalidField } from "./errors.js";
import { number, optional, text, wholeNumber } from "./schema.js";

/** The most tokens that logit_bias may name. */
const maxBiases = 1024;
/** The most characters of a text whose tokens it names. */
const maxBiasCharacters = 256;
/** The most strings of `stop`. */
const maxStops = 32;

const bias = number(-100, 100);
const biasMap = v.pipe(v.record(v.pipe(v.string(), v.regex(/^\d{1,9}$/)), bias), v.maxEntries(maxBiases));
const biasPairs = v.pipe(
  v.array(
    v.tuple([
      v.union([wholeNumber(0), v.pipe(text(), v.maxLength(maxBiasCharacters))]),
      v.union([bias, v.literal(false)]),
    ]),
  ),
  v.maxLength(maxBiases),
);

/** Fields of a schema, to be spread into that of a body. */
export const samplingFields = {
  temperature: optional(number(0, 2)),
  top_p: optional(number(0, 1)),
  top_k: optional(wholeNumber(-1)),
  min_p: optional(number(0, 1)),
  presence_penalty: optional(number(-2, 2)),
  frequency_penalty: optional(number(-2, 2)),
  /** The factor by which the counts of both penalties decay at every token. */
  penalty_decay: optional(number(0, 1)),
  /** By id as OpenAI has it; or pairs, whose first may be a text, and whose second may be false, which bans. */
  logit_bias: optional(v.union([biasMap, biasPairs])),
  seed: optional(wholeNumber(Number.MIN_SAFE_INTEGER)),
  stop: optional(v.union([text(), v.pipe(v.array(text()), v.maxLength(maxStops))])),
  /** Ids that end the text as the end-of-text token does. */
  stop_token_ids: optional(v.array(wholeNumber(0))),
  n: optional(wholeNumber(1, 128)),
};

const samplingSchema = v.object(samplingFields);
export type SamplingRequest = v.InferOutput<typeof samplingSchema>;

/** The options of a generation that a request says. */
export type RequestedOptions = Omit<
  GenerationOptions,
  "signal" | "maxTokens" | "stop" | "constrain" | "onPromptProgress"
> & { readonly stop?: readonly string[] };

/**
 * What a request says of sampling, over what holds where it says nothing.
 *
 * @param defaults how tokens are sampled where the request does not say
 * @param vocabulary the number that ids must be below
 * @throws ApiError for ids that the model does not have
 */
export function requestedOptions(
  request: SamplingRequest,
  defaults: SamplingOptions,
  tokenizer: Tokenizer,
  vocabulary: number,
): RequestedOptions {
  const { stop, stop_token_ids: stopIds, seed, top_k: topK } = request;
  const given: SamplingOptions = withoutUndefined({
    temperature: request.temperature,
    topP: request.top_p,
    topK: topK === -1 ? 0 : topK,
    minP: request.min_p,
    presencePenalty: request.presence_penalty,
    frequencyPenalty: request.frequency_penalty,
    penaltyDecay: request.penalty_decay,
    // Negative seeds are allowed by OpenAI's API.
    seed: seed === undefined || seed >= 0 ? seed : 2 ** 53 + seed,
  });
  const checkId = (param: string, id: number) => {
    if (id >= vocabulary) throw invalidField(param, `expected token ids below ${vocabulary}, found ${id}`);
  };
  for (const id of stopIds ?? []) checkId("stop_token_ids", id);
  const { endOfText } = tokenizer;
  const biases =
    request.logit_bias === undefined ? {} : biasesOf(request.logit_bias, tokenizer, (id) => checkId("logit_bias", id));
  return {
    ...defaults,
    ...given,
    ...biases,
    ...(stop !== undefined && { stop: typeof stop === "string" ? [stop] : stop }),
    ...(stopIds !== undefined && { stopTokens: [...stopIds, ...(endOfText === undefined ? [] : [endOfText])] }),
  };
}

/**
 * The options for a text that is held to a form: what is banned is as improbable as a bias can make it instead, so that the form always
 * has a way to go on.
 */
export function withoutBans(options: RequestedOptions): RequestedOptions {
  const { bannedTokens = [], logitBias } = options;
  return {
    ...options,
    logitBias: { ...logitBias, ...Object.fromEntries(bannedTokens.map((id) => [id, -100])) },
    bannedTokens: [],
  };
}

function biasesOf(
  given: NonNullable<SamplingRequest["logit_bias"]>,
  tokenizer: Tokenizer,
  check: (id: number) => void,
): Pick<SamplingOptions, "logitBias" | "bannedTokens"> {
  const logitBias: Record<number, number> = {};
  const bannedTokens: number[] = [];
  const pairs: readonly (readonly [number | string, number | false])[] = Array.isArray(given)
    ? given
    : Object.entries(given).map(([id, amount]) => [Number(id), amount]);
  for (const [token, amount] of pairs) {
    for (const id of typeof token === "number" ? [token] : tokenizer.encode(token)) {
      check(id);
      if (amount === false) bannedTokens.push(id);
      else logitBias[id] = amount;
    }
  }
  return { logitBias, bannedTokens };
}

function withoutUndefined<T extends object>(values: { [K in keyof T]: T[K] | undefined }): T {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as T;
}
