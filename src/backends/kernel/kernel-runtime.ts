// A model on a kernel machine: weights placed in its memory, the plan written there, passes run. Shared by the native and
// the wasm backend.

import { byteLengthOf } from "../../checkpoints/checkpoint.js";
import { readTensorInto } from "../../checkpoints/read-tensor.js";
import { isBlockType, type WeightDType, weightDTypes } from "../../dtypes.js";
import { BackendError } from "../../errors.js";
import type { Vector, WeightNode } from "../../graph/graph.js";
import { type PlanNode, planGraph } from "../../graph/plan.js";
import { type StateLayout, stateLayout } from "../../graph/state-layout.js";
import type { BoundModel } from "../../models/versions.js";
import type { OpenOptions, PassResult, PassSegment, Runtime, RuntimeState } from "../backend.js";
import { matrixTypes, readVectors, tensorOf, vectorValues } from "../weights.js";
import { Choices } from "./choices.js";
import type { Block, KernelMachine } from "./kernel-machine.js";
import { mappedAddress, Quantizer } from "./quantizer.js";
import { passSize, recordCount, recordSize, segmentSize, writePass, writeRecords } from "./records.js";

/** Tokens of one pass: enough that a weight, once read, serves many; few enough that values stay in the cache. */
const maxTokens = 128;

/** Loads a model onto a machine, which the runtime then owns. */
export async function openKernelRuntime(
  machine: KernelMachine,
  model: BoundModel,
  options: OpenOptions,
): Promise<Runtime> {
  try {
    return await open(machine, model, options);
  } catch (error) {
    await machine.dispose();
    throw error;
  }
}

async function open(machine: KernelMachine, model: BoundModel, options: OpenOptions): Promise<Runtime> {
  const { graph } = model;
  const types = matrixTypes(graph, model.tensors, options.dtype);
  checkCapacity(machine, model, types);
  const matrices = await placeMatrices(machine, model, types, options);
  const vectors = await readVectors(graph, model.tensors);
  const vectorBlocks = new Map<Vector, Block>();
  const quantized = new Set([...types.keys()].filter((weight) => isBlockType(types.get(weight) as WeightDType)));
  const plan = planGraph(graph, maxTokens, quantized);
  const layout = stateLayout(graph);
  const arena = machine.allocate(plan.arenaSize);

  const vectorAddress = (vector: Vector): number => {
    let block = vectorBlocks.get(vector);
    if (!block) {
      const values = vectorValues(vector, vectors);
      block = machine.allocate(values.byteLength);
      block.bytes.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
      vectorBlocks.set(vector, block);
    }
    return block.address;
  };
  const bufferAddress = (node: PlanNode) => arena.address + (plan.buffers.get(node)?.offset as number);

  const outputOffset = plan.buffers.get(graph.output)?.offset as number;
  const choices = new Choices(machine, graph.output.width, maxTokens);
  const count = recordCount(plan);
  const records = machine.allocate((count + 1) * recordSize);
  choices.writeRecord(arena.address + outputOffset, records.bytes.subarray(count * recordSize));
  writeRecords(
    plan,
    {
      buffer: bufferAddress,
      vector: vectorAddress,
      matrix: (weight) => matrices.get(weight) as { address: number; dtype: WeightDType },
      state: (state) => layout.offsets[state.index] as number,
    },
    records.bytes,
  );

  const pass = machine.allocate(passSize);
  const tokens = machine.allocate(maxTokens * 4);
  const selected = machine.allocate(maxTokens * 4);
  const segmentTable = machine.allocate(maxTokens * segmentSize);
  const states = new StatePool(machine, layout);

  async function run(segments: readonly PassSegment[]): Promise<PassResult> {
    const tokenIds = new Int32Array(tokens.bytes.buffer, tokens.bytes.byteOffset, maxTokens);
    const selectedRows = new Int32Array(selected.bytes.buffer, selected.bytes.byteOffset, maxTokens);
    const table = new DataView(segmentTable.bytes.buffer, segmentTable.bytes.byteOffset, maxTokens * segmentSize);
    let tokenCount = 0;
    let wanted = 0;
    segments.forEach(({ state, tokens: own, logits }, i) => {
      table.setUint32(i * segmentSize, tokenCount, true);
      table.setUint32(i * segmentSize + 4, own.length, true);
      table.setBigUint64(i * segmentSize + 8, BigInt(states.addressOf(state)), true);
      tokenIds.set(own, tokenCount);
      tokenCount += own.length;
      const rows = logits === "all" ? own.length : logits === "last" ? 1 : 0;
      for (let row = tokenCount - rows; row < tokenCount; row++) selectedRows[wanted++] = row;
    });
    choices.write(segments, wanted);
    writePass(
      {
        records: records.address,
        recordCount: count + 1,
        tokens: tokens.address,
        tokenCount,
        selected: selected.address,
        selectedCount: wanted,
        segments: segmentTable.address,
        segmentCount: segments.length,
        threads: machine.threads,
      },
      pass.bytes,
    );
    await machine.run(pass.address);
    const logits = new Float32Array(
      arena.bytes.buffer,
      arena.bytes.byteOffset + outputOffset,
      wanted * graph.output.width,
    );
    return { logits, tokens: choices.read(segments, logits) };
  }

  return {
    threads: machine.threads,
    maxTokens,
    createState: () => states.create(),
    run,
    dispose: () => machine.dispose(),
  };
}

/** Beside the matrices a machine holds vectors, states and the arena; what they need is far below this share of it. */
const shareForMatrices = 0.95;

/** @throws BackendError when the matrices do not fit, with the types that would */
function checkCapacity(machine: KernelMachine, model: BoundModel, types: ReadonlyMap<WeightNode, WeightDType>): void {
  const room = machine.capacity * shareForMatrices;
  const sizeOf = (all: ReadonlyMap<WeightNode, WeightDType>) =>
    [...all].reduce((sum, [{ shape }, dtype]) => sum + byteLengthOf({ dtype, shape }), 0);
  const needed = sizeOf(types);
  if (needed <= room) return;
  const gib = (bytes: number) => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
  const fitting = weightDTypes
    .map((dtype) => ({ dtype, size: sizeOf(matrixTypes(model.graph, model.tensors, dtype)) }))
    .filter(({ size }) => size <= room)
    .map(({ dtype, size }) => `dtype "${dtype}" (${gib(size)})`);
  throw new BackendError(
    `the model's matrices take ${gib(needed)}, and WebAssembly has ${gib(machine.capacity)} of memory; ` +
      (fitting.length > 0 ? `${fitting.join(", ")} would fit` : "no dtype would fit; use the native backend"),
  );
}

/** Maps matrices whose stored form is the one wanted; copies, converts or quantizes the others. */
async function placeMatrices(
  machine: KernelMachine,
  model: BoundModel,
  types: ReadonlyMap<WeightNode, WeightDType>,
  options: OpenOptions,
) {
  const matrices = new Map<WeightNode, { address: number; dtype: WeightDType }>();
  const quantizer = new Quantizer(machine);
  const total = [...types.keys()].reduce((sum, weight) => sum + byteLengthOf(tensorOf(model.tensors, weight)), 0);
  let done = 0;
  for (const [weight, dtype] of types) {
    const tensor = tensorOf(model.tensors, weight);
    let address = tensor.dtype === dtype ? mappedAddress(machine, tensor) : undefined;
    if (address === undefined) {
      const block = machine.allocate(byteLengthOf({ dtype, shape: weight.shape }));
      if (!isBlockType(dtype)) await readTensorInto(tensor, dtype, block.bytes);
      else if (tensor.dtype === dtype) await tensor.source.readInto(tensor.offset, block.bytes);
      else await quantizer.quantize(tensor, dtype, block.address);
      address = block.address;
    }
    matrices.set(weight, { address, dtype });
    done += byteLengthOf(tensor);
    options.onProgress?.(done, total);
  }
  return matrices;
}

/** State blocks in the machine's memory; released ones are used again. */
class StatePool {
  readonly #machine: KernelMachine;
  readonly #layout: StateLayout;
  readonly #free: Block[] = [];
  readonly #blocks = new WeakMap<RuntimeState, Block>();

  constructor(machine: KernelMachine, layout: StateLayout) {
    this.#machine = machine;
    this.#layout = layout;
  }

  create(): RuntimeState {
    const block = this.#free.pop() ?? this.#machine.allocate(this.#layout.length * 4);
    const { length, initial } = this.#layout;
    const state: RuntimeState = {
      // Made anew each time: a machine's memory may move.
      get values() {
        return new Float32Array(block.bytes.buffer, block.bytes.byteOffset, length);
      },
      release: () => {
        if (this.#blocks.delete(state)) this.#free.push(block);
      },
    };
    state.values.set(initial);
    this.#blocks.set(state, block);
    return state;
  }

  /** @throws BackendError for a state that was released or is another model's */
  addressOf(state: RuntimeState): number {
    const block = this.#blocks.get(state);
    if (!block) throw new BackendError("the state was disposed, or belongs to another model");
    return block.address;
  }
}
