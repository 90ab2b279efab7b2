// Finds the next tokens of a generation: runs the last token of its sequence, with those that a constraint forces, and
// samples from the logits, in the kernels where that is enough, and in JavaScript where a constraint changes the logits or
// where they are known already.

import { OptionError, RwkvError } from "../errors.js";
import { chooseToken, type TokenChoice } from "../sampling/choose-token.js";
import { logProbabilities, type TokenLogProbability } from "../sampling/log-probability.js";
import { Sampler } from "../sampling/sampler.js";
import { GeneratedTokens } from "./generated-tokens.js";
import { beginConstraint, type Constraint, type ResolvedGenerationOptions } from "./generation-options.js";
import type { ModelContext } from "./model-context.js";
import type { Sequence } from "./sequence.js";
import { copyTokens } from "./tokens.js";

/**
 * Tokens that stand for nothing are banned one by one up to this number; a mask, which costs a pass over all logits,
 * leaves out more of them.
 */
const fewUnused = 256;

/** So many tokens are sampled in one go, where a backend can go on by itself: a wait for a GPU takes half a millisecond. */
const tokensAhead = 3;

const noTokens = new Int32Array(0);

/** A token that was sampled, or that a constraint forced. */
export interface SampledToken {
  readonly token: number;
  /** The log-probability of the token, in nats; present where log-probabilities were asked for. */
  readonly logProbability?: number;
  /** The most probable tokens, the most probable first; present where log-probabilities were asked for. */
  readonly topLogProbabilities?: readonly TokenLogProbability[];
}

/** Samples the tokens of one generation. */
export class TokenSampling {
  readonly #context: ModelContext;
  readonly #options: ResolvedGenerationOptions;
  readonly #constrain: Constraint;
  readonly #sampler: Sampler;
  readonly #stopTokens: ReadonlySet<number>;
  readonly #generated = new GeneratedTokens();
  /** Buffers for the copies that are made for every token. */
  readonly #mask: Uint32Array;
  /** A mask of the tokens that stand for something, where there are many others. */
  readonly #used: Uint32Array | undefined;
  readonly #logits: Float32Array;
  /** How the next tokens are to be sampled, where that does not depend on what comes before them. */
  readonly #planned: TokenChoice[] = [];
  /** How many tokens a backend may go on to after one. */
  readonly #mostAhead: number;

  /**
   * @param mayGoOn whether the sequence may be run past the tokens that are read, as where nobody uses it afterwards
   * @throws OptionError for a constraint that begins with something else than one; what it throws
   */
  constructor(context: ModelContext, options: ResolvedGenerationOptions, mayGoOn: boolean) {
    const { sampling, stopTokens } = options;
    const { presencePenalty, frequencyPenalty } = sampling;
    const constrain = beginConstraint(options.constrain);
    this.#constrain = constrain;
    const unused = context.unusedTokens.filter((id) => !stopTokens.has(id));
    const masks = unused.length > fewUnused;
    const { allowedTokens, mayEnd, forcedTokens, changeLogits } = constrain;
    const isFree = !allowedTokens && !mayEnd && !forcedTokens && !changeLogits;
    const isPlain = presencePenalty === 0 && frequencyPenalty === 0 && options.logProbabilities === undefined;
    this.#mostAhead = context.scheduler.canGoAhead && mayGoOn && isPlain && !masks && isFree ? tokensAhead : 0;
    this.#context = context;
    this.#options = options;
    this.#sampler = new Sampler({ ...sampling, bannedTokens: [...sampling.bannedTokens, ...(masks ? [] : unused)] });
    this.#stopTokens = stopTokens;
    this.#mask = new Uint32Array(
      constrain.allowedTokens || constrain.mayEnd || masks ? Math.ceil(context.vocabulary / 32) : 0,
    );
    this.#used = masks ? maskWithout(unused, context.vocabulary) : undefined;
    this.#logits = new Float32Array(constrain.changeLogits ? context.vocabulary : 0);
  }

  /**
   * Runs the pending token and what a constraint forces after it, and samples the next one, which becomes the pending
   * token. A stop token does not, so that the sequence continues with what is read next. Where the logits are known and
   * nothing is forced, there is no pass.
   *
   * @param continues whether the generation was admitted before
   * @param most how many tokens there may be, at least 1
   * @param read where the tokens are put, as they are read
   * @returns whether the text ends because nothing but its end is allowed
   * @throws the reason for which the sequence was cancelled; what a constraint throws; RwkvError when no token can be
   *   sampled
   */
  async next(sequence: Sequence, continues: boolean, most: number, read: SampledToken[]): Promise<boolean> {
    const all = this.#forcedTokens();
    const forced = all.length > most ? all.subarray(0, most) : all;
    for (const token of forced) {
      this.#sampler.accept(token);
      this.#generated.push(token);
    }
    const { logProbabilities: wanted } = this.#options;
    // The log-probabilities of forced tokens take the logits of all of them, of which none can be sampled from.
    const samples = forced.length === 0 || (forced.length < most && wanted === undefined);
    const allowed = samples ? this.#allowedTokens() : undefined;
    const isEnd = allowed === "end";
    if (isEnd && forced.length === 0) return true;
    if (samples && !isEnd) await this.#sample(sequence, forced, continues, allowed, most - forced.length, read);
    else await this.#readForced(sequence, forced, continues, wanted !== undefined, read);
    return isEnd;
  }

  /** Whether nothing but the end of the text is allowed. @throws as `next` */
  mustEnd(): boolean {
    const mayEnd = this.#constrain.mayEnd?.(this.#generated.given);
    return mayEnd === true && this.#forcedTokens().length === 0 && this.#allowedTokens() === "end";
  }

  async #sample(
    sequence: Sequence,
    forced: Int32Array,
    continues: boolean,
    mask: Uint32Array | undefined,
    most: number,
    read: SampledToken[],
  ): Promise<void> {
    const { changeLogits } = this.#constrain;
    const choice = this.#planned.shift() ?? this.#sampler.next(mask);
    while (this.#planned.length < Math.min(this.#mostAhead, most - 1)) this.#planned.push(this.#sampler.next());
    const ahead = this.#planned.slice(0, most - 1);
    const { scheduler } = this.#context;
    let sampled = 0;
    const onLogits = (logits: Float32Array, chosen?: number) => {
      // What a backend went on to after a stop token is no part of the text.
      if (this.#stopTokens.has(read.at(-1)?.token ?? -1)) return;
      if (sampled++ > 0) this.#planned.shift();
      // A constraint may create states, which may move the memory of the logits.
      const kept = changeLogits && this.#options.logProbabilities !== undefined ? logits.slice() : logits;
      const token = chosen ?? chooseToken(changeLogits ? this.#changed(logits) : logits, choice);
      this.#sampler.accept(token);
      this.#generated.push(token);
      read.push(this.#options.logProbabilities === undefined ? { token } : this.#withLogProbabilities(token, kept));
      sequence.logits = undefined;
      if (this.#stopTokens.has(token)) return;
      sequence.pendingToken = token;
      sequence.position++;
    };
    const { logits } = sequence;
    if (logits && forced.length === 0) return scheduler.access(sequence, () => onLogits(logits));
    const { tokens, onRun } = this.#run(sequence, forced);
    await scheduler.run({
      sequence,
      tokens,
      logits: "last",
      choice: changeLogits ? undefined : choice,
      choiceOnly: !changeLogits && this.#options.logProbabilities === undefined,
      ahead: ahead.length > 0 ? ahead : undefined,
      continues,
      onRun: (done) => {
        const count = onRun(done);
        while (read.length < count) read.push({ token: forced[read.length] as number });
      },
      onLogits,
    });
  }

  /** Reads forced tokens, the last of which becomes the pending one. */
  async #readForced(
    sequence: Sequence,
    forced: Int32Array,
    continues: boolean,
    withLogits: boolean,
    read: SampledToken[],
  ): Promise<void> {
    const { vocabulary, scheduler } = this.#context;
    const { logits: known } = sequence;
    const { tokens, onRun } = this.#run(sequence, forced);
    const add = (logits?: Float32Array) => {
      const token = forced[read.length] as number;
      read.push(logits ? this.#withLogProbabilities(token, logits) : { token });
    };
    const noteRun = (done: number) => {
      const count = onRun(done);
      if (!withLogits) while (read.length < count) add();
      else if (known && read.length === 0) add(known);
    };
    if (tokens.length === 1) return scheduler.access(sequence, () => noteRun(0));
    await scheduler.run({
      sequence,
      tokens: tokens.subarray(0, -1),
      logits: withLogits ? "all" : "none",
      continues,
      onRun: noteRun,
      onLogits: (rows) => {
        for (let at = 0; at < rows.length; at += vocabulary) add(rows.subarray(at, at + vocabulary));
      },
    });
  }

  /**
   * The tokens to run, the pending one first, and what is noted after so many of them have been run. That returns how
   * many forced tokens have been read by then, the pending one included.
   */
  #run(sequence: Sequence, forced: Int32Array): { tokens: Int32Array; onRun: (done: number) => number } {
    const { position, pendingToken, logits } = sequence;
    const begins = pendingToken === undefined && !logits;
    const before = logits ? 0 : 1;
    const tokens = new Int32Array(before + forced.length);
    if (!logits) tokens[0] = pendingToken ?? this.#firstToken();
    tokens.set(forced, before);
    const onRun = (done: number) => {
      const count = Math.min(done + 1 - before, forced.length);
      sequence.pendingToken = tokens[done];
      sequence.logits = undefined;
      sequence.position = position + (begins ? 1 : 0) + count;
      return count;
    };
    return { tokens, onRun };
  }

  /** @throws OptionError for a value that is not an array of tokens, none of them a stop token */
  #forcedTokens(): Int32Array {
    const forced: unknown = this.#constrain.forcedTokens?.(this.#generated.given);
    if (forced === undefined) return noTokens;
    refusePromise("constrain.forcedTokens", forced);
    const tokens = copyTokens(forced as readonly number[], this.#context.vocabulary, "constrain.forcedTokens");
    const stop = tokens.find((token) => this.#stopTokens.has(token));
    if (stop !== undefined) throw new OptionError("constrain.forcedTokens", stop, "tokens that are not stop tokens");
    return tokens;
  }

  /**
   * The mask of the next token; undefined where all are allowed, "end" where nothing but the end of the text is.
   *
   * @throws OptionError for a value that is not a mask; RwkvError when it allows no token
   */
  #allowedTokens(): Uint32Array | "end" | undefined {
    const allowed: unknown = this.#constrain.allowedTokens?.(this.#generated.given);
    const mayEnd: unknown = this.#constrain.mayEnd?.(this.#generated.given);
    refusePromise("constrain.mayEnd", mayEnd);
    if (allowed === undefined && mayEnd === undefined) return this.#used;
    refusePromise("constrain.allowedTokens", allowed);
    const mask = this.#mask;
    const words = mask.length;
    const { vocabulary } = this.#context;
    if (allowed === undefined) mask.fill(0xffffffff);
    else if (allowed instanceof Uint32Array && allowed.length >= words) mask.set(allowed.subarray(0, words));
    else {
      throw new OptionError(
        "constrain.allowedTokens",
        allowed,
        `a function that gives a Uint32Array of ${words} words`,
      );
    }
    // Bits beyond the vocabulary are ignored.
    if (vocabulary % 32 !== 0) mask[words - 1] = (mask[words - 1] as number) & (2 ** (vocabulary % 32) - 1);
    if (this.#used) for (let i = 0; i < words; i++) mask[i] = (mask[i] as number) & (this.#used[i] as number);
    if (mayEnd !== undefined) {
      for (const token of this.#stopTokens) mask[token >>> 5] = (mask[token >>> 5] as number) & ~(1 << (token & 31));
    }
    if (mask.every((word) => word === 0)) {
      if (mayEnd) return "end";
      throw new RwkvError("constrain.allowedTokens allows no token");
    }
    if (mayEnd) {
      for (const token of this.#stopTokens) mask[token >>> 5] = (mask[token >>> 5] as number) | (1 << (token & 31));
    }
    return mask;
  }

  #changed(logits: Float32Array): Float32Array {
    this.#logits.set(logits);
    const result: unknown = this.#constrain.changeLogits?.(this.#logits, this.#generated.given);
    refusePromise("constrain.changeLogits", result);
    return this.#logits;
  }

  #withLogProbabilities(token: number, logits: Float32Array): SampledToken {
    const { chosen, top } = logProbabilities(logits, token, this.#options.logProbabilities ?? 0);
    return { token, logProbability: chosen, topLogProbabilities: top };
  }

  /**
   * Without a pending token (at the beginning or after a stop token) a new text begins after end-of-text, as in
   * training.
   */
  #firstToken(): number {
    const { endOfText } = this.#context.tokenizer;
    if (endOfText === undefined) {
      const expected =
        "text to continue (nothing was read, or nothing since a stop token, and the tokenizer has no end-of-text token)";
      throw new OptionError("prompt", "", expected);
    }
    return endOfText;
  }
}

/** A mask of all tokens but these. */
function maskWithout(tokens: readonly number[], vocabulary: number): Uint32Array {
  const mask = new Uint32Array(Math.ceil(vocabulary / 32)).fill(0xffffffff);
  for (const token of [...tokens, ...Array.from({ length: mask.length * 32 - vocabulary }, (_, i) => vocabulary + i)]) {
    mask[token >>> 5] = (mask[token >>> 5] as number) & ~(1 << (token & 31));
  }
  return mask;
}

/** @throws OptionError for a promise, whose value would come too late */
function refusePromise(option: string, result: unknown): void {
  if (!(result instanceof Promise)) return;
  result.catch(() => {});
  throw new OptionError(option, result, "a function that is not asynchronous");
}
