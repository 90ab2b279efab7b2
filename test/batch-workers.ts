// Batches by workers of this process, which answer with what they are asked, and by those that end with what they are asked.

import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Redis } from "ioredis";
import type { Model } from "rwkv";
import { openBatchQueue } from "rwkv/server";
import { onTestFinished } from "vitest";
import { startWorker, type WorkerOptions } from "#rwkv/server/queue/worker";
import { answeringIdentity } from "#rwkv/server/storage/model-identity";
import { type BatchAppOptions, openedBatches } from "./batch-clients.js";
import { temporaryFolder } from "./fixture-files.js";
import { runScript } from "./node-process.js";

export type QueuedOptions = BatchAppOptions & { readonly shardLines?: number };

/** An application whose batches go into a queue. */
export async function openedQueue(
  model: Model,
  url: string,
  folder: string,
  { shardLines = 5, ...options }: QueuedOptions = {},
) {
  const batchQueue = await openBatchQueue(url, { shardLines });
  return openedBatches(model, folder, { batchQueue, ...options });
}

/** A worker that answers with what it is asked. @param held says which lines it is asked in vain, until they are given up */
export async function startedWorker(
  model: Model,
  url: string,
  held: (i: number) => boolean = () => false,
  more: Partial<WorkerOptions> = {},
) {
  const asked: number[] = [];
  const fetch = async (request: Request) => {
    const { prompt } = (await request.json()) as { prompt: string };
    const i = Number(/\d+/.exec(prompt));
    asked.push(i);
    if (!held(i)) return Response.json({ choices: [{ text: `${i}!` }], usage: { completion_tokens: 1 } });
    return new Promise<Response>((_, reject) =>
      request.signal.addEventListener("abort", () => reject(request.signal.reason)),
    );
  };
  const own = { url, name: "rwkv", model: await answeringIdentity(model), atOnce: 64 };
  const worker = await startWorker({ ...own, fetch, fetchFor: () => fetch, ...more });
  onTestFinished(() => worker.close());
  return { worker, asked };
}

/**
 * A worker in a process of its own, which is started again whenever it has ended, as by a supervisor, until the test is over: a line whose
 * prompt is "poison" kills it.
 */
export async function supervisedWorker(own: Pick<WorkerOptions, "url" | "name" | "model">): Promise<void> {
  const stop = join(await temporaryFolder(), "stop");
  const script = `
    import { existsSync } from "node:fs";
    const { startWorker } = await import(new URL("server/queue/worker.js", dist));
    const fetch = async (request) => {
      const { prompt } = await request.json();
      if (prompt === "poison") process.kill(process.pid, "SIGKILL");
      return Response.json({ choices: [{ text: prompt + "!", finish_reason: "stop" }] });
    };
    const own = ${JSON.stringify(own)};
    const worker = await startWorker({ ...own, atOnce: 1, fetch, fetchFor: () => fetch, lockMilliseconds: 1000 });
    while (!existsSync(${JSON.stringify(stop)})) await new Promise((resolve) => setTimeout(resolve, 20));
    await worker.close();
  `;
  const supervisor = (async () => {
    while (!existsSync(stop)) await runScript(script);
  })();
  onTestFinished(async () => {
    await writeFile(stop, "");
    await supervisor;
  });
}

/** The ids of jobs that are in the queue, done or not. */
export async function jobsIn(url: string): Promise<string[]> {
  const client = new Redis(url);
  try {
    return (await client.keys("*")).filter((key) => /:[0-9a-f]{40}$/.test(key));
  } finally {
    client.disconnect();
  }
}
