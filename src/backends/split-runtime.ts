// A model over several backends, its first layers on the first: a pass goes through all of them. A state is one of each backend, and read and
// written as that of the whole model, so that what was saved on one backend goes on here, and the other way round.

import { byteLengthOf } from "../checkpoints/checkpoint.js";
import type { WeightDType } from "../dtypes.js";
import { BackendError } from "../errors.js";
import type { Graph, RowNode } from "../graph/graph.js";
import { type Part, splitGraph } from "../graph/split.js";
import { type StateLayout, stateLayout } from "../graph/state-layout.js";
import type { Backend, BackendModel, OpenOptions, PassResult, PassSegment, Runtime, RuntimeState } from "./backend.js";
import { tensorOf } from "./weights.js";

/** Layers that a backend has. */
export interface Share {
  readonly backend: Backend;
  /** How many; of the last share those that the others leave. */
  readonly layers: number;
  readonly dtype?: WeightDType | undefined;
}

/**
 * Loads a model onto several backends.
 *
 * @throws as the backends' `open`; RangeError for layers that the model does not have
 */
export async function openSplit(
  model: Pick<BackendModel, "tensors"> & { readonly graph: Graph },
  shares: readonly Share[],
  options: OpenOptions,
): Promise<Runtime> {
  const layers = shares.slice(0, -1).map((share) => share.layers);
  const parts = splitGraph(model.graph, layers);
  const sizes = parts.map(({ graph }) =>
    graph.weights.reduce((sum, weight) => sum + byteLengthOf(tensorOf(model.tensors, weight)), 0),
  );
  const total = sizes.reduce((sum, size) => sum + size, 0);
  const opened: OpenPart[] = [];
  let before = 0;
  try {
    for (const [i, part] of parts.entries()) {
      const { backend, dtype = options.dtype } = shares[i] as Share;
      const [start, size] = [before, sizes[i] as number];
      const onProgress = (done: number, all: number) => options.onProgress?.(start + (size * done) / all, total);
      const runtime = await backend.open(
        { graph: part.graph, tensors: model.tensors },
        { ...options, onProgress, ...(dtype && { dtype }) },
      );
      opened.push({ ...part, runtime, layout: stateLayout(part.graph) });
      before += size;
    }
  } catch (error) {
    await Promise.all(opened.map(({ runtime }) => runtime.dispose()));
    throw error;
  }
  const rest = model.graph.checkpoints.length - layers.reduce((sum, count) => sum + count, 0);
  return new SplitRuntime(model.graph, opened, [...layers, rest]);
}

interface OpenPart extends Part {
  readonly runtime: Runtime;
  readonly layout: StateLayout;
}

class SplitRuntime implements Runtime {
  readonly threads: number;
  readonly maxTokens: number;
  readonly stateLength: number;
  readonly layers: readonly number[];
  readonly #parts: readonly OpenPart[];
  readonly #layout: StateLayout;
  readonly #states = new WeakMap<RuntimeState, readonly RuntimeState[]>();

  constructor(graph: Graph, parts: readonly OpenPart[], layers: readonly number[]) {
    this.threads = Math.max(...parts.map(({ runtime }) => runtime.threads));
    this.maxTokens = Math.min(...parts.map(({ runtime }) => runtime.maxTokens));
    this.#layout = stateLayout(graph);
    this.stateLength = this.#layout.length;
    this.layers = layers;
    this.#parts = parts;
  }

  createState(values?: Float32Array): RuntimeState {
    const own: RuntimeState[] = [];
    try {
      for (const part of this.#parts) own.push(part.runtime.createState(values && this.#valuesOf(part, values)));
    } catch (error) {
      for (const state of own) state.release();
      throw error;
    }
    const state: RuntimeState = {
      release: () => {
        if (this.#states.delete(state)) for (const part of own) part.release();
      },
    };
    this.#states.set(state, own);
    return state;
  }

  async readState(state: RuntimeState): Promise<Float32Array> {
    const own = this.#statesOf(state);
    const values = new Float32Array(this.stateLength);
    const read = await Promise.all(this.#parts.map(({ runtime }, i) => runtime.readState(own[i] as RuntimeState)));
    for (const [i, part] of this.#parts.entries()) {
      for (const [at, from, width] of this.#placesOf(part)) {
        values.set((read[i] as Float32Array).subarray(from, from + width), at);
      }
    }
    return values;
  }

  writeState(state: RuntimeState, values: Float32Array): void {
    const own = this.#statesOf(state);
    for (const [i, part] of this.#parts.entries()) {
      part.runtime.writeState(own[i] as RuntimeState, this.#valuesOf(part, values));
    }
  }

  async run(segments: readonly PassSegment[]): Promise<PassResult> {
    const states = segments.map(({ state }) => this.#statesOf(state));
    const values = new Map<RowNode, Float32Array>();
    for (const [i, { runtime, takes, gives }] of this.#parts.entries()) {
      const own = segments.map((segment, s): PassSegment => {
        const state = states[s]?.[i] as RuntimeState;
        return gives.length === 0 ? { ...segment, state } : { state, tokens: segment.tokens, logits: "none" };
      });
      const given = takes.map((node) => values.get(node) as Float32Array);
      const result = await runtime.run(own, given);
      if (gives.length === 0) return result;
      // A copy: it may be needed by more than the next part, and a backend's memory may move.
      const { handedOn = [] } = result;
      for (const [j, node] of gives.entries()) values.set(node, (handedOn[j] as Float32Array).slice());
    }
    throw new RangeError("no part gives logits");
  }

  async dispose(): Promise<void> {
    await Promise.all(this.#parts.map(({ runtime }) => runtime.dispose()));
  }

  /** For each state vector of a part: where it is in a state of the model and in one of the part, and how long it is, in floats. */
  #placesOf({ graph, layout }: OpenPart): (readonly [whole: number, part: number, width: number])[] {
    return graph.stateVectors.map(({ index, width }) => {
      return [this.#layout.offsets[index] as number, layout.offsets[index] as number, width];
    });
  }

  /** What a part has of a state. */
  #valuesOf(part: OpenPart, values: Float32Array): Float32Array {
    const own = new Float32Array(part.layout.length);
    for (const [from, at, width] of this.#placesOf(part)) own.set(values.subarray(from, from + width), at);
    return own;
  }

  #statesOf(state: RuntimeState): readonly RuntimeState[] {
    const own = this.#states.get(state);
    if (!own) throw new BackendError("the state was disposed, or belongs to another model");
    return own;
  }
}
