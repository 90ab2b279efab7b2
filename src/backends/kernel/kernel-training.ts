// Training on a kernel machine: one walk over the records computes losses, gradients, their norm, and the optimizer's step; a
// second, shorter list computes losses alone.

import { elementCount, isBlockType, type WeightDType } from "../../dtypes.js";
import { BackendError } from "../../errors.js";
import { lossOf } from "../../graph/differentiate.js";
import {
  callsOf,
  type RowNode,
  type StateVector,
  topologicalOrder,
  type Vector,
  vectorsOf,
  type WeightNode,
} from "../../graph/graph.js";
import { type Plan, planGraph } from "../../graph/plan.js";
import { initialState, stateLayout } from "../../graph/state-layout.js";
import { matrixTypes } from "../placement.js";
import {
  type LearnedWeight,
  type Parameter,
  type SharedStep,
  selectTargets,
  type TrainableModel,
  type TrainingOptions,
  type TrainingRuntime,
  type TrainingSegment,
} from "../training.js";
import { readVectors } from "../weights.js";
import { bucketsOf, gradientEnds, partsOf, type StepRecords } from "./gradient-buckets.js";
import type { Block, KernelMachine } from "./kernel-machine.js";
import { type PlacedMatrix, placeMatrices } from "./matrices.js";
import { Optimizer } from "./optimizer.js";
import { floatsIn, type PassContents, PassMemory, placeRecords, type RecordList } from "./pass-memory.js";
import { encodeRecord } from "./record.js";
import { type Addresses, recordsOf, vectorFunctionRecord } from "./records.js";
import { StatePool } from "./state-pool.js";

type VectorFunction = Extract<Vector, { op: "vectorFunction" }>;

/** Opens a model for training on a machine, which the runtime then owns. */
export async function openKernelTraining(
  machine: KernelMachine,
  model: TrainableModel,
  options: TrainingOptions,
): Promise<TrainingRuntime> {
  try {
    return await open(machine, model, options);
  } catch (error) {
    await machine.dispose();
    throw error;
  }
}

async function open(machine: KernelMachine, model: TrainableModel, options: TrainingOptions): Promise<TrainingRuntime> {
  const { graph, training, learned } = model;
  const memory = new CountedMemory(machine);
  const evaluationLoss = lossOf(graph);
  const evaluation = planGraph([evaluationLoss], options.maxTokens, { schedule: "inOrder" });
  const gradients = [...learned.values()].map(({ gradient }) => gradient);
  const step = planGraph([training.loss, ...gradients], options.maxTokens, { schedule: "inOrder" });
  const types = workingTypes(model);
  const arenaSize = Math.max(evaluation.arenaSize, step.arenaSize);
  const moments = 8 * [...learned.keys()].reduce((sum, { shape }) => sum + elementCount(shape), 0);
  checkCapacity(machine, bytesOf(types) + arenaSize + moments);
  const changing = new Set(learned.keys());
  const matrices = await placeMatrices(machine, model, types, { changing, onNotice: options.onNotice });
  memory.size += bytesOf(types);
  const functions = vectorFunctionsOf([training.loss, ...gradients]);
  const vectors = await placeVectors(memory, model, functions);
  const arena = memory.allocate(arenaSize);
  const layout = stateLayout(graph);
  const initial = initialState(graph, (weight) => floatsIn(vectors.get(weight) as Block));
  const vectorAddress = (vector: Vector) => (vectors.get(vector) as Block).address;
  const addressesOf = (plan: Plan): Addresses => ({
    buffer: (node) => arena.address + offsetIn(plan, node),
    vector: vectorAddress,
    matrix: (weight) => matrices.get(weight) as PlacedMatrix,
    state: (state: StateVector) => layout.offsets[state.index] as number,
  });
  const parameters = [...learned].map(([weight, { gradient }]) =>
    placeParameter(memory, weight, gradient, matrices.get(weight) ?? (vectors.get(weight) as Block), arena, step),
  );
  const optimizer = new Optimizer(
    machine,
    [...learned.values()].map((weight, i): LearnedWeight & { addresses: readonly number[] } => ({
      ...weight,
      addresses: (parameters[i] as PlacedParameter).addresses,
    })),
  );
  const functionRecords = functions.map((fn) => {
    const [width, from, to] = [fn.shape[0] as number, vectorAddress(fn.x), vectorAddress(fn)];
    return encodeRecord(vectorFunctionRecord(fn.function, width, from, to, machine), machine);
  });
  const listOf = (plan: Plan, after: readonly Uint8Array[]) =>
    placeRecords(machine, [...functionRecords, ...recordsOf(plan, addressesOf(plan), machine), ...after]);
  const steps = optimizer.records.map((fields) => encodeRecord(fields, machine));
  const ends = gradientEnds(step, gradients).map((end) => end + functionRecords.length);
  return new KernelTraining(machine, memory, parameters, optimizer, new StatePool(machine, initial), {
    evaluation: listOf(evaluation, []),
    step: partsOf(listOf(step, steps), bucketsOf(parameters, ends), steps.length),
    evaluationLosses: (rows) => valuesIn(arena, offsetIn(evaluation, evaluationLoss), rows),
    stepLosses: (rows) => valuesIn(arena, offsetIn(step, training.loss), rows),
    pass: new PassMemory(machine, options.maxTokens, options.maxSegments),
  });
}

/** @throws BackendError where a machine does not have so many bytes */
function checkCapacity({ capacity }: KernelMachine, needed: number): void {
  if (needed <= capacity) return;
  const inGiB = (bytes: number) => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
  throw new BackendError(
    `training takes ${inGiB(needed)} in one memory, and WebAssembly has ${inGiB(capacity)} in one; lower the batch or the context, make the ` +
      "model smaller, or use the native backend",
  );
}

/** Memory of a machine, and how much of it was taken. */
class CountedMemory {
  size = 0;
  readonly #machine: KernelMachine;

  constructor(machine: KernelMachine) {
    this.#machine = machine;
  }

  allocate(size: number): Block {
    this.size += size;
    return this.#machine.allocate(size);
  }
}

function offsetIn(plan: Plan, node: RowNode): number {
  return plan.buffers.get(node)?.offset as number;
}

/** Floats of the arena, where they are: a new view each time. */
function valuesIn(arena: Block, offset: number, length: number): Float32Array {
  return new Float32Array(arena.bytes.buffer, arena.bytes.byteOffset + offset, length);
}

/** All vectors of a model, and room for functions of them. */
async function placeVectors(
  memory: CountedMemory,
  { graph, learned, tensors }: TrainableModel,
  functions: readonly VectorFunction[],
): Promise<Map<Vector, Block>> {
  const vectors = new Map<Vector, Block>();
  const weights = new Set([...graph.weights, ...learned.keys()].filter((weight) => weight.op === "vector"));
  for (const [weight, values] of await readVectors({ weights: [...weights] }, tensors)) {
    const block = memory.allocate(values.byteLength);
    floatsIn(block).set(values);
    vectors.set(weight, block);
  }
  for (const fn of functions) vectors.set(fn, memory.allocate((fn.shape[0] as number) * 4));
  return vectors;
}

/** A parameter, and where its values, its gradient and its moments are. */
type PlacedParameter = Parameter & { readonly addresses: readonly number[] };

function placeParameter(
  memory: CountedMemory,
  weight: WeightNode,
  gradient: RowNode,
  place: PlacedMatrix | Block,
  arena: Block,
  step: Plan,
): PlacedParameter {
  const length = elementCount(weight.shape);
  const [first, second] = [memory.allocate(4 * length), memory.allocate(4 * length)];
  const offset = offsetIn(step, gradient);
  return {
    name: weight.name,
    shape: weight.shape,
    // Views are made anew each time: a machine's memory may move.
    get values() {
      const { bytes } = place;
      return floatsIn({ bytes: typeof bytes === "function" ? bytes() : (bytes as Uint8Array) }).subarray(0, length);
    },
    get gradient() {
      return valuesIn(arena, offset, length);
    },
    get firstMoment() {
      return floatsIn(first);
    },
    get secondMoment() {
      return floatsIn(second);
    },
    addresses: [place.address, arena.address + offset, first.address, second.address],
  };
}

/** What passes of training are run with. */
interface Passes {
  readonly evaluation: RecordList;
  readonly step: StepRecords;
  /** The losses that a pass left. */
  evaluationLosses(rows: number): Float32Array;
  stepLosses(rows: number): Float32Array;
  readonly pass: PassMemory;
}

class KernelTraining implements TrainingRuntime {
  readonly parameters: readonly Parameter[];
  readonly #machine: KernelMachine;
  readonly #memory: CountedMemory;
  readonly #optimizer: Optimizer;
  readonly #states: StatePool;
  readonly #passes: Passes;

  constructor(
    machine: KernelMachine,
    memory: CountedMemory,
    parameters: readonly Parameter[],
    optimizer: Optimizer,
    states: StatePool,
    passes: Passes,
  ) {
    this.#machine = machine;
    this.#memory = memory;
    this.parameters = parameters;
    this.#optimizer = optimizer;
    this.#states = states;
    this.#passes = passes;
  }

  get threads(): number {
    return this.#machine.threads;
  }

  get memory(): number {
    return this.#memory.size;
  }

  createState() {
    return this.#states.create();
  }

  async evaluate(segments: readonly TrainingSegment[]): Promise<Float32Array> {
    const rows = await this.#run(this.#passes.evaluation, segments, {});
    return this.#passes.evaluationLosses(rows).slice();
  }

  async step(
    segments: readonly TrainingSegment[],
    settings: Parameters<Optimizer["write"]>[0],
    seed: number,
    shared?: SharedStep,
  ) {
    this.#optimizer.write(settings);
    const { step } = this.#passes;
    const rows = await (shared
      ? this.#runShared(step, segments, seed, shared)
      : this.#run(step.all, segments, { seed }));
    return { losses: this.#passes.stepLosses(rows).slice(), gradientNorm: this.#optimizer.gradientNorm };
  }

  /** Runs a step in parts. While a part runs, the gradients of those before it are added up over all processes. */
  async #runShared(
    { buckets, optimizer }: StepRecords,
    segments: readonly TrainingSegment[],
    seed: number,
    shared: SharedStep,
  ): Promise<number> {
    const { targetCount, firstRow } = shared;
    const sums: Promise<void>[] = [];
    for (const { records, parameters } of buckets) {
      await this.#run(records, segments, { seed, targetCount, firstRow });
      const sum = shared.sum(parameters.map(({ gradient }) => gradient));
      sum.catch(() => {}); // looked at below, once nothing runs any more
      sums.push(sum);
    }
    await Promise.all(sums);
    return this.#run(optimizer, segments, { seed, targetCount, firstRow });
  }

  dispose(): Promise<void> {
    return this.#machine.dispose();
  }

  /** Runs a list of records, and tells how many rows had targets. */
  async #run(
    records: RecordList,
    segments: readonly TrainingSegment[],
    place: Pick<PassContents, "seed" | "targetCount" | "firstRow">,
  ): Promise<number> {
    const placed = segments.map(({ state, nextState, tokens }) => ({
      tokens,
      state: this.#states.addressOf(state),
      nextState: this.#states.addressOf(nextState),
    }));
    const { selected, targets } = selectTargets(segments);
    await this.#passes.pass.run(records, { ...place, segments: placed, selected, targets });
    return selected.length;
  }
}

function bytesOf(types: ReadonlyMap<WeightNode, WeightDType>): number {
  return [...types].reduce((sum, [{ shape }, type]) => {
    return sum + (shape[0] as number) * (shape[1] as number) * (type === "f32" ? 4 : 2);
  }, 0);
}

/** What is learned is float32; what is not stays as it is stored, but for blocks, which have no gradient kernels. */
function workingTypes({ graph, tensors, learned }: TrainableModel): Map<WeightNode, WeightDType> {
  const types = matrixTypes(graph, tensors, undefined);
  for (const [weight, type] of types) if (learned.has(weight) || isBlockType(type)) types.set(weight, "f32");
  for (const weight of learned.keys()) {
    if (weight.op === "matrix" && !types.has(weight)) throw new BackendError(`${weight.name} is not in the graph`);
  }
  return types;
}

/** All functions of vectors, each after what it is a function of. */
function vectorFunctionsOf(roots: readonly RowNode[]): VectorFunction[] {
  const found = new Set<VectorFunction>();
  const add = (vector: Vector) => {
    if (vector.op !== "vectorFunction") return;
    add(vector.x);
    found.add(vector);
  };
  for (const call of callsOf(topologicalOrder(...roots))) vectorsOf(call).forEach(add);
  return [...found];
}
