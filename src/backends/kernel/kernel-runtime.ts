// A model on a kernel machine: weights placed in its memory, the plan written there, passes run. Shared by the native and
// the wasm backend.

import { isBlockType, type WeightDType } from "../../dtypes.js";
import type { Vector } from "../../graph/graph.js";
import { type PlanNode, planGraph } from "../../graph/plan.js";
import { stateLayout } from "../../graph/state-layout.js";
import type { BoundModel } from "../../models/versions.js";
import type { OpenOptions, PassResult, PassSegment, Runtime } from "../backend.js";
import { matrixTypes, readVectors, vectorValues } from "../weights.js";
import { Choices } from "./choices.js";
import type { Block, KernelMachine } from "./kernel-machine.js";
import { checkCapacity, type PlacedMatrix, placeMatrices } from "./matrices.js";
import { passSize, recordSize, segmentSize, writeSegment } from "./record.js";
import { recordCount, writeRecords } from "./records.js";
import { runPass } from "./run-pass.js";
import { StatePool } from "./state-pool.js";

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
  const matrices = await placeMatrices(machine, model, types, options.onProgress, undefined, options.onNotice);
  const vectorBlocks = new Map<Vector, Block>();
  const quantized = new Set([...types.keys()].filter((weight) => isBlockType(types.get(weight) as WeightDType)));
  // The plan is made while the vectors, hundreds of small reads, come.
  const reading = readVectors(graph, model.tensors);
  const plan = planGraph([graph.output], maxTokens, { quantized });
  const vectors = await reading;
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
  // Written aside, then placed: writing them allocates vectors, and memory that is not shared moves when it grows.
  const written = new Uint8Array((count + 1) * recordSize);
  choices.writeRecord(arena.address + outputOffset, written.subarray(count * recordSize));
  writeRecords(
    plan,
    {
      buffer: bufferAddress,
      vector: vectorAddress,
      matrix: (weight) => matrices.get(weight) as PlacedMatrix,
      state: (state) => layout.offsets[state.index] as number,
    },
    written,
  );
  const records = machine.allocate(written.byteLength);
  records.bytes.set(written);

  const pass = machine.allocate(passSize);
  const tokens = machine.allocate(maxTokens * 4);
  const selected = machine.allocate(maxTokens * 4);
  const segmentTable = machine.allocate(maxTokens * segmentSize);
  const states = new StatePool(machine, layout);

  async function run(segments: readonly PassSegment[]): Promise<PassResult> {
    choices.write(segments); // may allocate, which may move the memory that the views below are of
    const tokenIds = new Int32Array(tokens.bytes.buffer, tokens.bytes.byteOffset, maxTokens);
    const selectedRows = new Int32Array(selected.bytes.buffer, selected.bytes.byteOffset, maxTokens);
    const table = new DataView(segmentTable.bytes.buffer, segmentTable.bytes.byteOffset, maxTokens * segmentSize);
    let tokenCount = 0;
    let wanted = 0;
    segments.forEach(({ state, tokens: own, logits }, i) => {
      const address = states.addressOf(state);
      writeSegment(tokenCount, own.length, address, address, table, i);
      tokenIds.set(own, tokenCount);
      tokenCount += own.length;
      const rows = logits === "all" ? own.length : logits === "last" ? 1 : 0;
      for (let row = tokenCount - rows; row < tokenCount; row++) selectedRows[wanted++] = row;
    });
    await runPass(machine, pass, {
      records: records.address,
      recordCount: count + 1,
      tokens: tokens.address,
      tokenCount,
      selected: selected.address,
      selectedCount: wanted,
      segments: segmentTable.address,
      segmentCount: segments.length,
      threads: machine.threads,
    });
    return {
      // Made anew each time, as a state's values are: the memory moves when somebody creates a state before looking.
      get logits() {
        const { buffer, byteOffset } = arena.bytes;
        return new Float32Array(buffer, byteOffset + outputOffset, wanted * graph.output.width);
      },
      tokens: choices.read(segments),
    };
  }

  return {
    threads: machine.threads,
    maxTokens,
    stateLength: layout.length,
    createState: (values) => states.create(values),
    readState: async (state) => states.valuesOf(state).slice(),
    writeState: (state, values) => states.valuesOf(state).set(values),
    run,
    dispose: () => machine.dispose(),
  };
}
