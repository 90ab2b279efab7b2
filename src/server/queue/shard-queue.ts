// Shards in the queue of a Redis: put there, waited for, taken out. Redis may be away at any time, and come back empty: what is asked of it
// waits, and what is no more there is put there again.

import { setTimeout as after } from "node:timers/promises";
import type { Queue, QueueEvents } from "bullmq";
import { TryAgainError } from "../batches/batch-work.js";
import { isReply } from "../storage/redis/answers.js";
import type { RedisClient } from "../storage/redis/library.js";
import {
  forAWhile,
  overKey,
  QueueConnectionError,
  queueConnection,
  queueLibrary,
  queueName,
  shownAddress,
} from "./library.js";
import type { ShardData, ShardResult } from "./shard.js";

/** How often a shard is tried that fails, and milliseconds before it is tried again, which double. */
const attempts = 3;
const backoffMilliseconds = 250;
/** Milliseconds between two looks at a shard of which nothing is heard: Redis may have been started anew. */
const lookMilliseconds = 2000;
/** The same where a batch is over, and its worker is about to say what it has done. */
const lastLookMilliseconds = 200;
/** Seconds that the answers of a shard are kept of which nobody asks any more, and that it is known which batches are over. */
const keptSeconds = 86_400;
/** Milliseconds between two attempts to reach a Redis that has not been reached yet. */
const connectMilliseconds = 2000;
/** Milliseconds that metrics wait for it. */
const countMilliseconds = 1000;

/** What shards of a queue are doing; those that have failed are tried again, or in halves. */
export const shardStates = ["waiting", "delayed", "active", "completed", "failed"] as const;
export type ShardCounts = Readonly<Record<(typeof shardStates)[number], number>>;

/** What is there once Redis has been reached. */
interface Connected {
  readonly client: RedisClient;
  readonly queue: Queue;
  readonly events: QueueEvents;
  disconnect(): void;
}

/** A queue of shards. */
export class ShardQueue {
  readonly name: string;
  /** Where its Redis is, without a password. */
  readonly address: string;
  readonly #connecting: Promise<Connected>;
  #connected: Connected | undefined;
  #closed: Promise<void> | undefined;
  readonly #closing = new AbortController();
  /** What wakes those who wait for a shard, by its id. */
  readonly #waiting = new Map<string, () => void>();

  private constructor(url: string, name: string, connect: (left: AbortSignal) => Promise<Connected>) {
    this.name = name;
    this.address = `${shownAddress(url)}${new URL(url).pathname.replace(/^\/?$/, "/0")}`;
    this.#connecting = connect(this.#closing.signal).then((connected) => this.#listen(connected));
    this.#connecting.catch(() => {});
  }

  /** Connects. @throws RwkvError when the packages are not there, or Redis cannot be reached */
  static async open(url: string, name: string): Promise<ShardQueue> {
    queueName(name); // or it throws
    const queue = new ShardQueue(url, name, () => connect(url, name));
    await queue.#connecting;
    return queue;
  }

  /**
   * The same where Redis need not be there yet: what is asked of it waits.
   *
   * @param onWarning told when it is out of reach, and when it is back
   * @throws RwkvError when the packages are not there, for a wrong address, and where Redis refuses the password or the database
   */
  static async openLater(url: string, name: string, onWarning: (message: string) => void): Promise<ShardQueue> {
    const shown = shownAddress(url);
    queueName(name); // or it throws
    const first = connect(url, name);
    const error: unknown = await first.then(
      () => undefined,
      (reason) => reason,
    );
    if (error && !(error instanceof QueueConnectionError && !error.isRefused)) throw error;
    const away = "is out of reach; batches wait until it answers";
    if (error) onWarning(`${shown} ${away}`);
    return new ShardQueue(url, name, async (left) => {
      const connected = error ? await connectAtLast(url, name, left, onWarning) : await first;
      if (error) onWarning(`${shown} is back`);
      let isAway = false;
      connected.client.on("close", () => {
        if (isAway || left.aborted) return;
        isAway = true;
        onWarning(`${shown} ${away}`);
      });
      connected.client.on("ready", () => {
        if (isAway) onWarning(`${shown} is back`);
        isAway = false;
      });
      return connected;
    });
  }

  /** Whether Redis can be asked at present. */
  get isUp(): boolean {
    return this.#connected?.client.status === "ready";
  }

  /** How many shards are doing what, those of others included; undefined where Redis does not answer at once. */
  async counts(): Promise<ShardCounts | undefined> {
    if (!this.#connected || !this.isUp) return undefined;
    const asked = this.#connected.queue.getJobCounts(...shardStates).catch(() => undefined);
    return (await forAWhile(asked, countMilliseconds)) as ShardCounts | undefined;
  }

  /** The client of the Redis, once it has been reached. */
  async client(): Promise<RedisClient> {
    return (await this.#connecting).client;
  }

  /**
   * Has a shard carried out; one that is in the queue already is waited for.
   *
   * @param stop aborted when it is not waited for any more; it stays where it is
   * @returns its result, or why it failed, where it did every time
   * @throws the signal's reason; TryAgainError where Redis takes nothing at present, as one that is full
   */
  async carriedOut(jobId: string, data: ShardData, stop?: AbortSignal): Promise<ShardResult | string> {
    for (;;) {
      stop?.throwIfAborted();
      // Whoever listens before it looks misses nothing.
      const heard = this.#hear(jobId, lookMilliseconds, stop);
      const state = await this.#ask((queue) => stateOf(queue, jobId, data), stop);
      if (state === "completed" || state === "failed") {
        this.#waiting.get(jobId)?.();
        const ended = await this.#ask((queue) => queue.getJob(jobId), stop);
        const result: unknown = ended?.returnvalue;
        if (state === "completed" && isResult(result) && result.answers.length === data.lines.length) return result;
        // What has failed is tried anew by whoever goes on; what is not of this program is asked for again.
        await this.remove(jobId, stop);
        if (state === "failed") return ended?.failedReason ?? "it failed";
        await untilAborted(after(backoffMilliseconds), stop);
        continue;
      }
      await heard;
    }
  }

  /**
   * Takes a shard of a batch that is over out of the queue.
   *
   * @param patience aborted when a worker that has it is waited for no longer
   * @returns what was done of it
   */
  async takeOut(jobId: string, patience: AbortSignal): Promise<ShardResult | undefined> {
    try {
      for (;;) {
        const heard = this.#hear(jobId, lastLookMilliseconds, patience);
        const job = await this.#ask((queue) => queue.getJob(jobId), patience);
        const state = await this.#ask(async () => job?.getState(), patience);
        if (state !== "active") {
          this.#waiting.get(jobId)?.();
          // One that a worker has taken meanwhile stays.
          const isOut = job === undefined || (await this.#ask((queue) => queue.remove(jobId), patience)) === 1;
          const result: unknown = job?.returnvalue;
          if (isOut) return isResult(result) ? result : undefined;
        }
        await heard;
      }
    } catch {
      return undefined;
    }
  }

  /** Removes a shard whose answers are kept elsewhere. */
  async remove(jobId: string, stop?: AbortSignal): Promise<void> {
    await this.#ask((queue) => queue.remove(jobId), stop);
  }

  /** Says to workers that a batch is over. @param patience aborted when Redis is waited for no longer */
  async noteOver(batch: string, patience?: AbortSignal): Promise<void> {
    await this.#ask((_, client) => client.set(overKey(this.name, batch), "", "EX", keptSeconds), patience);
  }

  /** Leaves the queue as it is. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    this.#closing.abort(new Error("the queue is closed"));
    const connected = this.#connected;
    if (!connected) return;
    try {
      await forAWhile(Promise.all([connected.events.close(), connected.queue.close()]));
    } finally {
      connected.disconnect();
    }
  }

  #listen(connected: Connected): Connected {
    this.#connected = connected;
    if (this.#closing.signal.aborted) connected.disconnect();
    const wake = ({ jobId }: { jobId: string }) => this.#waiting.get(jobId)?.();
    connected.events.on("completed", wake);
    connected.events.on("failed", wake);
    return connected;
  }

  /** What is asked of Redis. @throws the signal's reason when it is aborted meanwhile, since Redis may be away; TryAgainError */
  async #ask<T>(question: (queue: Queue, client: RedisClient) => Promise<T>, stop?: AbortSignal): Promise<T> {
    const answer = this.#connecting.then(({ queue, client }) => question(queue, client));
    try {
      return await untilAborted(answer, stop);
    } catch (error) {
      if (isReply(error)) throw new TryAgainError(`the queue ${this.name}: ${error.message}`, { cause: error });
      throw error;
    }
  }

  /** Resolves when something is heard of a shard, or after a while. */
  #hear(jobId: string, milliseconds: number, stop: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer);
        stop?.removeEventListener("abort", end);
        if (this.#waiting.get(jobId) === end) this.#waiting.delete(jobId);
        resolve();
      };
      const timer = setTimeout(end, milliseconds);
      stop?.addEventListener("abort", end);
      this.#waiting.set(jobId, end);
    });
  }
}

async function connect(url: string, name: string): Promise<Connected> {
  const { Queue, QueueEvents } = await queueLibrary();
  const client = await queueConnection(url);
  const listening = client.duplicate();
  listening.on("error", () => {});
  const queue = new Queue(queueName(name), { connection: client });
  const events = new QueueEvents(queueName(name), { connection: listening });
  // What is asked waits until Redis is back.
  queue.on("error", () => {});
  events.on("error", () => {});
  await events.waitUntilReady();
  return {
    client,
    queue,
    events,
    disconnect() {
      client.disconnect();
      listening.disconnect();
    },
  };
}

/**
 * Connects once that can be.
 *
 * @param onWarning told once where Redis is there and refuses, as for a wrong password
 * @throws the signal's reason
 */
async function connectAtLast(
  url: string,
  name: string,
  left: AbortSignal,
  onWarning: (message: string) => void,
): Promise<Connected> {
  for (let isTold = false; ; ) {
    await after(connectMilliseconds, undefined, { signal: left, ref: false });
    try {
      return await connect(url, name);
    } catch (error) {
      if (isTold || !(error instanceof QueueConnectionError && error.isRefused)) continue;
      isTold = true;
      onWarning(error.message);
    }
  }
}

/** What a shard of the queue is doing, which is put into it where it is not there. */
async function stateOf(queue: Queue, jobId: string, data: ShardData): Promise<string> {
  const job =
    (await queue.getJob(jobId)) ??
    (await queue.add("shard", data, {
      jobId,
      attempts,
      backoff: { type: "exponential", delay: backoffMilliseconds },
      removeOnComplete: { age: keptSeconds },
      removeOnFail: { age: keptSeconds },
    }));
  return job.getState();
}

async function untilAborted<T>(asked: Promise<T>, stop: AbortSignal | undefined): Promise<T> {
  if (!stop) return asked;
  asked.catch(() => {});
  stop.throwIfAborted();
  let end = () => {};
  const stopped = new Promise<never>((_, reject) => {
    end = () => reject(stop.reason);
    stop.addEventListener("abort", end);
  });
  try {
    return await Promise.race([asked, stopped]);
  } finally {
    stop.removeEventListener("abort", end);
  }
}

function isResult(value: unknown): value is ShardResult {
  const { model, answers } = (value ?? {}) as Partial<ShardResult>;
  return typeof model === "string" && Array.isArray(answers);
}
