// Samples the next token of a generation: runs the last token of its sequence and samples from the logits, in the
// kernels where that is enough, and in JavaScript where a constraint changes the logits or where they are known already.

import { OptionError, RwkvError } from "../errors.js";
import { chooseToken } from "../sampling/choose-token.js";
import { logProbabilities, type TokenLogProbability } from "../sampling/log-probability.js";
import { Sampler } from "../sampling/sampler.js";
import type { ResolvedGenerationOptions } from "./generation-options.js";
import type { ModelContext } from "./model-context.js";
import type { Sequence } from "./sequence.js";

/**
 * Tokens that stand for nothing are banned one by one up to this number; a mask, which costs a pass over all logits,
 * leaves out more of them.
 */
const fewUnused = 256;

/** A token that was sampled. */
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
  readonly #sampler: Sampler;
  readonly #stopTokens: ReadonlySet<number>;
  /** The tokens generated so far. Constraints are given copies, so that they cannot change it. */
  readonly #generated: number[] = [];
  /** Buffers for the copies that are made for every token. */
  readonly #mask: Uint32Array;
  /** A mask of the tokens that stand for something, where there are many others. */
  readonly #used: Uint32Array | undefined;
  readonly #logits: Float32Array;

  constructor(context: ModelContext, options: ResolvedGenerationOptions) {
    const { constrain, sampling, stopTokens } = options;
    const unused = context.unusedTokens.filter((id) => !stopTokens.has(id));
    const masks = unused.length > fewUnused;
    this.#context = context;
    this.#options = options;
    this.#sampler = new Sampler({ ...sampling, bannedTokens: [...sampling.bannedTokens, ...(masks ? [] : unused)] });
    this.#stopTokens = stopTokens;
    this.#mask = new Uint32Array(constrain.allowedTokens || masks ? Math.ceil(context.vocabulary / 32) : 0);
    this.#used = masks ? maskWithout(unused, context.vocabulary) : undefined;
    this.#logits = new Float32Array(constrain.changeLogits ? context.vocabulary : 0);
  }

  /**
   * Runs the pending token and samples the next one, which becomes the pending token. A stop token does not, so that
   * the sequence continues with what is read next. Where the logits are known, there is no pass.
   *
   * @param continues whether the generation was admitted before
   * @throws the reason for which the sequence was cancelled; what a constraint throws; RwkvError when no token can be
   *   sampled
   */
  async next(sequence: Sequence, continues: boolean): Promise<SampledToken> {
    const { changeLogits } = this.#options.constrain;
    const mask = this.#allowedTokens();
    const choice = this.#sampler.next(mask);
    let sampled: SampledToken | undefined;
    const onLogits = (logits: Float32Array, chosen?: number) => {
      // A constraint may create states, which may move the memory of the logits.
      const kept = changeLogits && this.#options.logProbabilities !== undefined ? logits.slice() : logits;
      const token = chosen ?? chooseToken(changeLogits ? this.#changed(logits) : logits, choice);
      this.#sampler.accept(token);
      this.#generated.push(token);
      sampled = { token, ...this.#logProbabilities(kept, token) };
      sequence.logits = undefined;
      if (this.#stopTokens.has(token)) return;
      sequence.pendingToken = token;
      sequence.position++;
    };
    const { scheduler } = this.#context;
    const { logits } = sequence;
    if (logits) {
      await scheduler.access(sequence, () => onLogits(logits));
      return sampled as unknown as SampledToken;
    }
    const begins = sequence.pendingToken === undefined;
    await scheduler.run({
      sequence,
      tokens: Int32Array.of(sequence.pendingToken ?? this.#firstToken()),
      logits: "last",
      continues,
      ...(!changeLogits && { choice }),
      onRun: () => {
        sequence.pendingToken = undefined;
        if (begins) sequence.position++;
      },
      onLogits,
    });
    return sampled as unknown as SampledToken;
  }

  /**
   * The mask of the next token.
   *
   * @throws OptionError for a value that is not a mask; RwkvError when it allows no token
   */
  #allowedTokens(): Uint32Array | undefined {
    const { constrain } = this.#options;
    const allowed: unknown = constrain.allowedTokens?.(this.#generated.slice());
    if (allowed === undefined) return this.#used;
    refusePromise("constrain.allowedTokens", allowed);
    const words = this.#mask.length;
    const { vocabulary } = this.#context;
    if (!(allowed instanceof Uint32Array) || allowed.length < words) {
      throw new OptionError(
        "constrain.allowedTokens",
        allowed,
        `a function that gives a Uint32Array of ${words} words`,
      );
    }
    this.#mask.set(allowed.subarray(0, words));
    // Bits beyond the vocabulary are ignored.
    if (vocabulary % 32 !== 0) this.#mask[words - 1] = (this.#mask[words - 1] as number) & (2 ** (vocabulary % 32) - 1);
    if (this.#used)
      for (let i = 0; i < words; i++) this.#mask[i] = (this.#mask[i] as number) & (this.#used[i] as number);
    if (this.#mask.every((word) => word === 0)) throw new RwkvError("constrain.allowedTokens allows no token");
    return this.#mask;
  }

  #changed(logits: Float32Array): Float32Array {
    this.#logits.set(logits);
    const result: unknown = this.#options.constrain.changeLogits?.(this.#logits, this.#generated.slice());
    refusePromise("constrain.changeLogits", result);
    return this.#logits;
  }

  #logProbabilities(logits: Float32Array, token: number): Omit<SampledToken, "token"> {
    const { logProbabilities: count } = this.#options;
    if (count === undefined) return {};
    const { chosen, top } = logProbabilities(logits, token, count);
    return { logProbability: chosen, topLogProbabilities: top };
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
