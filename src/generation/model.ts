// A loaded model: what it is, a forward pass over any number of sequences, sessions, generation.

import type { BackendName, Runtime } from "../backends/backend.js";
import type { WeightDType } from "../dtypes.js";
import { OptionError } from "../errors.js";
import type { Tokenizer } from "../tokenizers/tokenizer.js";
import { asyncDispose } from "./async-dispose.js";
import { Generation } from "./generation.js";
import { checkObject, type GenerationOptions } from "./generation-options.js";
import type { ModelContext } from "./model-context.js";
import { Scheduler, type SchedulerStatistics } from "./scheduler.js";
import type { Sequence, Work } from "./sequence.js";
import { SequenceStore } from "./sequence-store.js";
import { Session } from "./session.js";
import { State } from "./state.js";
import { copyTokens } from "./tokens.js";

/** What a model is. */
export interface ModelInfo {
  /** Where it was loaded from. */
  readonly source: string;
  /** RWKV version: "4". */
  readonly version: string;
  readonly layers: number;
  readonly width: number;
  readonly hidden: number;
  readonly vocabulary: number;
  /** Number of weights. */
  readonly parameters: number;
  /** Type the weight matrices are computed with. */
  readonly dtype: WeightDType;
  readonly backend: BackendName;
  readonly threads: number;
  /** Memory of one state, in bytes. */
  readonly stateBytes: number;
  /** How long loading took, in milliseconds. */
  readonly loadMilliseconds: number;
}

/** Tokens of one sequence for a forward pass. */
export interface Segment {
  readonly state: State;
  readonly tokens: ArrayLike<number>;
  /** After which tokens logits are wanted. Default "last". */
  readonly logits?: "none" | "last" | "all";
  /**
   * Where the logits go: an array of exactly as many floats as there will be. Loops that run token after token should give one, and
   * use it again: else every call makes a new array, and collecting those takes time.
   */
  readonly output?: Float32Array;
}

/** Most of what there may be of a model at once. */
export interface ModelLimits {
  /** States and sessions. By default as many as take 2 GiB, at most 65,536. */
  readonly states?: number;
  /** Requests that wait for a pass; further ones are refused with a LimitError. Default 16,384. */
  readonly waiting?: number;
}

/** What `load` puts together. */
export interface ModelParts {
  readonly info: Omit<ModelInfo, "stateBytes">;
  readonly runtime: Runtime;
  readonly tokenizer: () => Tokenizer;
  readonly fingerprint: number;
  readonly limits: ModelLimits;
}

const defaultWaiting = 16_384;
const maxStateBytes = 2 ** 31;
const maxStates = 65_536;
/** Bytes of logits that one segment may ask for. */
const maxLogitsBytes = 2 ** 32;
const wantedLogits = ["none", "last", "all"] as const;

/**
 * A loaded model. Made by `load`.
 *
 * All that asks it for tokens shares its passes: generations, sessions and calls of `forward` that are made at once are read from the
 * same weights. What one of them gets does not depend on the others.
 */
export class Model {
  readonly info: ModelInfo;
  readonly #runtime: Runtime;
  readonly #tokenizer: () => Tokenizer;
  readonly #context: ModelContext;
  #disposing: Promise<void> | undefined;

  /** @internal */
  constructor({ info, runtime, tokenizer, fingerprint, limits }: ModelParts) {
    const { vocabulary } = info;
    const stateBytes = runtime.stateLength * 4;
    this.info = { ...info, stateBytes };
    this.#runtime = runtime;
    this.#tokenizer = tokenizer;
    const scheduler = new Scheduler(runtime, vocabulary, limits.waiting ?? defaultWaiting);
    const states = limits.states ?? Math.max(1, Math.min(maxStates, Math.floor(maxStateBytes / stateBytes)));
    this.#context = {
      vocabulary,
      scheduler,
      sequences: new SequenceStore(runtime, scheduler, { fingerprint, vocabulary }, states),
      get tokenizer() {
        return tokenizer();
      },
      tokensOf: (input) => copyTokens(typeof input === "string" ? tokenizer().encode(input) : input, vocabulary),
    };
  }

  /**
   * The model's tokenizer.
   *
   * @throws TokenizerError when none was found beside the checkpoint and none was given
   */
  get tokenizer(): Tokenizer {
    return this.#tokenizer();
  }

  /** What the model's scheduler is doing, and how many states there are. */
  get scheduler(): SchedulerStatistics & { readonly states: number } {
    return { ...this.#context.scheduler.statistics, states: this.#context.sequences.count };
  }

  /**
   * Generates text after a prompt, streaming. Nothing happens until the text is asked for.
   *
   * @param prompt text, or token ids
   * @returns to be iterated with `for await`; its `result` tells how it went
   * @throws OptionError for options outside their range
   */
  generate(prompt: string | ArrayLike<number>, options: GenerationOptions = {}): Generation {
    this.#context.scheduler.checkAlive();
    const start = { prompt: this.#context.tokensOf(prompt), ownsSession: true };
    return new Generation(this.#context, () => this.session(), options, start);
  }

  /**
   * A conversation: owns a state, reads text into it, generates from it.
   *
   * @param saved bytes from `session.save()`
   * @throws StateError when they are damaged or another model's; LimitError where there are too many states
   */
  session(saved?: Uint8Array): Session {
    return new Session(this.#context, this.#context.sequences.create(saved));
  }

  /**
   * A state as before the first token, or as saved.
   *
   * @throws StateError when the bytes are damaged or another model's; LimitError where there are too many states
   */
  createState(saved?: Uint8Array): State {
    return new State(this.#context.sequences, this.#context.sequences.create(saved));
  }

  /**
   * Runs tokens through the model and advances the states: all segments together, so that each weight is read once for
   * all of them, and for all else that is asked of the model at the time. Calls with the same state wait for each other.
   *
   * @returns for each segment its logits: [wanted tokens, vocabulary], empty for "none"
   * @throws OptionError for token ids outside the vocabulary, or a state in two segments; StateError for a state that was disposed
   *   of, or is another model's; LimitError where too many requests wait
   */
  async forward(segments: readonly Segment[]): Promise<Float32Array[]> {
    this.#context.scheduler.checkAlive();
    if (!Array.isArray(segments)) throw new OptionError("segments", segments, "an array of segments");
    const copies = segments.map((segment) => this.#copySegment(segment));
    if (new Set(copies.map(({ sequence }) => sequence)).size < copies.length) {
      throw new OptionError("segments", segments, "each state in one segment only");
    }
    const outputs = copies.flatMap(({ output }) => output ?? []);
    if (new Set(outputs).size < outputs.length)
      throw new OptionError("output", outputs, "another array for each segment");
    const runs = copies.map((copy) => this.#segmentRun(copy));
    // All settle before the call does: nothing writes into an output after that.
    const settled = await Promise.allSettled(this.#context.scheduler.runAll(runs.map(({ work }) => work)));
    for (const run of settled) if (run.status === "rejected") throw run.reason;
    return runs.map(({ logits }) => logits());
  }

  /** Rejects what waits, waits for the pass in progress, then returns threads and memory. */
  dispose(): Promise<void> {
    this.#disposing ??= this.#context.scheduler.dispose().then(() => this.#runtime.dispose());
    return this.#disposing;
  }

  [asyncDispose](): Promise<void> {
    return this.dispose();
  }

  #copySegment(segment: Segment): SegmentCopy {
    checkObject("segments", segment);
    const { state, tokens, logits = "last", output } = segment;
    const { vocabulary, sequences } = this.#context;
    if (!(state instanceof State)) throw new OptionError("state", state, "a state of this model");
    const sequence = State.sequenceOf(state, sequences);
    if (!wantedLogits.includes(logits)) throw new OptionError("logits", logits, wantedLogits.join(", "));
    const ids = copyTokens(tokens, vocabulary);
    const length = (logits === "all" ? ids.length : logits === "last" ? 1 : 0) * vocabulary;
    if (length * 4 > maxLogitsBytes) {
      const most = Math.floor(maxLogitsBytes / 4 / vocabulary);
      throw new OptionError("tokens", ids, `at most ${most} tokens with logits "all" (run longer texts in pieces)`);
    }
    if (output !== undefined && !(output instanceof Float32Array && output.length === length)) {
      throw new OptionError("output", output, `a Float32Array of ${length} floats`);
    }
    return { sequence, tokens: ids, logits, output, length };
  }

  /** The work of a segment, and a function that gives its logits when that is done. */
  #segmentRun({ sequence, tokens, logits, output, length }: SegmentCopy): { work: Work; logits: () => Float32Array } {
    let target = output;
    let filled = 0;
    let skipped = 0; // floats of the pending token's row
    let position = 0; // of the sequence before the tokens that are run
    const work: Work = {
      sequence,
      logits,
      tokens: () => {
        const { pendingToken } = sequence;
        position = sequence.position - (pendingToken === undefined ? 0 : 1);
        if (pendingToken === undefined) return tokens;
        if (logits === "all") skipped = this.info.vocabulary;
        const all = new Int32Array(1 + tokens.length);
        all[0] = pendingToken;
        all.set(tokens, 1);
        return all;
      },
      onRun: (done) => {
        sequence.pendingToken = undefined;
        sequence.position = position + done;
      },
      onLogits: (rows) => {
        const wanted = rows.subarray(Math.min(skipped, rows.length));
        skipped -= rows.length - wanted.length;
        target ??= new Float32Array(length);
        target.set(wanted, filled);
        filled += wanted.length;
      },
    };
    return { work, logits: () => (target?.length === filled ? target : new Float32Array(0)) };
  }
}

/** A segment as it was when the call was made. */
interface SegmentCopy {
  readonly sequence: Sequence;
  readonly tokens: Int32Array;
  readonly logits: "none" | "last" | "all";
  readonly output: Float32Array | undefined;
  /** Floats of logits that there will be, unless no token is run. */
  readonly length: number;
}
