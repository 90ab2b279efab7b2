// A worker: carries out shards of a queue, each once, or hands them back.

import { RwkvError } from "../../errors.js";
import type { AnswersFor } from "../answers-for.js";
import { type LineRunnerOptions, runLines } from "../batches/line-runner.js";
import { forAWhile, overKey, queueConnection, queueLibrary, queueName } from "./library.js";
import type { ShardData, ShardResult } from "./shard.js";

/** What a worker works with. */
export interface WorkerOptions extends Pick<LineRunnerOptions, "fetch" | "modelName"> {
  /** The address of the Redis. */
  readonly url: string;
  readonly name: string;
  /** What answers for servers. */
  readonly fetchFor: (server: AnswersFor) => LineRunnerOptions["fetch"];
  /** What tells the answers from those of others. */
  readonly model: string;
  /** Lines that are carried out at once. */
  readonly atOnce: number;
  /** Milliseconds after which a shard is another's that this worker says nothing of. Default 10,000. */
  readonly lockMilliseconds?: number;
  readonly onShard?: (lines: number) => void;
}

/** A worker that runs. */
export interface RunningWorker {
  /** Takes no more shards, hands back what it has, and resolves when that is done. */
  close(): Promise<void>;
}

/** Shards at once: the lines of the next one fill the places that the last lines of one leave free. */
const shardsAtOnce = 2;
/** Milliseconds between two looks at whether the batch of a shard is over. */
const lookMilliseconds = 1000;
/** How often a shard may lose its worker before it counts as failed. */
const maxStalled = 1;

/**
 * Looks whether a queue can be worked for, so that it is told before a model is loaded.
 *
 * @throws RwkvError when the packages are not there, or Redis cannot be reached
 */
export async function checkQueue(url: string): Promise<void> {
  await queueLibrary();
  (await queueConnection(url)).disconnect();
}

/** Starts a worker. @throws RwkvError when the packages are not there, or Redis cannot be reached */
export async function startWorker(options: WorkerOptions): Promise<RunningWorker> {
  const { url, name, model, fetchFor, atOnce, lockMilliseconds = 10_000, onShard } = options;
  const { Worker, WaitingError } = await queueLibrary();
  const queue = queueName(name);
  const connection = await queueConnection(url);
  const stopping = new AbortController();
  /** What is aborted when the batch of a shard is over. */
  const overSignal = (batch: string | undefined) => {
    const over = new AbortController();
    const look = async () => {
      if (batch === undefined) return;
      const count = await connection.exists(overKey(name, batch)).catch(() => 0);
      if (count > 0) over.abort(new RwkvError("the batch is over"));
    };
    const timer = setInterval(() => void look(), lookMilliseconds);
    return { signal: over.signal, first: look(), end: () => clearInterval(timer) };
  };
  const worker = new Worker<ShardData, ShardResult>(
    queue,
    async (job, token) => {
      const { lines, maxBytes, seed, maxTokens, answersFor, batch } = job.data;
      const { fetch, modelName } = answersFor ? { fetch: fetchFor(answersFor), modelName: undefined } : options;
      async function* source() {
        for (const { number, text } of lines) yield { number, end: 0, text: text ?? undefined };
      }
      const over = overSignal(batch);
      const signal = AbortSignal.any([stopping.signal, over.signal]);
      const answers: ShardResult["answers"][number][] = [];
      try {
        await over.first;
        const running = { fetch, modelName, maxBytes, seed, maxTokens, signal };
        for await (const { line: _, ...answer } of runLines(source(), running, { atOnce, ahead: lines.length })) {
          answers.push(answer);
        }
        onShard?.(lines.length);
      } catch (error) {
        if (!signal.aborted) throw error;
        if (!over.signal.aborted) {
          await forAWhile(job.moveToWait(token)); // or another finds that it is not heard of
          throw new WaitingError();
        }
      } finally {
        over.end();
      }
      return { model, answers };
    },
    {
      connection,
      concurrency: shardsAtOnce,
      lockDuration: lockMilliseconds,
      stalledInterval: lockMilliseconds / 2,
      maxStalledCount: maxStalled,
    },
  );
  worker.on("error", () => {}); // Redis is away: what it has goes on, and it asks again when it is back
  return {
    async close() {
      stopping.abort(new RwkvError("the worker is ending"));
      try {
        await forAWhile(worker.close());
      } finally {
        connection.disconnect();
      }
    },
  };
}
