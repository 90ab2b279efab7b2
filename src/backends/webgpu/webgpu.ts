// The WebGPU backend: the plan of a model as compute shaders. In pages, and in Node with the package `webgpu`.

import { isBlockType } from "../../dtypes.js";
import type { RowNode } from "../../graph/graph.js";
import { type Plan, planGraph } from "../../graph/plan.js";
import { initialState, stateLayout } from "../../graph/state-layout.js";
import type { Backend, BackendModel, OpenOptions, Runtime } from "../backend.js";
import { matrixTypes } from "../placement.js";
import { readVectors, vectorValues } from "../weights.js";
import { Device } from "./device.js";
import { layOut, preferredBuffer, uploadMatrices } from "./matrices.js";
import type { GpuMatrix, Operands } from "./operands.js";
import { programOf } from "./program.js";
import { GpuRuntime } from "./runtime.js";
import { maxTokens } from "./shader.js";
import { VectorTable } from "./vector-table.js";

export const webgpuBackend: Backend = { name: "webgpu", open };

async function open(model: BackendModel, options: OpenOptions): Promise<Runtime> {
  const device = await Device.open({ largestBuffer: preferredBuffer });
  try {
    return await openOn(device, model, options);
  } catch (error) {
    device.release();
    throw error;
  }
}

/**
 * Loads a model onto a device, of which the runtime is then an owner.
 *
 * @param largestBuffer bytes of a buffer of weights
 */
export async function openOn(
  device: Device,
  model: BackendModel,
  options: OpenOptions,
  largestBuffer: number = Math.min(device.largestBuffer, preferredBuffer),
): Promise<Runtime> {
  const { graph, tensors } = model;
  const types = matrixTypes(graph, tensors, options.dtype);
  const layout = layOut(types, largestBuffer);
  const quantized = new Set([...types].filter(([, dtype]) => isBlockType(dtype)).map(([weight]) => weight));
  const plan = planWithin(device.largestBuffer, (capacity) => planGraph([graph.output], capacity, { quantized }));
  const vectors = await readVectors(graph, tensors);
  const states = stateLayout(graph);
  const table = new VectorTable((vector) => vectorValues(vector, vectors));
  const operands: Operands = {
    value: (node) => offsetIn(plan, node),
    vector: (vector) => table.place(vector),
    matrix: (weight) => layout.matrices.get(weight) as GpuMatrix,
    state: ({ index }) => states.offsets[index] as number,
    abilities: device,
  };
  const program = programOf(plan, operands);
  const runtime = await GpuRuntime.create(device, {
    program,
    vectors: table.values(),
    arenaSize: plan.arenaSize,
    capacity: plan.capacity,
    initial: initialState(graph, (weight) => vectorValues(weight, vectors)),
    logits: { offset: offsetIn(plan, graph.output), width: graph.output.width },
  });
  try {
    // Shaders are compiled while the weights come.
    const compiling = runtime.prepare();
    compiling.catch(() => {});
    runtime.bind(await uploadMatrices(device, model, types, layout, options));
    await compiling;
    return runtime;
  } catch (error) {
    await runtime.dispose();
    throw error;
  }
}

function offsetIn(plan: Plan, node: RowNode): number {
  return (plan.buffers.get(node)?.offset as number) / 4;
}

/** A plan for as many tokens as a buffer has room for their values. */
function planWithin(limit: number, planFor: (capacity: number) => Plan): Plan {
  for (let capacity = maxTokens; ; capacity /= 2) {
    const plan = planFor(capacity);
    if (plan.arenaSize <= limit || capacity === 1) return plan;
  }
}
