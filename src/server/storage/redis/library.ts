// The client of Redis, which few servers need, so it is an optional peer dependency of the package and loaded when it is first asked for.

import { RwkvError } from "../../../errors.js";

export type RedisClient = import("ioredis").Redis;

/**
 * Loads the client.
 *
 * @throws RwkvError when it is not installed, with the command that installs it
 */
export async function redisLibrary(): Promise<Pick<typeof import("ioredis"), "Redis">> {
  try {
    return await import("ioredis");
  } catch (cause) {
    // A library that is there and fails to load is an error of its own.
    const { code, message } = cause as NodeJS.ErrnoException;
    if (!code?.endsWith("MODULE_NOT_FOUND") || !/\bioredis\b/.test(message)) throw cause;
    throw new RwkvError(
      "Redis needs the package ioredis, which is not installed with rwkv by default: npm install ioredis (with -g where rwkv was " +
        "installed with -g)",
      { cause },
    );
  }
}
