// The learning rate over a run: a linear warm-up, then down to the final rate by half a cosine (Loshchilov and Hutter, arXiv
// 1608.03983, equation 5, without restarts) or exponentially, as RWKV-LM does.

/** Longest warm-up where none is said. */
const longestWarmup = 200;

/** How long a run is, and how long its warm-up, by its recipe. */
export function lengthOf(
  { steps, epochs, warmup }: { steps: number | null; epochs: number | null; warmup: number | null },
  stepsPerEpoch: number,
): { readonly steps: number; readonly warmup: number } {
  const all = steps ?? Math.max(1, Math.round((epochs ?? 1) * stepsPerEpoch));
  return { steps: all, warmup: warmup ?? Math.min(longestWarmup, Math.floor(all / 50)) };
}

export interface Schedule {
  readonly steps: number;
  readonly warmup: number;
  readonly learningRate: number;
  readonly finalLearningRate: number;
  readonly decay: "cosine" | "exponential";
}

/** @param step from 0 */
export function learningRateAt(step: number, schedule: Schedule): number {
  const { steps, warmup, learningRate, finalLearningRate, decay } = schedule;
  if (step < warmup) return (learningRate * (step + 1)) / (warmup + 1);
  const progress = Math.min(1, (step - warmup) / Math.max(1, steps - warmup));
  if (decay === "exponential") return learningRate * (finalLearningRate / learningRate) ** progress;
  return finalLearningRate + (learningRate - finalLearningRate) * 0.5 * (1 + Math.cos(Math.PI * progress));
}
