// A Redis in which the states of several servers are: what one of them has read, or its clients made, all have.

import { OptionError, RwkvError } from "../../../errors.js";
import type { Model } from "../../../generation/model.js";
import { answeringIdentity } from "../model-identity.js";
import type { StateStorage } from "../state-storage.js";
import { isReply } from "./answers.js";
import { redisLibrary } from "./library.js";
import { RedisLink } from "./link.js";
import { PrefixStore } from "./prefix-store.js";
import { scripts } from "./scripts.js";
import { SharedShelf } from "./shared-shelf.js";
import { StateCodec, type StoredType } from "./state-codec.js";
import { StoreMetrics } from "./store-metrics.js";

/** Options of `openStateStore`. */
export interface StateStoreOptions {
  /** The bytes that states of prompts may take, of all servers together; the least recently used go. Default 1 GiB. */
  readonly bytes?: number;
  /** Seconds after which a state of a prompt is gone that nobody used. Default a day. */
  readonly seconds?: number;
  /**
   * How values are kept: as they are, or rounded to float16, with which answers are no longer the same to the bit. Servers that share states
   * have the same. Default "f32".
   */
  readonly type?: StoredType;
  /** Milliseconds that Redis may take for something that is asked, and one more for every 20 KB. Default 250. */
  readonly milliseconds?: number;
  /** Told when the store is out of reach, and when it is back. */
  readonly onWarning?: (message: string) => void;
}

/** Version of the keys and values; others are left alone. */
const layoutVersion = 1;
/** Timers of Redis, in milliseconds, are sums of this and the present. */
const maxSeconds = 2 ** 31;
/** Longer than this no request is to wait for Redis. */
const maxMilliseconds = 60_000;
/**
 * Opens a Redis for the states of servers. Servers share states where they compute the same to the bit: the same weights, adapters, type,
 * backend and kernels, and the same tokenizer. A Redis that cannot be reached, now or later, is done without until it can.
 *
 * @param model whose states it is for
 * @param url as redis://user:password@host:6379/0, or rediss:// for TLS
 * @throws RwkvError when the client is not installed, or Redis refuses the password or the database; OptionError
 */
export async function openStateStore(
  model: Model,
  url: string,
  options: StateStoreOptions = {},
): Promise<StateStorage> {
  const { bytes = 2 ** 30, seconds = 86_400, type = "f32", milliseconds = 250, onWarning = () => {} } = options;
  const { address, shown } = checkedUrl(url);
  if (!(Number.isSafeInteger(bytes) && bytes > 0)) throw new OptionError("bytes", bytes, "a whole number above 0");
  if (!(Number.isSafeInteger(seconds) && seconds > 0 && seconds <= maxSeconds)) {
    throw new OptionError("seconds", seconds, `a whole number from 1 to ${maxSeconds}`);
  }
  if (!(milliseconds > 0 && milliseconds <= maxMilliseconds)) {
    throw new OptionError("milliseconds", milliseconds, `a number above 0, up to ${maxMilliseconds}`);
  }
  if (type !== "f32" && type !== "f16") throw new OptionError("type", type, "f32 or f16");
  const { Redis } = await redisLibrary();
  const metrics = new StoreMetrics();
  let wasDown = false;
  const link = new RedisLink(
    () =>
      new Redis(address, {
        lazyConnect: true,
        enableOfflineQueue: false,
        enableReadyCheck: false,
        maxRetriesPerRequest: 0,
        retryStrategy: () => null,
        connectTimeout: 2000,
        scripts,
      }),
    milliseconds,
    {
      onUp: () => {
        if (wasDown) onWarning(`${shown} is back`);
        wasDown = false;
      },
      onDown: (why) => {
        wasDown = true;
        metrics.breaks.inc();
        onWarning(`${shown} is out of reach (${why.message}); the server goes on without it until it answers`);
      },
    },
  );
  const namespace = `rwkv${layoutVersion}:${(await answeringIdentity(model)).slice(0, 32)}:${type}:`;
  try {
    await link.open();
  } catch (cause) {
    const { message } = cause as Error;
    if (isReply(cause) && /^(NOAUTH|WRONGPASS|NOPERM|ERR)\b/.test(message)) {
      link.close();
      throw new RwkvError(`${shown}: ${message}`, { cause });
    }
    wasDown = true;
    onWarning(`${shown} cannot be reached (${message}); the server goes on without it until it can`);
  }
  const codec = new StateCodec(model, type);
  const prefixes = new PrefixStore({ model, link, metrics, codec, namespace, maxBytes: bytes, seconds });
  const { stateBytes } = model.info;
  return {
    prefixes,
    get bytes() {
      return prefixes.bytes;
    },
    shelf: (kind, limits) => new SharedShelf(kind, limits, { link, metrics, codec, namespace, stateBytes }),
    addMetrics: (registry) =>
      metrics.addTo(registry, () => {
        const { waiting, bytes: waitingBytes } = prefixes.waiting;
        return { isUp: link.isUp, waiting, waitingBytes };
      }),
    async close() {
      await prefixes.close();
      link.close();
    },
  };
}

/** @returns the address, and how it may be shown: without the password */
function checkedUrl(url: string): { address: string; shown: string } {
  const parsed = typeof url === "string" && URL.canParse(url) ? new URL(url) : undefined;
  const isRight =
    parsed && /^rediss?:$/.test(parsed.protocol) && parsed.hostname !== "" && /^(\/\d*)?$/.test(parsed.pathname);
  if (!isRight) {
    // What was meant may have a password in it.
    throw new OptionError(
      "url",
      undefined,
      "the address of a Redis, as redis://host:6379/0 or rediss://user:password@host",
    );
  }
  return { address: url, shown: `${parsed.protocol}//${parsed.host}${parsed.pathname}` };
}
