// Locks of batches among servers of several machines, in the Redis of their queue. One ends by itself when whoever has it is killed, and is
// renewed while it is alive; whoever cannot renew it in time has lost it.

import { randomBytes } from "node:crypto";
import { RwkvError } from "../../errors.js";
import type { BatchLock } from "../batches/batch-work.js";
import type { RedisClient } from "../storage/redis/library.js";
import { scripts } from "../storage/redis/scripts.js";
import { forAWhile } from "./library.js";

/**
 * Takes a lock.
 *
 * @param client of the Redis, which may be away: then nothing is known
 * @param milliseconds after which it ends that is not renewed
 * @returns undefined while somebody has it, and where Redis does not answer
 */
export async function redisLock(
  client: RedisClient,
  key: string,
  milliseconds: number,
): Promise<BatchLock | undefined> {
  const token = randomBytes(12).toString("hex");
  const release = () => client.eval(scripts.releaseClaim.lua, 1, key, token);
  const lost = new AbortController();
  let heldUntil = Date.now() + milliseconds;
  const taking = client.set(key, token, "PX", milliseconds, "NX");
  const taken = await forAWhile(taking);
  if (taken !== "OK") {
    // What comes too late is given back.
    if (taken === undefined) void taking.then((late) => late === "OK" && release()).catch(() => {});
    return undefined;
  }
  const lose = () => {
    stop();
    lost.abort(new RwkvError("another server may carry out the batch"));
  };
  let ending = setTimeout(lose, heldUntil - Date.now());
  const renewing = setInterval(() => {
    const asked = Date.now();
    client.eval(scripts.renewClaim.lua, 1, key, token, milliseconds).then(
      (isHeld) => {
        if (lost.signal.aborted) return;
        if (isHeld !== 1) return lose();
        heldUntil = asked + milliseconds;
        clearTimeout(ending);
        ending = setTimeout(lose, heldUntil - Date.now());
      },
      () => {}, // Redis is away: the time decides
    );
  }, milliseconds / 3);
  const stop = () => {
    clearInterval(renewing);
    clearTimeout(ending);
  };
  return {
    lost: lost.signal,
    check() {
      if (Date.now() >= heldUntil) lose();
      lost.signal.throwIfAborted();
    },
    async unlock() {
      stop();
      lost.abort(new RwkvError("the lock was given back"));
      await forAWhile(release());
    },
  };
}
