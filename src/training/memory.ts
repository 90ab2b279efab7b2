// How much memory a run will take, found out before anything is allocated.

import type { TrainableModel } from "../backends/training.js";
import { elementCount } from "../dtypes.js";
import { TrainingError } from "../errors.js";
import { planGraph } from "../graph/plan.js";
import { availableMemory } from "../platform/node/limits.js";

/** Share of the machine's memory that a run may take. */
const usable = 0.9;

/** Bytes of weights, moments, gradients and intermediate values. @param maxTokens of a step */
function memoryOf(model: TrainableModel, maxTokens: number): number {
  const gradients = [...model.learned.values()].map(({ gradient }) => gradient);
  const { arenaSize } = planGraph([model.training.loss, ...gradients], maxTokens, { schedule: "inOrder" });
  return arenaSize + weightsAndMoments(model);
}

function weightsAndMoments({ graph, learned }: TrainableModel): number {
  const size = (weights: Iterable<{ shape: readonly number[] }>) =>
    [...weights].reduce((sum, { shape }) => sum + 4 * elementCount(shape), 0);
  return size(graph.weights) + 2 * size(learned.keys());
}

/** @throws TrainingError when the machine has less memory than a run needs */
export function checkMemory(model: TrainableModel, maxTokens: number, available: number = availableMemory()): void {
  // Planning a model that could never fit would itself take long.
  const least = weightsAndMoments(model);
  const needed = least > available ? least : memoryOf(model, maxTokens);
  if (needed <= usable * available) return;
  const gib = (bytes: number) => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
  throw new TrainingError(
    `training takes ${needed === least ? "more than " : ""}${gib(needed)} of memory, and this machine has ${gib(available)}: ` +
      "lower the batch or the context, recompute values (checkpointing), or make the model smaller",
  );
}
