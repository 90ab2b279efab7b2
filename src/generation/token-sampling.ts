// The next token of a generation: its sequence's last token is run, and one is sampled from the logits - by the kernels where that is
// enough, in JavaScript where a constraint changes logits.

import { OptionError, RwkvError } from "../errors.js";
import { chooseToken } from "../sampling/choose-token.js";
import { logProbabilities, type TokenLogProbability } from "../sampling/log-probability.js";
import { Sampler } from "../sampling/sampler.js";
import type { ResolvedGenerationOptions } from "./generation-options.js";
import type { ModelContext } from "./model-context.js";
import type { Sequence } from "./sequence.js";

/** A token that was sampled. */
export interface SampledToken {
  readonly token: number;
  /** Of the token, in nats, where log-probabilities were asked for. */
  readonly logProbability?: number;
  /** The most probable tokens, where log-probabilities were asked for. */
  readonly topLogProbabilities?: readonly TokenLogProbability[];
}

/** Samples the tokens of one generation. */
export class TokenSampling {
  readonly #context: ModelContext;
  readonly #options: ResolvedGenerationOptions;
  readonly #sampler: Sampler;
  readonly #stopTokens: ReadonlySet<number>;
  /** What constraints are told; a copy, so that nothing they do to it matters elsewhere. */
  readonly #generated: number[] = [];
  /** Copies that are made for every token, each in the same memory. */
  readonly #mask: Uint32Array;
  readonly #logits: Float32Array;

  constructor(context: ModelContext, options: ResolvedGenerationOptions) {
    const { constrain, sampling, stopTokens } = options;
    this.#context = context;
    this.#options = options;
    this.#sampler = new Sampler(sampling);
    this.#stopTokens = stopTokens;
    this.#mask = new Uint32Array(constrain.allowedTokens ? Math.ceil(context.vocabulary / 32) : 0);
    this.#logits = new Float32Array(constrain.changeLogits ? context.vocabulary : 0);
  }

  /**
   * Runs the token that waits, and samples the next one, which then waits in its place; a stop token does not, so that the
   * sequence continues from what is read next.
   *
   * @param continues whether the generation was admitted before
   * @throws the reason for which it was cancelled; what a constraint throws; RwkvError where no token can be sampled
   */
  async next(sequence: Sequence, continues: boolean): Promise<SampledToken> {
    const { changeLogits } = this.#options.constrain;
    const mask = this.#allowedTokens();
    const choice = this.#sampler.next(mask);
    const begins = sequence.pendingToken === undefined;
    const tokens = Int32Array.of(sequence.pendingToken ?? this.#firstToken());
    let sampled: SampledToken | undefined;
    await this.#context.scheduler.run({
      sequence,
      tokens,
      logits: "last",
      continues,
      ...(!changeLogits && { choice }),
      onRun: () => {
        sequence.pendingToken = undefined;
        if (begins) sequence.position++;
      },
      onLogits: (logits, chosen) => {
        // A constraint may create states, and then the memory of the logits moves.
        const kept = changeLogits && this.#options.logProbabilities !== undefined ? logits.slice() : logits;
        const token = chosen ?? chooseToken(this.#changed(logits), choice);
        this.#sampler.accept(token);
        this.#generated.push(token);
        sampled = { token, ...this.#logProbabilities(kept, token) };
        if (this.#stopTokens.has(token)) return;
        sequence.pendingToken = token;
        sequence.position++;
      },
    });
    return sampled as SampledToken;
  }

  /** The mask of the next token. @throws OptionError for what is no mask, or allows no token */
  #allowedTokens(): Uint32Array | undefined {
    const { constrain } = this.#options;
    const allowed: unknown = constrain.allowedTokens?.(this.#generated.slice());
    if (allowed === undefined) return undefined;
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
    // Bits past the vocabulary mean nothing.
    if (vocabulary % 32 !== 0) this.#mask[words - 1] = (this.#mask[words - 1] as number) & (2 ** (vocabulary % 32) - 1);
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

  /** Where no token waits - at the very beginning, or after a stop token - a new text begins, as in training: after end-of-text. */
  #firstToken(): number {
    const { endOfText } = this.#context.tokenizer;
    if (endOfText === undefined) {
      const expected =
        "text to continue (nothing was read yet, or since a stop token; no end-of-text token to begin with)";
      throw new OptionError("prompt", "", expected);
    }
    return endOfText;
  }
}

/** A hook's promise would come too late. @throws OptionError */
function refusePromise(option: string, result: unknown): void {
  if (!(result instanceof Promise)) return;
  result.catch(() => {});
  throw new OptionError(option, result, "a function that is not asynchronous");
}
