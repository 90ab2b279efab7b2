// Training on a kernel machine: one walk over the records computes losses, gradients, their norm, and the optimizer's step; a
// second, shorter list computes losses alone.

import { isBlockType, type WeightDType } from "../../dtypes.js";
import { BackendError } from "../../errors.js";
import { lossOf } from "../../graph/differentiate.js";
import { type RowNode, topologicalOrder, type Vector, type WeightNode } from "../../graph/graph.js";
import { type Plan, type PlanNode, planGraph } from "../../graph/plan.js";
import { stateLayout } from "../../graph/state-layout.js";
import {
  type LearnedWeight,
  type Parameter,
  selectTargets,
  type TrainableModel,
  type TrainingOptions,
  type TrainingRuntime,
  type TrainingSegment,
} from "../training.js";
import { matrixTypes, readVectors } from "../weights.js";
import type { Block, KernelMachine } from "./kernel-machine.js";
import { checkCapacity, type PlacedMatrix, placeMatrices } from "./matrices.js";
import { Optimizer } from "./optimizer.js";
import { passSize, type RecordFields, recordSize, segmentSize, writeRecord, writeSegment } from "./record.js";
import { recordCount, vectorFunctionRecord, writeRecords } from "./records.js";
import { runPass } from "./run-pass.js";
import { StatePool } from "./state-pool.js";

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
  let memory = 0;
  const allocate = (size: number): Block => {
    memory += size;
    return machine.allocate(size);
  };
  const floats = (block: Block) => {
    const { buffer, byteOffset, byteLength } = block.bytes;
    return new Float32Array(buffer, byteOffset, byteLength / 4);
  };

  const evaluationLoss = lossOf(graph);
  const evaluation = planGraph([evaluationLoss], options.maxTokens, { schedule: "inOrder" });
  const gradients = [...learned.values()].map(({ gradient }) => gradient);
  const step = planGraph([training.loss, ...gradients], options.maxTokens, { schedule: "inOrder" });
  const types = workingTypes(model);
  checkCapacity(machine, model, types);
  const changing = new Set(learned.keys());
  const matrices = await placeMatrices(machine, model, types, undefined, changing);
  for (const [{ shape }, type] of types)
    memory += (shape[0] as number) * (shape[1] as number) * (type === "f32" ? 4 : 2);
  const vectors = new Map<Vector, Block>();
  const allVectors = [...graph.weights, ...learned.keys()].filter((weight) => weight.op === "vector");
  for (const [weight, values] of await readVectors({ weights: [...new Set(allVectors)] }, model.tensors)) {
    const block = allocate(values.byteLength);
    floats(block).set(values);
    vectors.set(weight, block);
  }
  const functions = vectorFunctionsOf([training.loss, ...gradients]);
  for (const fn of functions) vectors.set(fn, allocate((fn.shape[0] as number) * 4));
  const vectorAddress = (vector: Vector) => (vectors.get(vector) as Block).address;

  const arena = allocate(Math.max(evaluation.arenaSize, step.arenaSize));
  const layout = stateLayout(graph);
  const bufferOf = (plan: Plan, node: PlanNode) => plan.buffers.get(node)?.offset as number;
  const addressesOf = (plan: Plan) => ({
    buffer: (node: PlanNode) => arena.address + bufferOf(plan, node),
    vector: vectorAddress,
    matrix: (weight: WeightNode) => matrices.get(weight) as PlacedMatrix,
    state: (state: { index: number }) => layout.offsets[state.index] as number,
  });
  /** The values of a matrix that the plan makes, where they lie. */
  const valuesAt = (plan: Plan, node: RowNode, rows: number) =>
    new Float32Array(arena.bytes.buffer, arena.bytes.byteOffset + bufferOf(plan, node), rows * node.width);

  const parameters = [...learned].map(([weight, { gradient }]): Parameter & { addresses: number[] } => {
    const matrix = matrices.get(weight);
    const block = vectors.get(weight);
    const size = weight.shape.reduce((product, dimension) => product * dimension, 4);
    const [first, second] = [allocate(size), allocate(size)];
    const bytesOf = () => (matrix ? (matrix.bytes?.() as Uint8Array) : (block as Block).bytes);
    // Views are made anew each time: a machine's memory may move.
    return {
      name: weight.name,
      shape: weight.shape,
      get values() {
        const { buffer, byteOffset } = bytesOf();
        return new Float32Array(buffer, byteOffset, size / 4);
      },
      get gradient() {
        return valuesAt(step, gradient, gradient.rows as number);
      },
      get firstMoment() {
        return floats(first);
      },
      get secondMoment() {
        return floats(second);
      },
      addresses: [
        matrix ? matrix.address : (block as Block).address,
        arena.address + bufferOf(step, gradient),
        first.address,
        second.address,
      ],
    };
  });
  const optimizer = new Optimizer(
    machine,
    [...learned].map(([, weight], i) => ({
      ...(weight as LearnedWeight),
      addresses: (parameters[i] as { addresses: number[] }).addresses,
    })),
  );
  const functionRecords = functions.map((fn) =>
    vectorFunctionRecord(fn.function, fn.shape[0] as number, vectorAddress(fn.x), vectorAddress(fn)),
  );
  const evaluationRecords = writeList(machine, functionRecords, evaluation, addressesOf(evaluation), []);
  const stepRecords = writeList(machine, functionRecords, step, addressesOf(step), optimizer.records);

  const { maxTokens, maxSegments } = options;
  const pass = allocate(passSize);
  const tokens = allocate(maxTokens * 4);
  const selected = allocate(maxTokens * 4);
  const targets = allocate(maxTokens * 4);
  const segmentTable = allocate(maxSegments * segmentSize);
  const states = new StatePool(machine, layout);
  const integers = ({ bytes }: Block) => new Int32Array(bytes.buffer, bytes.byteOffset, maxTokens);

  async function run(records: RecordList, segments: readonly TrainingSegment[], seed: number): Promise<number> {
    const { buffer, byteOffset, byteLength } = segmentTable.bytes;
    const table = new DataView(buffer, byteOffset, byteLength);
    let tokenCount = 0;
    if (segments.length > maxSegments) throw new RangeError(`${segments.length} segments, room for ${maxSegments}`);
    segments.forEach(({ state, nextState, tokens: own }, i) => {
      const [before, after] = [states.addressOf(state), states.addressOf(nextState)];
      writeSegment(tokenCount, own.length, before, after, table, i);
      integers(tokens).set(own, tokenCount);
      tokenCount += own.length;
    });
    const chosen = selectTargets(segments);
    integers(selected).set(chosen.selected);
    integers(targets).set(chosen.targets);
    const fields = {
      records: records.address,
      recordCount: records.count,
      tokens: tokens.address,
      tokenCount,
      selected: selected.address,
      selectedCount: chosen.selected.length,
      segments: segmentTable.address,
      segmentCount: segments.length,
      threads: machine.threads,
      targets: targets.address,
      seed,
    };
    await runPass(machine, pass, fields);
    return chosen.selected.length;
  }

  return {
    threads: machine.threads,
    parameters,
    memory,
    createState: () => states.create(),
    async evaluate(segments) {
      const rows = await run(evaluationRecords, segments, 0);
      return valuesAt(evaluation, evaluationLoss, rows).slice();
    },
    async step(segments, settings, seed) {
      optimizer.write(settings);
      const rows = await run(stepRecords, segments, seed);
      return { losses: valuesAt(step, training.loss, rows).slice(), gradientNorm: optimizer.gradientNorm };
    },
    dispose: () => machine.dispose(),
  };
}

interface RecordList {
  readonly address: number;
  readonly count: number;
}

function writeList(
  machine: KernelMachine,
  before: readonly RecordFields[],
  plan: Plan,
  addresses: Parameters<typeof writeRecords>[1],
  after: readonly RecordFields[],
): RecordList {
  const planned = recordCount(plan);
  const count = before.length + planned + after.length;
  const { address, bytes } = machine.allocate(count * recordSize);
  before.forEach((record, i) => void writeRecord(record, bytes.subarray(i * recordSize)));
  writeRecords(plan, addresses, bytes.subarray(before.length * recordSize));
  after.forEach((record, i) => void writeRecord(record, bytes.subarray((before.length + planned + i) * recordSize)));
  return { address, count };
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

/** The operations that take vectors, by the types of their fields. */
type VectorOperation<Node = RowNode> = Node extends RowNode
  ? true extends {
      [Field in keyof Node]: Vector extends Node[Field] ? true : readonly Vector[] extends Node[Field] ? true : false;
    }[keyof Node]
    ? Node["op"]
    : never
  : never;

/** The vectors that each of them takes; one that is missing here is a type error. */
const vectorsOf: {
  readonly [Op in VectorOperation]: (node: Extract<RowNode, { op: Op }>) => readonly Vector[];
} = {
  layerNorm: ({ weight, bias }) => [weight, bias],
  layerNormGradient: ({ weight }) => [weight],
  tokenShift: ({ factors }) => factors,
  tokenShiftGradient: ({ factors }) => factors,
  vectorRow: ({ vector }) => [vector],
  wkv: ({ decay, first }) => [decay, first],
  wkvGradient: ({ decay, first }) => [decay, first],
};

/** All functions of vectors, each after what it is a function of. */
function vectorFunctionsOf(roots: readonly RowNode[]): Extract<Vector, { op: "vectorFunction" }>[] {
  const found = new Set<Extract<Vector, { op: "vectorFunction" }>>();
  const add = (vector: Vector) => {
    if (vector.op !== "vectorFunction") return;
    add(vector.x);
    found.add(vector);
  };
  for (const node of topologicalOrder(...roots)) {
    const vectors = (vectorsOf as Partial<Record<string, (node: RowNode) => readonly Vector[]>>)[node.op];
    vectors?.(node).forEach(add);
  }
  return [...found];
}
