// The application that carries out lines of batches, in the process of a command.

import type { Model } from "../generation/model.js";
import type { HostApp } from "../server/app.js";

/** Options of commands that carry out lines. */
export interface BatchAppOptions {
  readonly model?: string;
  readonly state?: string;
  readonly atOnce: number;
  readonly stateCache: number;
  readonly maxLine: number;
}

/** An application, and what tells its answers from those of others. */
export interface BatchApp {
  readonly app: HostApp;
  readonly identity: string;
}

/** @param groups how many times as many lines as `atOnce` says may come at once; those beyond it wait */
export async function batchApp(model: Model, options: BatchAppOptions, groups = 1): Promise<BatchApp> {
  // The commands that need no server load nothing of one.
  const { createHostApp } = await import("../server/app.js");
  const { answeringIdentity } = await import("../server/storage/model-identity.js");
  const state = options.state === undefined ? undefined : await model.readState(options.state);
  const app = createHostApp(model, {
    ...(options.model === undefined && { name: "rwkv-tales" }),
    ...(state && { state }),
    stateCacheBytes: options.stateCache,
    limits: {
      concurrent: options.atOnce,
      waiting: options.atOnce * groups,
      bodyBytes: options.maxLine,
      requestSeconds: 2 ** 20,
      maxTokens: 2 ** 30,
      promptTokens: 2 ** 30,
      keptResponses: 0,
    },
  });
  return { app, identity: await answeringIdentity(model, state) };
}
