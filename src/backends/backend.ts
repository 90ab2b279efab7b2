// The small interface that every backend implements: load a bound model, run passes over it.

import type { StoredTensor } from "../checkpoints/checkpoint.js";
import type { WeightDType } from "../dtypes.js";
import type { GraphPart } from "../graph/graph.js";
import type { TokenChoice } from "../sampling/choose-token.js";

/** Names of the backends. */
export const backendNames = ["native", "wasm", "webgpu", "reference"] as const;
export type BackendName = (typeof backendNames)[number];

/** The state that one sequence carries, where the backend keeps it. Only its runtime can read it. */
export interface RuntimeState {
  /** Returns the memory; the state must not be used afterwards, and no pass may be using it. */
  release(): void;
}

/** A state in memory that JavaScript can reach. A machine's memory may move, so `values` is a new view each time. */
export interface ResidentState extends RuntimeState {
  readonly values: Float32Array;
}

/** Tokens of one sequence in a pass. A state may occur in only one segment of a pass. */
export interface PassSegment {
  readonly state: RuntimeState;
  readonly tokens: ArrayLike<number>;
  /** For which of the tokens logits are computed. */
  readonly logits: "none" | "last" | "all";
  /** Asks for a token to be chosen from the logits of the last one; goes with logits "last". */
  readonly choice?: TokenChoice | undefined;
  /** Says that the choice alone is wanted, so that a backend need not bring the logits to where they can be read. */
  readonly choiceOnly?: boolean;
}

/** What a pass gives. */
export interface PassResult {
  /**
   * A row of vocabulary-size floats for each wanted token, in the order of the segments; it may be empty where no segment wants
   * more than a choice. The memory belongs to the backend. It is
   * valid until the next pass, and may move when a state is created, so read the property again after that.
   */
  readonly logits: Float32Array;
  /** For each segment with a choice the token that was chosen; -1 where its logits are not numbers. */
  readonly tokens: readonly number[];
  /** Of some layers of a model the values that they hand on, a row for every token; as valid as logits are. */
  readonly handedOn?: readonly Float32Array[];
}

/** A model, or some of its layers, on a backend. */
export interface Runtime {
  readonly threads: number;
  /** Tokens that one pass can take, over all segments. */
  readonly maxTokens: number;
  /** Floats in a state. */
  readonly stateLength: number;
  /** Of a model in several parts, how many layers each has. */
  readonly layers?: readonly number[];
  /**
   * Makes a state: with the given values, or as it is before the first token.
   *
   * @throws BackendError when there is not enough memory
   */
  createState(values?: Float32Array): RuntimeState;
  /** Copies the values of a state that no pass is using. */
  readState(state: RuntimeState): Promise<Float32Array>;
  /** Replaces the values of a state that no pass is using. */
  writeState(state: RuntimeState, values: Float32Array): void;
  /**
   * Runs the tokens of all segments and advances their states. One pass at a time.
   *
   * @param given what the layers before hand on, a row for every token; it is copied before the call returns
   */
  run(segments: readonly PassSegment[], given?: readonly Float32Array[]): Promise<PassResult>;
  /**
   * Where a backend can go on without anybody's help: runs a token, chooses the next, runs that, and so on until all choices are made, as so
   * many passes over one sequence would. The last token that is chosen is not run. One call of this or of `run` at a time.
   *
   * @returns the chosen tokens; -1 where logits are not numbers
   */
  runAhead?(state: RuntimeState, token: number, choices: readonly TokenChoice[]): Promise<readonly number[]>;
  dispose(): Promise<void>;
}

/** What a backend must know of a model, or of some of its layers: the graph, and the stored tensor of each weight by name. */
export interface BackendModel {
  readonly graph: GraphPart;
  readonly tensors: ReadonlyMap<string, StoredTensor>;
}

/** How to bring a model onto a backend. */
export interface OpenOptions {
  /** Type of the weight matrices; as stored (f64 as f32) when absent. */
  readonly dtype?: WeightDType;
  readonly threads: number;
  /** Called as weights are read, with bytes done and bytes in all. */
  readonly onProgress?: (done: number, total: number) => void;
  /** Called with a line that the user should see, such as that kernels are being compiled. */
  readonly onNotice?: (message: string) => void;
  /** Whether weights whose inputs are zero are left unread, at the price of a second form of some matrices in memory. */
  readonly skipZeros?: boolean;
  /** The most bytes that one memory of WebAssembly may have: less than its 4 GiB in tests, so that small models are divided. */
  readonly memoryLimit?: number;
}

/** A backend: a way to run any graph. */
export interface Backend {
  readonly name: BackendName;
  /** Starts work that needs no model while the directory of one is read. `open` reports its errors. */
  prepare?(): void;
  /**
   * Loads a model.
   *
   * @throws BackendError when the backend cannot run here; CheckpointError when a tensor cannot be read
   */
  open(model: BackendModel, options: OpenOptions): Promise<Runtime>;
}

/** Number of logits rows that a segment asks for. */
export function rowsWanted({ logits, tokens }: PassSegment): number {
  return logits === "all" ? tokens.length : logits === "last" ? 1 : 0;
}

/** The same of several. */
export function selectedCount(segments: readonly PassSegment[]): number {
  return segments.reduce((sum, segment) => sum + rowsWanted(segment), 0);
}

/** The segments that ask for a choice, each with the number of its row of logits. */
export function choicesOf(segments: readonly PassSegment[]): { choice: TokenChoice; row: number }[] {
  const choices: { choice: TokenChoice; row: number }[] = [];
  let row = 0;
  for (const segment of segments) {
    if (segment.choice) choices.push({ choice: segment.choice, row });
    row += rowsWanted(segment);
  }
  return choices;
}
