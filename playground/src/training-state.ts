// The training in progress, or the last one: it goes on while other views are looked at.

import { signal } from "@preact/signals";
import { busyWith } from "./busy.js";
import { callWorker } from "./engines/worker-client.js";
import type { Trained, TrainPiece, TrainRequest } from "./protocol.js";

interface Training {
  readonly isRunning: boolean;
  /** How long it takes. */
  readonly seconds: number;
  readonly pieces: readonly TrainPiece[];
  readonly trained?: Trained | undefined;
  readonly error?: string | undefined;
}

export const training = signal<Training>({ isRunning: false, seconds: 0, pieces: [] });
export const trainingText = signal("");

let running: AbortController | undefined;

export async function beginTraining(request: TrainRequest): Promise<void> {
  const controller = new AbortController();
  running = controller;
  const all: TrainPiece[] = [];
  let frame = 0;
  training.value = { isRunning: true, seconds: request.seconds, pieces: [] };
  const onPiece = (piece: TrainPiece) => {
    all.push(piece);
    if (frame !== 0) return;
    frame = requestAnimationFrame(() => {
      frame = 0;
      training.value = { ...training.value, pieces: [...all] };
    });
  };
  try {
    const trained = await busyWith(callWorker("train", request, { signal: controller.signal, onPiece }));
    training.value = { ...training.value, isRunning: false, pieces: [...all], trained };
  } catch (reason) {
    training.value = { ...training.value, isRunning: false, error: (reason as Error).message };
  }
}

/** Ends it after the step in progress, with what was learned by then. */
export function endTraining(): void {
  running?.abort();
}
