// Has the lines of a batch carried out by workers on any machine: shards go into a queue, and their answers come back in order. What waits
// in the queue is bounded, so that Redis holds a part of a batch, however long it is.

import { createHash } from "node:crypto";
import { setMaxListeners } from "node:events";
import type { Queue, QueueEvents } from "bullmq";
import { RwkvError } from "../errors.js";
import { writeBatchLine } from "../server/batches/batch-lines.js";
import { inOrder } from "../server/batches/in-order.js";
import type { AnsweredLine } from "../server/batches/line-runner.js";
import type { Line } from "../server/batches/lines.js";
import type { BegunBatch } from "../server/batches/output-file.js";
import { forAWhile, queueConnection, queueLibrary, queueName } from "./library.js";
import { type ShardData, type ShardResult, shardsOf } from "./shard.js";

/** How a batch is put into a queue. */
export interface CoordinatorOptions {
  /** The address of the Redis. */
  readonly url: string;
  readonly name: string;
  readonly shardLines: number;
  readonly maxBytes: number;
  readonly seed?: number | undefined;
  readonly maxTokens?: number | undefined;
  /** Aborted when nothing more is waited for. What is in the queue stays there, and is found by who asks for the same again. */
  readonly stop?: AbortSignal | undefined;
}

/** Shards that are in the queue at once, and those whose answers wait for others, at most. */
const shardsAtOnce = 64;
const shardsAhead = 128;
/** How often a shard is tried that fails, and milliseconds before it is tried again, which double. */
const attempts = 3;
const backoffMilliseconds = 250;
/** Milliseconds between two looks at a shard of which nothing is heard: Redis may have been started anew. */
const lookMilliseconds = 2000;
/** Seconds that the answers of a shard are kept of which nobody asks any more. */
const keptSeconds = 86_400;

/** Answers, and the jobs that have them. */
interface ShardAnswers {
  readonly lines: readonly AnsweredLine[];
  readonly jobs: readonly string[];
}

/** The queue of a batch. */
export class Coordinator {
  readonly #options: CoordinatorOptions;
  readonly #queue: Queue;
  readonly #events: QueueEvents;
  readonly #disconnect: () => void;
  /** What wakes those who wait for a shard, by its id. */
  readonly #waiting = new Map<string, () => void>();
  /** The model of the first answer, in this run or those before it. */
  #model: string | undefined;
  /** The last shard that was suspected of ending workers. */
  #lastSuspect: Promise<unknown> = Promise.resolve();

  private constructor(options: CoordinatorOptions, queue: Queue, events: QueueEvents, disconnect: () => void) {
    this.#options = options;
    this.#queue = queue;
    this.#events = events;
    this.#disconnect = disconnect;
    if (options.stop) setMaxListeners(0, options.stop); // each shard has some
    const wake = ({ jobId }: { jobId: string }) => this.#waiting.get(jobId)?.();
    events.on("completed", wake);
    events.on("failed", wake);
    // What is asked waits until Redis is back.
    queue.on("error", () => {});
    events.on("error", () => {});
  }

  /** Connects. @throws RwkvError when the packages are not there, or Redis cannot be reached */
  static async open(options: CoordinatorOptions): Promise<Coordinator> {
    const { Queue, QueueEvents } = await queueLibrary();
    const name = queueName(options.name);
    const connection = await queueConnection(options.url);
    const listening = connection.duplicate();
    listening.on("error", () => {});
    const queue = new Queue(name, { connection });
    const events = new QueueEvents(name, { connection: listening });
    await events.waitUntilReady();
    return new Coordinator(options, queue, events, () => {
      connection.disconnect();
      listening.disconnect();
    });
  }

  /**
   * The answers to lines, in their order, those of a shard at once; those until then where it is stopped.
   *
   * @param batch whose answers they are: what is in the queue of another is not taken for its own
   * @throws RwkvError where workers have different models, or another than the batch was begun with
   */
  async *answers(lines: AsyncIterable<Line>, batch: BegunBatch): AsyncGenerator<readonly AnsweredLine[], void, void> {
    const shards = shardsOf(lines, this.#options.shardLines);
    const limits = { atOnce: shardsAtOnce, ahead: shardsAhead };
    this.#model = batch.answeredBy;
    try {
      for await (const answers of inOrder(shards, (shard) => this.#answersOf(shard, batch.begun), limits)) {
        if (this.#model !== undefined && batch.answeredBy === undefined) await batch.noteAnsweredBy(this.#model);
        yield answers.lines;
        // They are written: until then the queue has them for whoever goes on.
        for (const jobId of answers.jobs) await this.#untilStopped(this.#queue.remove(jobId));
      }
    } catch (error) {
      if (!this.#options.stop?.aborted) throw error;
    }
  }

  async close(): Promise<void> {
    try {
      await forAWhile(Promise.all([this.#events.close(), this.#queue.close()]));
    } finally {
      this.#disconnect();
    }
  }

  /**
   * The answers to a shard. One that ends the processes that carry it out is halved until the line is found that does.
   *
   * @param isSuspect whether it may be one: those are in the queue one after the other, since a worker that is ended by one of them takes all
   *   that it has with it, and a line that fails alone has failed by itself
   */
  async #answersOf(lines: readonly Line[], batch: string, isSuspect = false): Promise<ShardAnswers> {
    const { maxBytes, seed, maxTokens } = this.#options;
    const data: ShardData = {
      lines: lines.map(({ number, text }) => ({ number, text: text ?? null })),
      maxBytes,
      ...(seed !== undefined && { seed }),
      ...(maxTokens !== undefined && { maxTokens }),
    };
    const jobId = createHash("sha256")
      .update(JSON.stringify([batch, data]))
      .digest("hex")
      .slice(0, 40);
    let result = await (isSuspect ? this.#alone(jobId, data) : this.#carriedOut(jobId, data));
    // A worker may have been ended by a shard that was not suspected yet.
    if (typeof result === "string" && lines.length === 1) result = await this.#alone(jobId, data);
    if (typeof result !== "string") {
      this.#model ??= result.model;
      if (result.model !== this.#model) {
        // Whoever goes on has it carried out again, by the workers that are there then.
        await this.#untilStopped(this.#queue.remove(jobId));
        throw new RwkvError(
          `workers of the queue ${this.#options.name} have different models, or another than the batch was begun with: give each its own ` +
            "--queue-name",
        );
      }
      const answers = lines.map((line, i) => ({ line, ...(result.answers[i] as ShardResult["answers"][number]) }));
      return { lines: answers, jobs: [jobId] };
    }
    if (lines.length > 1) {
      const half = Math.ceil(lines.length / 2);
      const first = await this.#answersOf(lines.slice(0, half), batch, true);
      const second = await this.#answersOf(lines.slice(half), batch, true);
      return { lines: [...first.lines, ...second.lines], jobs: [...first.jobs, ...second.jobs] };
    }
    const [line] = lines as [Line];
    const message = `line ${line.number}: workers failed on it: ${result}`;
    const problem = { kind: "problem", form: "openai", id: undefined, code: "line_failed", message } as const;
    const answer = { line, ...writeBatchLine(line.number, problem, undefined), promptTokens: 0, generatedTokens: 0 };
    return { lines: [answer], jobs: [] };
  }

  /** The same as `#carriedOut`, after all that were suspected before. */
  #alone(jobId: string, data: ShardData): Promise<ShardResult | string> {
    const result = this.#lastSuspect.then(() => this.#carriedOut(jobId, data));
    this.#lastSuspect = result.catch(() => {});
    return result;
  }

  /** @returns why it failed, where it did every time */
  async #carriedOut(jobId: string, data: ShardData): Promise<ShardResult | string> {
    for (;;) {
      this.#options.stop?.throwIfAborted();
      // Whoever listens before it looks misses nothing.
      const heard = this.#hear(jobId);
      const state = await this.#untilStopped(this.#stateOf(jobId, data));
      if (state === "completed" || state === "failed") {
        this.#waiting.get(jobId)?.();
        const ended = await this.#untilStopped(this.#queue.getJob(jobId));
        const result = ended?.returnvalue as ShardResult | null | undefined;
        if (state === "completed" && isRight(result, data)) return result as ShardResult;
        // What has failed is tried anew by whoever goes on; what is not of this program is asked for again.
        await this.#untilStopped(this.#queue.remove(jobId));
        if (state === "failed") return ended?.failedReason ?? "it failed";
        continue;
      }
      await heard;
    }
  }

  /** What a shard of the queue is doing, which is put into it where it is not there. */
  async #stateOf(jobId: string, data: ShardData): Promise<string> {
    const job =
      (await this.#queue.getJob(jobId)) ??
      (await this.#queue.add("shard", data, {
        jobId,
        attempts,
        backoff: { type: "exponential", delay: backoffMilliseconds },
        removeOnComplete: { age: keptSeconds },
        removeOnFail: { age: keptSeconds },
      }));
    return job.getState();
  }

  /** What is asked of Redis. @throws the signal's reason when it is stopped meanwhile, since Redis may be away */
  async #untilStopped<T>(asked: Promise<T>): Promise<T> {
    const { stop } = this.#options;
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

  /** Resolves when something is heard of a shard, or after a while. */
  #hear(jobId: string): Promise<void> {
    const { stop } = this.#options;
    return new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer);
        stop?.removeEventListener("abort", end);
        this.#waiting.delete(jobId);
        resolve();
      };
      const timer = setTimeout(end, lookMilliseconds);
      stop?.addEventListener("abort", end);
      this.#waiting.set(jobId, end);
    });
  }
}

function isRight(result: ShardResult | null | undefined, { lines }: ShardData): boolean {
  return typeof result?.model === "string" && Array.isArray(result.answers) && result.answers.length === lines.length;
}
