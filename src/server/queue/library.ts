// BullMQ, the queue of work for many machines, which few need: an optional peer dependency of the package, loaded when it is first asked for.

import { RwkvError } from "../../errors.js";
import { type RedisClient, redisLibrary } from "../storage/redis/library.js";

/** Milliseconds in which Redis must answer at the start, so that a wrong address is told. */
const startMilliseconds = 5000;
/** Milliseconds that an end waits for Redis. */
const endMilliseconds = 2000;

/**
 * Loads the library.
 *
 * @throws RwkvError when it is not installed, with the command that installs it
 */
export async function queueLibrary(): Promise<typeof import("bullmq")> {
  try {
    return await import("bullmq");
  } catch (cause) {
    // A library that is there and fails to load is an error of its own.
    const { code, message } = cause as NodeJS.ErrnoException;
    if (!code?.endsWith("MODULE_NOT_FOUND") || !/\bbullmq\b/.test(message)) throw cause;
    throw new RwkvError(
      "queues need the packages bullmq and ioredis, which are not installed with rwkv by default: npm install bullmq ioredis (with -g " +
        "where rwkv was installed with -g)",
      { cause },
    );
  }
}

/** A Redis that cannot be reached, or says that it cannot be used. */
export class QueueConnectionError extends RwkvError {
  override name = "QueueConnectionError";
  /** Whether Redis has answered: with another password or database it would be another matter. */
  readonly isRefused: boolean;

  constructor(message: string, { cause, isRefused }: { readonly cause: unknown; readonly isRefused: boolean }) {
    super(message, { cause });
    this.isRefused = isRefused;
  }
}

/** The address of a Redis, as it may be shown. @throws RwkvError for what is no such address */
export function shownAddress(url: string): string {
  if (typeof url !== "string" || !/^rediss?:\/\/./.test(url) || !URL.canParse(url)) {
    // What was meant may have a password in it.
    throw new RwkvError("--queue: expected the address of a Redis, as redis://host:6379/0");
  }
  const { protocol, host } = new URL(url);
  return `${protocol}//${host}`;
}

/**
 * Connects to the Redis of a queue. What is asked of it later waits for as long as it is away.
 *
 * @throws RwkvError for a wrong address; QueueConnectionError when it cannot be reached now
 */
export async function queueConnection(url: string): Promise<RedisClient> {
  const { Redis } = await redisLibrary();
  const shown = shownAddress(url);
  let isConnected = false;
  const client = new Redis(url, {
    lazyConnect: true,
    maxRetriesPerRequest: null,
    retryStrategy: (attempt) => (isConnected ? Math.min(2000, attempt * 100) : null),
  });
  let wrong: Error | undefined;
  client.on("error", (error) => {
    wrong ??= error;
  });
  let timer: NodeJS.Timeout | undefined;
  try {
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error("no answer")), startMilliseconds);
    });
    await Promise.race([client.connect().then(() => client.ping()), late]);
    isConnected = true;
    return client;
  } catch (cause) {
    client.disconnect();
    const { message } = wrong ?? (cause as Error);
    const isRefused = /^(NOAUTH|WRONGPASS|NOPERM|ERR)\b/.test(message);
    throw new QueueConnectionError(`${shown}: cannot be reached (${message})`, { cause, isRefused });
  } finally {
    clearTimeout(timer);
  }
}

/** Resolves when something is over, or with undefined after a while: what is asked of a Redis that is away waits until it is back. */
export async function forAWhile<T>(promise: Promise<T>, milliseconds = endMilliseconds): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), milliseconds);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
    promise.catch(() => {});
  }
}

/** The name of a queue in Redis. */
export function queueName(name: string): string {
  if (typeof name !== "string" || !/^[\w.-]{1,100}$/.test(name)) {
    throw new RwkvError(
      `--queue-name: expected letters, digits, ".", "_" and "-", found ${JSON.stringify(String(name).slice(0, 100))}`,
    );
  }
  return `rwkv-batch-${name}`;
}

/** The key of Redis that is there when a batch is over, and its lines are of no use any more. */
export function overKey(name: string, batch: string): string {
  return `${queueName(name)}:over:${batch}`;
}
