// Trains a new model on a text.

import { trainInMemory } from "rwkv/training/in-memory";
import type { Trained, TrainPiece, TrainRequest } from "../protocol.js";
import type { Context } from "./worker.js";

export async function train(
  { text, seconds, layers, width }: TrainRequest,
  { signal, send }: Context<TrainPiece>,
): Promise<Trained> {
  const { pth, tokenizerJson, parameters, steps, validationBitsPerByte } = await trainInMemory(text, {
    seconds,
    layers,
    width,
    signal,
    onStep: ({ step, loss, bitsPerByte, tokensPerSecond, progress, validationBitsPerByte: validation }) =>
      send({ step, loss, bitsPerByte, tokensPerSecond, progress, ...(validation !== undefined && { validation }) }),
  });
  return {
    pth: new Blob([pth]),
    tokenizer: new Blob([tokenizerJson], { type: "application/json" }),
    parameters,
    steps,
    bitsPerByte: validationBitsPerByte,
  };
}
