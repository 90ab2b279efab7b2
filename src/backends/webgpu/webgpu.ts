// The WebGPU backend: the plan of a model as compute shaders. In pages, and in Node with the package `webgpu`.

import { type ComputeType, isBlockType } from "../../dtypes.js";
import { type RowNode, rootsOf, type WeightNode } from "../../graph/graph.js";
import { type Plan, planGraph } from "../../graph/plan.js";
import { initialState, stateLayout } from "../../graph/state-layout.js";
import type { Backend, BackendModel, OpenOptions, Runtime } from "../backend.js";
import { matrixTypes } from "../placement.js";
import { readVectors, vectorValues } from "../weights.js";
import { Device } from "./device.js";
import { layOut, type MatrixLayout, preferredBuffer, uploadMatrices } from "./matrices.js";
import type { GpuMatrix, Operands } from "./operands.js";
import { programOf } from "./program.js";
import { GpuRuntime, type RuntimeParts } from "./runtime.js";
import { maxTokens } from "./shader.js";
import { VectorTable } from "./vector-table.js";

export const webgpuBackend: Backend = { name: "webgpu", open };

async function open(model: BackendModel, options: OpenOptions): Promise<Runtime> {
  return openOn(await Device.open({ largestBuffer: preferredBuffer }), model, options);
}

/**
 * Loads a model onto a device, of which the runtime is then an owner; where loading fails, the device has one owner less.
 *
 * @param largestBuffer bytes of a buffer of weights
 */
export async function openOn(
  device: Device,
  model: BackendModel,
  options: OpenOptions,
  largestBuffer: number = Math.min(device.largestBuffer, preferredBuffer),
): Promise<Runtime> {
  let runtime: GpuRuntime | undefined;
  let early: GPUBuffer[] | undefined;
  try {
    const types = matrixTypes(model.graph, model.tensors, options.dtype);
    const layout = layOut(types, largestBuffer);
    const upload = () => uploadMatrices(device, model, types, layout, options);
    // Of a file that is being downloaded vectors, which are all over it, are there when all is.
    if ([...model.tensors.values()].some(({ source }) => source.arrival?.isWhole === false)) early = await upload();
    runtime = await GpuRuntime.create(device, await partsOf(model, types, layout, device));
    // Shaders are compiled while the weights come.
    const compiling = runtime.prepare();
    compiling.catch(() => {});
    runtime.bind(early ?? (await upload()));
    await compiling;
    return runtime;
  } catch (error) {
    if (runtime) await runtime.dispose();
    else {
      for (const buffer of early ?? []) buffer.destroy();
      device.release();
    }
    throw error;
  }
}

/** What a model is on a device, but for the weights. */
async function partsOf(
  { graph, tensors }: BackendModel,
  types: ReadonlyMap<WeightNode, ComputeType>,
  layout: MatrixLayout,
  device: Device,
): Promise<RuntimeParts> {
  const quantized = new Set([...types].filter(([, dtype]) => isBlockType(dtype)).map(([weight]) => weight));
  const plan = planWithin(device.largestBuffer, (capacity) => planGraph(rootsOf(graph), capacity, { quantized }));
  const vectors = await readVectors(graph, tensors);
  const states = stateLayout(graph);
  const placed = (node: RowNode) => ({ offset: offsetIn(plan, node), width: node.width });
  const table = new VectorTable((vector) => vectorValues(vector, vectors));
  const operands: Operands = {
    value: (node) => offsetIn(plan, node),
    vector: (vector) => table.place(vector),
    matrix: (weight) => layout.matrices.get(weight) as GpuMatrix,
    state: ({ index }) => states.offsets[index] as number,
    abilities: device,
  };
  return {
    program: programOf(plan, operands),
    vectors: table.values(),
    arenaSize: plan.arenaSize,
    capacity: plan.capacity,
    initial: initialState(graph, (weight) => vectorValues(weight, vectors)),
    given: (graph.given ?? []).map(placed),
    ...(graph.handedOn ? { handedOn: graph.handedOn.map(placed) } : { logits: placed(graph.output) }),
  };
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
