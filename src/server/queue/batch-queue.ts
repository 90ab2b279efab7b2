// A queue by which workers carry out the batches of servers.

import { Gauge, type Registry } from "prom-client";
import { OptionError } from "../../errors.js";
import type { AnswersFor } from "../answers-for.js";
import type { BatchDirectory } from "../batches/batch-directory.js";
import type { BatchLock, BatchWork } from "../batches/batch-work.js";
import { redisLock } from "./batch-lock.js";
import { Coordinator } from "./coordinator.js";
import { forAWhile } from "./library.js";
import { ShardQueue, shardStates } from "./shard-queue.js";

/** Options of `openBatchQueue`. */
export interface BatchQueueOptions {
  /** The name of the queue, which its workers have, too. Default "rwkv". */
  readonly name?: string;
  /** Lines that a worker takes at once. Default 100. */
  readonly shardLines?: number;
  /** Told when the Redis is out of reach, and when it is back. */
  readonly onWarning?: (message: string) => void;
}

/** Batches at once, so that a short one need not wait for a long one, and shards of each. */
const batchesAtOnce = 4;
const shardsOfBatch = { atOnce: 32, ahead: 64 };
/** Milliseconds after which a batch is another server's that its server says nothing of. */
const lockMilliseconds = 10_000;

/** A queue of batches of servers. */
export class BatchQueue {
  readonly #shards: ShardQueue;
  readonly #shardLines: number;

  /** @internal */
  constructor(shards: ShardQueue, shardLines: number) {
    this.#shards = shards;
    this.#shardLines = shardLines;
  }

  /** What carries out batches of a folder. @param maxBytes of a line @internal */
  work(directory: BatchDirectory, answersFor: Omit<AnswersFor, "owner">, maxBytes: number): BatchWork {
    const shards = this.#shards;
    return {
      batchesAtOnce,
      answers: ({ id, owner, model, over, left }) => {
        const coordinator = new Coordinator(shards, {
          shardLines: this.#shardLines,
          shards: shardsOfBatch,
          maxBytes,
          model,
          stop: left,
          over: { batch: id, signal: over },
          answersFor: { ...answersFor, owner },
        });
        return (lines, batch) => coordinator.answers(lines, batch);
      },
      async lock(id) {
        await directory.agreeOnQueue(shards.address);
        // A server without a queue knows this one only.
        const unlock = await directory.lock(id);
        if (!unlock) return undefined;
        let lock: BatchLock | undefined;
        try {
          const client = await forAWhile(shards.client());
          lock = client && (await redisLock(client, `rwkv-batch-lock:${id}`, lockMilliseconds));
        } finally {
          if (!lock) await unlock();
        }
        return (
          lock && {
            ...lock,
            async unlock() {
              await lock.unlock();
              await unlock();
            },
          }
        );
      },
      async noteOver(id) {
        await forAWhile(shards.noteOver(id));
      },
    };
  }

  /** Adds metrics of it. @internal */
  addMetrics(registry: Registry): void {
    const shards = this.#shards;
    new Gauge({
      name: "rwkv_batch_queue_up",
      help: "1 while the Redis of the queue of batches is connected.",
      registers: [registry],
      collect() {
        this.set(Number(shards.isUp));
      },
    });
    new Gauge({
      name: "rwkv_batch_queue_shards",
      help: "Shards of batches in the queue, those of other servers included, by what they are doing; none while it is out of reach.",
      labelNames: ["state"],
      registers: [registry],
      async collect() {
        this.reset();
        const counts = await shards.counts();
        if (counts) for (const state of shardStates) this.set({ state }, counts[state]);
      },
    });
  }

  /** Leaves the queue as it is. */
  close(): Promise<void> {
    return this.#shards.close();
  }
}

/**
 * Opens a queue, by which `rwkv worker` on any machine carries out the batches of servers; each has the name and workers of the same model.
 * While its Redis is out of reach batches wait.
 *
 * @param url the Redis, as redis://user:password@host:6379/0, or rediss:// for TLS; it must not evict
 * @throws RwkvError when bullmq or ioredis are not installed, or Redis refuses the password or the database; OptionError
 */
export async function openBatchQueue(url: string, options: BatchQueueOptions = {}): Promise<BatchQueue> {
  const { name = "rwkv", shardLines = 100, onWarning = () => {} } = options;
  if (!(Number.isSafeInteger(shardLines) && shardLines > 0 && shardLines <= 10_000))
    throw new OptionError("shardLines", shardLines, "a whole number from 1 to 10000");
  return new BatchQueue(await ShardQueue.openLater(url, name, onWarning), shardLines);
}
