// A loaded model: what it is, a forward pass over any number of sequences, sessions, generation.

import type { BackendName, Runtime } from "../backends/backend.js";
import type { Checkpoint } from "../checkpoints/checkpoint.js";
import type { CheckpointInput } from "../checkpoints/checkpoint-input.js";
import type { WeightDType } from "../dtypes.js";
import { OptionError } from "../errors.js";
import { type Tokenizer, unusedIdsOf } from "../tokenizers/tokenizer.js";
import { asyncDispose } from "./async-dispose.js";
import { Generation } from "./generation.js";
import { checkObject, type GenerationOptions } from "./generation-options.js";
import type { ModelContext } from "./model-context.js";
import { Scheduler, type SchedulerStatistics } from "./scheduler.js";
import type { Sequence, Work } from "./sequence.js";
import { SequenceStore } from "./sequence-store.js";
import { Session } from "./session.js";
import type { Snapshot } from "./snapshot.js";
import { State } from "./state.js";
import { copyTokens } from "./tokens.js";

/** Facts about a loaded model. */
export interface ModelInfo {
  /** The path or URL that the model was loaded from. */
  readonly source: string;
  /** RWKV version: "4". */
  readonly version: string;
  readonly layers: number;
  readonly width: number;
  readonly hidden: number;
  readonly vocabulary: number;
  /** All dimensions by name; some versions have more than the four above: heads, ranks of low-rank parts. */
  readonly dimensions: Readonly<Record<string, number>>;
  /** The number of weights. */
  readonly parameters: number;
  /** The type of the weight matrices in memory. */
  readonly dtype: WeightDType;
  /** Where it computes; of a strategy the last backend, on which tokens are sampled. */
  readonly backend: BackendName;
  /**
   * How its layers are divided, where that was asked for or one memory of WebAssembly does not hold them: "webgpu *10 -> native *2",
   * "wasm *16 -> wasm *16".
   */
  readonly strategy?: string;
  readonly threads: number;
  /** The memory that one state takes, in bytes. */
  readonly stateBytes: number;
  /** What the file says beside its tensors: `__metadata__` of safetensors, entries of a .pth that are text or numbers. */
  readonly metadata: Readonly<Record<string, string>>;
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
   * The array that receives the logits, of exactly their length. A loop that runs token after token should pass the
   * same array each time; otherwise every call allocates one, and collecting those takes time.
   */
  readonly output?: Float32Array;
}

/** How many states and waiting requests a model may have at once. */
export interface ModelLimits {
  /** The most states and sessions. By default as many as take 2 GiB, at most 65,536. */
  readonly states?: number;
  /** The most requests that may wait for their first pass; further ones fail with a LimitError. Default 16,384. */
  readonly waiting?: number;
}

/** The parts from which `load` makes a model. */
export interface ModelParts {
  readonly info: Omit<ModelInfo, "stateBytes">;
  readonly runtime: Runtime;
  readonly tokenizer: () => Tokenizer;
  readonly fingerprint: number;
  /** The floats of the state that a file of tuned states says. @throws CheckpointError where it is not one of this model */
  tunedState(file: Checkpoint): Promise<Float32Array>;
  readonly limits: ModelLimits;
}

const defaultWaiting = 16_384;
const maxStateBytes = 2 ** 31;
const maxStates = 65_536;
/** The most bytes of logits that one segment may ask for. */
const maxLogitsBytes = 2 ** 32;
const wantedLogits = ["none", "last", "all"] as const;

/**
 * A loaded model, made by `load`.
 *
 * Generations, sessions and calls of `forward` that are in progress at the same time share passes, so that each
 * weight is read once for all of them. The result of one does not depend on the others.
 */
export class Model {
  readonly info: ModelInfo;
  readonly #runtime: Runtime;
  readonly #tokenizer: () => Tokenizer;
  readonly #tunedState: ModelParts["tunedState"];
  readonly #context: ModelContext;
  #disposing: Promise<void> | undefined;

  /** @internal */
  constructor({ info, runtime, tokenizer, fingerprint, tunedState, limits }: ModelParts) {
    const { vocabulary } = info;
    const stateBytes = runtime.stateLength * 4;
    this.info = { ...info, stateBytes };
    this.#runtime = runtime;
    this.#tokenizer = tokenizer;
    this.#tunedState = tunedState;
    const scheduler = new Scheduler(runtime, vocabulary, limits.waiting ?? defaultWaiting);
    let unused: readonly number[] | undefined;
    const states = limits.states ?? Math.max(1, Math.min(maxStates, Math.floor(maxStateBytes / stateBytes)));
    this.#context = {
      vocabulary,
      scheduler,
      sequences: new SequenceStore(runtime, scheduler, { fingerprint, vocabulary }, states),
      get tokenizer() {
        return tokenizer();
      },
      get unusedTokens() {
        unused ??= unusedIdsOf(tokenizer(), vocabulary);
        return unused;
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

  /**
   * The ids that stand for nothing in the tokenizer, such as 65530 to 65535 of RWKV World. Generations and sessions never
   * sample them, unless they are named as `stopTokens`; give them to a `Sampler` of your own as `bannedTokens`.
   *
   * @throws TokenizerError without a tokenizer
   */
  get unusedTokens(): readonly number[] {
    return this.#context.unusedTokens.slice();
  }

  /** A snapshot of what the model's scheduler is doing, with the number of states and sessions. */
  get scheduler(): SchedulerStatistics & { readonly states: number } {
    return { ...this.#context.scheduler.statistics, states: this.#context.sequences.count };
  }

  /**
   * Generates text after a prompt, as a stream. Nothing is computed until the text is asked for.
   *
   * @param prompt text, or token ids
   * @returns a generation, to be iterated with `for await`; its `result` says how it went
   * @throws OptionError for options outside their range or token ids outside the vocabulary; TokenizerError without a
   *   tokenizer; BackendError after dispose()
   */
  generate(prompt: string | ArrayLike<number>, options: GenerationOptions = {}): Generation {
    this.#context.scheduler.checkAlive();
    const start = { prompt: this.#context.tokensOf(prompt), ownsSession: true };
    return new Generation(this.#context, () => this.session(), options, start);
  }

  /**
   * Reads a file with a state: one that was saved, or the tuned states of other programs, a .pth with `blocks.N.att.time_state` for
   * each layer and nothing else (docs/model.md says which versions have them). Its content says which it is.
   *
   * @param input the path or URL of the file, or the file itself
   * @returns the state as bytes, for `session`, `createState` and `state.restore`
   * @throws CheckpointError when the file cannot be read, holds something else, or is tuned states of another model; StateError when it is
   *   a saved state that is damaged or belongs to another model; OptionError for an input that is none; BackendError after dispose()
   */
  async readState(input: CheckpointInput): Promise<Uint8Array> {
    this.#context.scheduler.checkAlive();
    return this.#context.sequences.read(input, this.#tunedState);
  }

  /**
   * Makes a conversation, which owns a state, reads text into it and generates from it.
   *
   * @param saved bytes from `session.save()`, `state.save()` or `readState()`, or a snapshot of a session; they are copied
   * @throws StateError when the bytes are damaged or belong to another model; LimitError when there are too many states
   */
  session(saved?: Uint8Array | Snapshot): Session {
    return new Session(this.#context, this.#context.sequences.create(saved));
  }

  /**
   * A snapshot of a saved state, from which any number of sessions continue. It takes no place among the model's states.
   *
   * @param saved bytes from `snapshot.save()`, `session.save()`, `state.save()` or `readState()`; they are copied
   * @throws StateError when the bytes are damaged or belong to another model
   */
  snapshot(saved: Uint8Array): Snapshot {
    return this.#context.sequences.snapshotOf(saved);
  }

  /**
   * The same without a copy, where the bytes lie as floats do. Nobody may change them afterwards.
   *
   * @internal
   */
  snapshotOfOwn(saved: Uint8Array): Snapshot {
    return this.#context.sequences.snapshotOf(saved, true);
  }

  /**
   * Makes a state, as it is before the first token or as it was saved.
   *
   * @param saved bytes from `session.save()`, `state.save()` or `readState()`, or a snapshot of a session; they are copied
   * @throws StateError when the bytes are damaged or belong to another model; LimitError when there are too many states
   */
  createState(saved?: Uint8Array | Snapshot): State {
    return new State(this.#context.sequences, this.#context.sequences.create(saved));
  }

  /**
   * Runs tokens through the model and advances the states. All segments run together, along with everything else that
   * the model was asked for, so that each weight is read once for all of them. Calls with the same state wait for
   * each other.
   *
   * @returns the logits of each segment: [wanted tokens, vocabulary], empty for "none"
   * @throws OptionError for token ids outside the vocabulary or a state in two segments; StateError for a state that
   *   was disposed of or belongs to another model; LimitError when too many requests wait; BackendError after
   *   dispose()
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

  /**
   * Rejects waiting requests with a BackendError, waits for the pass in progress, and gives threads and memory back.
   */
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

  /** The work of a segment, and a function that returns its logits once the work is done. */
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
        sequence.logits = undefined;
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

/** A segment, copied and checked when the call was made. */
interface SegmentCopy {
  readonly sequence: Sequence;
  readonly tokens: Int32Array;
  readonly logits: "none" | "last" | "all";
  readonly output: Float32Array | undefined;
  /** The number of floats in the logits, unless no token is run. */
  readonly length: number;
}
