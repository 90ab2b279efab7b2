// A model on a kernel machine: weights placed in its memory, the plan written there, passes run. Shared by the native and
// the wasm backend.

import { isBlockType, type WeightDType } from "../../dtypes.js";
import { type RowNode, rootsOf, type StateVector, type Vector, type WeightNode } from "../../graph/graph.js";
import { planGraph } from "../../graph/plan.js";
import { initialState, stateLayout } from "../../graph/state-layout.js";
import {
  type BackendModel,
  type OpenOptions,
  type PassResult,
  type PassSegment,
  type Runtime,
  type RuntimeState,
  rowsWanted,
} from "../backend.js";
import { matrixTypes } from "../placement.js";
import { readVectors, vectorValues } from "../weights.js";
import { layByInput } from "./by-input.js";
import { Choices } from "./choices.js";
import type { Block, KernelMachine } from "./kernel-machine.js";
import { type PlacedMatrix, placeMatrices } from "./matrices.js";
import { PassMemory, placeRecords, type RecordList } from "./pass-memory.js";
import { recordsOf } from "./records.js";
import { StatePool } from "./state-pool.js";

/** Tokens of one pass: enough that a weight, once read, serves many; few enough that values stay in the cache. */
export const maxTokens = 128;

/** Loads a model onto a machine, which the runtime then owns. */
export async function openKernelRuntime(
  machine: KernelMachine,
  model: BackendModel,
  options: OpenOptions,
): Promise<Runtime> {
  try {
    return await open(machine, model, options);
  } catch (error) {
    await machine.dispose();
    throw error;
  }
}

async function open(machine: KernelMachine, model: BackendModel, options: OpenOptions): Promise<Runtime> {
  const { graph } = model;
  const types = matrixTypes(graph, model.tensors, options.dtype);
  const matrices = await placeMatrices(machine, model, types, options);
  const byInput = options.skipZeros ? await layByInput(machine, graph, matrices) : undefined;
  const quantized = new Set([...types.keys()].filter((weight) => isBlockType(types.get(weight) as WeightDType)));
  // The plan is made while the vectors, hundreds of small reads, come.
  const reading = readVectors(graph, model.tensors);
  const plan = planGraph(rootsOf(graph), maxTokens, { quantized, ...(byInput && { byInput }) });
  const vectors = await reading;
  const layout = stateLayout(graph);
  const initial = initialState(graph, (weight) => vectorValues(weight, vectors));
  const arena = machine.allocate(plan.arenaSize);
  const offsetOf = (node: RowNode) => plan.buffers.get(node)?.offset as number;
  const addresses = {
    buffer: (node: RowNode) => arena.address + offsetOf(node),
    vector: placeOnce(machine, (vector) => vectorValues(vector, vectors)),
    matrix: (weight: WeightNode) => matrices.get(weight) as PlacedMatrix,
    state: (state: StateVector) => layout.offsets[state.index] as number,
  };
  const placed = (node: RowNode) => new PlacedRows(arena, offsetOf(node), node.width);
  const records = recordsOf(plan, addresses, machine);
  const choices = graph.handedOn ? undefined : new Choices(machine, graph.output.width, maxTokens);
  if (choices) records.push(choices.record(addresses.buffer(graph.output)));
  const list = placeRecords(machine, records);
  return new KernelRuntime(machine, list, new StatePool(machine, initial), {
    given: (graph.given ?? []).map(placed),
    ...(choices ? { choices, logits: placed(graph.output) } : { handedOn: graph.handedOn?.map(placed) }),
  });
}

/** Vectors and functions of vectors, placed when they are first asked for. */
function placeOnce(machine: KernelMachine, valuesOf: (vector: Vector) => Float32Array): (vector: Vector) => number {
  const placed = new Map<Vector, number>();
  return (vector) => {
    let address = placed.get(vector);
    if (address === undefined) {
      const values = valuesOf(vector);
      const block = machine.allocate(values.byteLength);
      block.bytes.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
      address = block.address;
      placed.set(vector, address);
    }
    return address;
  };
}

/** Rows in the arena. */
class PlacedRows {
  readonly #arena: Block;
  readonly #offset: number;
  readonly #width: number;

  /** @param offset in bytes, from the arena's start */
  constructor(arena: Block, offset: number, width: number) {
    this.#arena = arena;
    this.#offset = offset;
    this.#width = width;
  }

  /** Where they are now: the memory moves when somebody creates a state. */
  first(rows: number): Float32Array {
    const { buffer, byteOffset } = this.#arena.bytes;
    return new Float32Array(buffer, byteOffset + this.#offset, rows * this.#width);
  }
}

/** What goes into a pass and what comes out: logits and choices, or what some layers of a model hand on. */
interface PassEnds {
  readonly given: readonly PlacedRows[];
  readonly choices?: Choices;
  readonly logits?: PlacedRows;
  readonly handedOn?: readonly PlacedRows[] | undefined;
}

class KernelRuntime implements Runtime {
  readonly maxTokens = maxTokens;
  readonly #machine: KernelMachine;
  readonly #records: RecordList;
  readonly #states: StatePool;
  readonly #ends: PassEnds;
  readonly #pass: PassMemory;

  constructor(machine: KernelMachine, records: RecordList, states: StatePool, ends: PassEnds) {
    this.#machine = machine;
    this.#records = records;
    this.#states = states;
    this.#ends = ends;
    this.#pass = new PassMemory(machine, maxTokens, maxTokens);
  }

  get threads(): number {
    return this.#machine.threads;
  }

  get stateLength(): number {
    return this.#states.length;
  }

  createState(values?: Float32Array): RuntimeState {
    return this.#states.create(values);
  }

  async readState(state: RuntimeState): Promise<Float32Array> {
    return this.#states.valuesOf(state).slice();
  }

  writeState(state: RuntimeState, values: Float32Array): void {
    this.#states.valuesOf(state).set(values);
  }

  async run(segments: readonly PassSegment[], given: readonly Float32Array[] = []): Promise<PassResult> {
    const { choices, logits: placedLogits, handedOn } = this.#ends;
    choices?.write(segments); // may allocate, which may move memory
    for (const [i, rows] of this.#ends.given.entries()) rows.first(maxTokens).set(given[i] as Float32Array);
    const selected: number[] = [];
    let tokenCount = 0;
    const placed = segments.map((segment) => {
      const { state, tokens } = segment;
      const address = this.#states.addressOf(state);
      tokenCount += tokens.length;
      for (let row = tokenCount - rowsWanted(segment); row < tokenCount; row++) selected.push(row);
      return { tokens, state: address, nextState: address };
    });
    await this.#pass.run(this.#records, { segments: placed, selected });
    return {
      // Made anew each time, as a state's values are.
      get logits() {
        return placedLogits?.first(selected.length) ?? new Float32Array(0);
      },
      get handedOn() {
        return (handedOn ?? []).map((rows) => rows.first(tokenCount));
      },
      tokens: choices?.read(segments) ?? [],
    };
  }

  dispose(): Promise<void> {
    return this.#machine.dispose();
  }
}
