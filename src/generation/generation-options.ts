// The options of a generation, with their defaults and ranges. They are checked and copied when the call is made.

import { OptionError } from "../errors.js";
import {
  type ResolvedSamplingOptions,
  resolveSamplingOptions,
  type SamplingOptions,
} from "../sampling/sampling-options.js";
import type { Tokenizer } from "../tokenizers/tokenizer.js";
import { copyTokens } from "./tokens.js";

/**
 * Restricts or changes what may be sampled at each step, for a grammar or a game, say. All functions must be
 * synchronous, and each is given the tokens generated so far, in an array that grows with them: copy what you keep.
 */
export interface Constraint {
  /**
   * Begins a text: called once for each generation, which then uses the constraint that is returned. So one constraint
   * can be used for several generations, and each of them can remember how far it has come.
   */
  begin?(): Constraint;
  /**
   * Says which tokens may be sampled next: a bit for each token id, bit `id % 32` of word `Math.floor(id / 32)`. The
   * array is copied, so it may be reused. All tokens may be sampled when the function returns undefined.
   */
  allowedTokens?(generated: readonly number[]): Uint32Array | undefined;
  /**
   * Says whether the text may end here. Where the function is given, stop tokens are allowed exactly then, whatever
   * `allowedTokens` says of them; and where nothing else is allowed, the text ends without one.
   */
  mayEnd?(generated: readonly number[]): boolean;
  /**
   * Gives the tokens that must come next, if there are any. They are not sampled: the model reads them like a prompt,
   * in one pass. Stop tokens cannot be among them.
   */
  forcedTokens?(generated: readonly number[]): readonly number[];
  /**
   * Changes the logits that the next token is sampled from, before penalties, biases and cuts. This is slower than
   * `allowedTokens`, which the kernels apply, because the token is then sampled in JavaScript.
   *
   * @param logits a copy of the logits of the whole vocabulary, valid until the function returns; change it in place
   */
  changeLogits?(logits: Float32Array, generated: readonly number[]): void;
}

/** The functions of a constraint, without the one that begins it. */
const constraintHooks = ["allowedTokens", "mayEnd", "forcedTokens", "changeLogits"] as const;

/** How text is generated. */
export interface GenerationOptions extends SamplingOptions {
  /** The most tokens to generate, a whole number >= 1. Default 256. */
  maxTokens?: number;
  /** Ends the text before the first of these strings. No part of the string is emitted. */
  stop?: string | readonly string[];
  /** Ends the text when one of these ids is sampled. Default: the tokenizer's end-of-text token, if it has one. */
  stopTokens?: readonly number[];
  /** Changes or restricts what may be sampled at each step. */
  constrain?: Constraint;
  /**
   * Gives the log-probability of each token, in nats, and those of this many of the most probable tokens, from 0 to
   * 100. They are the model's own, before penalties, temperature and cuts. By default none are given.
   */
  logProbabilities?: number;
  /** Ends the text after the token in progress. The finish reason is then "aborted". */
  signal?: AbortSignal;
  /** Called after each pass over the prompt, with the number of tokens read so far and their total number. */
  onPromptProgress?: (done: number, total: number) => void;
}

/** All options with their values. */
export interface ResolvedGenerationOptions {
  readonly sampling: ResolvedSamplingOptions;
  readonly maxTokens: number;
  readonly stop: readonly string[];
  readonly stopTokens: ReadonlySet<number>;
  readonly constrain: Constraint;
  readonly logProbabilities: number | undefined;
  readonly signal: AbortSignal | undefined;
  readonly onPromptProgress: ((done: number, total: number) => void) | undefined;
}

/**
 * Fills in defaults, checks the options, and copies them.
 *
 * @throws OptionError for an option outside its range or of a wrong type
 */
export function resolveGenerationOptions(
  options: GenerationOptions,
  vocabulary: number,
  tokenizer: Tokenizer,
): ResolvedGenerationOptions {
  checkObject("options", options);
  const {
    maxTokens = 256,
    stop = [],
    stopTokens,
    constrain = {},
    logProbabilities,
    signal,
    onPromptProgress,
  } = options;
  if (!(Number.isInteger(maxTokens) && maxTokens >= 1)) {
    throw new OptionError("maxTokens", maxTokens, "a whole number >= 1");
  }
  if (typeof stop !== "string" && !Array.isArray(stop))
    throw new OptionError("stop", stop, "a string or an array of them");
  const stops = typeof stop === "string" ? [stop] : [...stop];
  for (const text of stops) {
    if (typeof text !== "string" || text === "") throw new OptionError("stop", text, "non-empty strings");
  }
  if (options.constrain !== undefined) checkConstraint(constrain);
  checkFunction("onPromptProgress", onPromptProgress);
  const isCount = Number.isInteger(logProbabilities) && (logProbabilities as number) >= 0;
  if (logProbabilities !== undefined && !(isCount && logProbabilities <= 100)) {
    throw new OptionError("logProbabilities", logProbabilities, "a whole number from 0 to 100");
  }
  checkSignal(signal);
  return {
    sampling: resolveSamplingOptions(options, vocabulary),
    maxTokens,
    stop: stops,
    stopTokens: new Set(
      stopTokens ? copyTokens(stopTokens, vocabulary, "stopTokens") : endOfText(tokenizer, vocabulary),
    ),
    constrain,
    logProbabilities,
    signal,
    onPromptProgress,
  };
}

/**
 * The constraint of one text.
 *
 * @throws OptionError when `begin` gives something else
 */
export function beginConstraint(constrain: Constraint): Constraint {
  if (!constrain.begin) return constrain;
  const begun = constrain.begin();
  checkConstraint(begun);
  return begun;
}

/** @throws OptionError for a value that is not a constraint */
function checkConstraint(constrain: Constraint): void {
  const hooks = ["begin", ...constraintHooks] as const;
  if (typeof constrain !== "object" || constrain === null || !hooks.some((hook) => hook in constrain)) {
    throw new OptionError(
      "constrain",
      constrain,
      "an object with allowedTokens or changeLogits (of a grammar: grammar.for(model))",
    );
  }
  for (const hook of hooks) checkFunction(`constrain.${hook}`, constrain[hook]);
}

/** @throws OptionError for a value that is not an AbortSignal */
export function checkSignal(signal: AbortSignal | undefined): void {
  if (signal === undefined) return;
  if (typeof signal !== "object" || signal === null || typeof signal.throwIfAborted !== "function") {
    throw new OptionError("signal", signal, "an AbortSignal");
  }
}

/** @throws OptionError for a value that is not an object */
export function checkObject(option: string, value: unknown): void {
  if (typeof value !== "object" || value === null) throw new OptionError(option, value, "an object");
}

/** @throws OptionError for a value that is neither undefined nor a function */
export function checkFunction(option: string, value: unknown): void {
  if (value !== undefined && typeof value !== "function") throw new OptionError(option, value, "a function");
}

function endOfText({ endOfText }: Tokenizer, vocabulary: number): readonly number[] {
  return endOfText === undefined || endOfText >= vocabulary ? [] : [endOfText];
}
