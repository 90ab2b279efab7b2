// How a model is divided among several memories of WebAssembly where one, of 4 GiB at most, does not hold it: between layers, the first of
// them in the first memory.

import { weightDTypes } from "../../dtypes.js";
import { BackendError } from "../../errors.js";
import type { Graph } from "../../graph/graph.js";
import { splitGraph } from "../../graph/split.js";
import type { BackendModel } from "../backend.js";
import { lastingBytes, type MemoryOptions, matrixBytes, passBytes } from "../kernel/memory-need.js";
import { uncounted } from "./wasm-memory.js";

/**
 * How many layers each of the fewest memories has, so that none is fuller than it must be; of some layers of a model, which are not
 * divided, and of one that fits into one memory, this is one number.
 *
 * @param capacity bytes of each memory
 * @throws BackendError where a layer, with the embedding or the head if it has one, does not fit, with the types of weights that would
 */
export function divide(model: BackendModel, capacity: number, options: MemoryOptions): number[] {
  const found = divisionOf(model, capacity, options);
  if (found) return found;
  const inGiB = (bytes: number) => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
  const fitting = weightDTypes
    .filter((dtype) => divisionOf(model, capacity, { ...options, dtype }))
    .map((dtype) => `dtype "${dtype}" (${inGiB(matrixBytes(model, { dtype }))})`);
  const isPart = !isWhole(model.graph);
  const layers = layersOf(model).map((layer) => matrixBytes(layer, options));
  throw new BackendError(
    `the ${isPart ? "matrices of a part of the strategy" : "model's matrices"} take ${inGiB(matrixBytes(model, options))}` +
      (layers.length > 1
        ? `, those of one layer, embedding and head included, up to ${inGiB(Math.max(...layers))}`
        : "") +
      `, and WebAssembly has ${inGiB(capacity)} in one memory; ` +
      (fitting.length > 0
        ? `${fitting.join(", ")} would fit`
        : `no dtype would fit: ${isPart ? "give the part fewer layers" : "use the native backend"}`),
  );
}

function divisionOf(model: BackendModel, capacity: number, options: MemoryOptions): number[] | undefined {
  const all = [Math.max(1, model.graph.checkpoints?.length ?? 1)];
  const whole = lastingBytes(model, options);
  const counted = capacity - uncounted;
  // The values of a pass, which take a while to be counted, are far less than the half.
  if (whole <= counted / 2) return all;
  const room = counted - passBytes(model, options);
  if (whole <= room) return all;
  const sizes = layersOf(model).map((layer) => lastingBytes(layer, options));
  const fewest = filled(sizes, room)?.length;
  if (fewest === undefined) return undefined;
  let [least, most] = [0, room];
  while (most - least > 1) {
    const bound = (least + most) / 2;
    if ((filled(sizes, bound)?.length ?? Number.POSITIVE_INFINITY) > fewest) least = bound;
    else most = bound;
  }
  return filled(sizes, most);
}

/** How many layers memories of so many bytes have that are filled one after the other; undefined where a layer is larger. */
function filled(sizes: readonly number[], room: number): number[] | undefined {
  if (Math.max(...sizes) > room) return undefined;
  const counts: number[] = [];
  let free = 0;
  for (const size of sizes) {
    if (size > free) {
      counts.push(0);
      free = room;
    }
    counts[counts.length - 1] = (counts.at(-1) as number) + 1;
    free -= size;
  }
  return counts;
}

/** Each layer, the first with the embedding and the last with the head; some layers of a model as one. */
function layersOf({ graph, tensors }: BackendModel): BackendModel[] {
  if (!isWhole(graph) || graph.checkpoints.length < 2) return [{ graph, tensors }];
  const parts = splitGraph(
    graph,
    graph.checkpoints.slice(1).map(() => 1),
  );
  return parts.map((part) => ({ graph: part.graph, tensors }));
}

function isWhole(graph: BackendModel["graph"]): graph is Graph {
  return graph.checkpoints !== undefined;
}
