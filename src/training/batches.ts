// Decides which tokens a step is trained on, as a function of only the seed and the number of the step, so that a resumed run
// sees the same tokens as one that was never stopped.

import { TrainingError } from "../errors.js";
import type { RandomGenerator } from "../sampling/random.js";
import { randomGenerator } from "../sampling/random.js";
import { type LearnedTokens, type TokenArray, targetsAt } from "./dataset.js";

/** Tokens and what should follow each; -1 where nothing is to be learned. */
export interface Window {
  readonly tokens: TokenArray;
  readonly targets: TokenArray;
  /** Whether the window continues where the same row of the previous step ended. */
  readonly continues: boolean;
}

/** Gives the windows of each step. */
export interface Batches {
  readonly stepsPerEpoch: number;
  /** @param step from 0 */
  at(step: number): Window[];
}

/**
 * Windows of the whole text in random order: in every epoch it is cut at another offset, and each window is seen once. Those in which
 * nothing is to be learned are left out.
 *
 * @param data at least `length` + 1 tokens
 */
export function shuffledBatches(data: LearnedTokens, batch: number, length: number, seed: number): Batches {
  const { tokens, learned } = data;
  // One window less than would fit, so that every offset below a window's length is possible.
  const whole = Math.floor((tokens.length - 1) / length);
  const windows = Math.max(1, whole - 1);
  const teaches = (start: number) => !learned || learned.subarray(start + 1, start + 1 + length).includes(1);
  const teaching = (offset: number) => countUpTo(windows, (window) => teaches(offset + window * length));
  const stepsPerEpoch = Math.max(1, Math.floor((learned ? teaching(0) : windows) / batch));
  let current: { epoch: number; offset: number; order: Uint32Array } | undefined;
  const epochAt = (epoch: number) => {
    if (current?.epoch !== epoch) {
      const random = randomGenerator(seed * 1_000_003 + epoch);
      const spare = tokens.length - 1 - windows * length;
      const offset = Math.floor(random.uniform() * Math.min(length, spare + 1));
      const order = shuffled(windows, random);
      const kept = learned ? order.filter((window) => teaches(offset + window * length)) : order;
      // Where the only window that teaches anything is cut off, the step learns nothing.
      current = { epoch, offset, order: kept.length > 0 ? kept : order };
    }
    return current;
  };
  return {
    stepsPerEpoch,
    at(step) {
      const { offset, order } = epochAt(Math.floor(step / stepsPerEpoch));
      const first = (step % stepsPerEpoch) * batch;
      return Array.from({ length: batch }, (_, row) => {
        const window = order[(first + row) % order.length] as number;
        return windowAt(data, offset + window * length, length, false);
      });
    },
  };
}

/**
 * Windows for truncated back-propagation through time: each row of the batch reads its own part of the text from start to end.
 *
 * @throws TrainingError when there are too few tokens for every row to have a window
 */
export function consecutiveBatches(data: LearnedTokens, batch: number, length: number): Batches {
  const { tokens } = data;
  const part = Math.floor((tokens.length - 1) / batch);
  const stepsPerEpoch = Math.floor(part / length);
  if (stepsPerEpoch === 0) {
    throw new TrainingError(
      `expected at least ${batch * length + 1} tokens to train on, a sequence for each row of the batch, found ` +
        `${tokens.length}: ` +
        "give more text, or a smaller batch or context",
    );
  }
  return {
    stepsPerEpoch,
    at(step) {
      const index = step % stepsPerEpoch;
      return Array.from({ length: batch }, (_, row) => windowAt(data, row * part + index * length, length, index > 0));
    },
  };
}

function windowAt(data: LearnedTokens, start: number, length: number, continues: boolean): Window {
  return { tokens: data.tokens.subarray(start, start + length), targets: targetsAt(data, start, length), continues };
}

function countUpTo(count: number, holds: (i: number) => boolean): number {
  let found = 0;
  for (let i = 0; i < count; i++) if (holds(i)) found++;
  return found;
}

/** The numbers below `count` in random order (Fisher and Yates; Durstenfeld, CACM 7, 1964, algorithm 235). */
function shuffled(count: number, random: RandomGenerator): Uint32Array {
  const order = Uint32Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const other = Math.floor(random.uniform() * (i + 1));
    [order[i], order[other]] = [order[other] as number, order[i] as number];
  }
  return order;
}
