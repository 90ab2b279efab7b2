// What an application is made with: names, keys, the cache, limits.

import type { ChatFormatName } from "../chat/formats.js";
import { OptionError } from "../errors.js";
import type { SamplingOptions } from "../sampling/sampling-options.js";
import { BatchDirectory } from "./batches/batch-directory.js";
import type { BatchEnding } from "./batches/batch-record.js";
import { BatchQueue } from "./queue/batch-queue.js";
import type { StateStorage } from "./storage/state-storage.js";

/** Limits of what requests may ask for and hold. */
export interface ServerLimits {
  /** Texts that are read or written at once; a request with `n` takes as many places. Default 32. */
  readonly concurrent: number;
  /** Requests that wait for a place; further ones are answered with 429. Default 256. */
  readonly waiting: number;
  /** Bytes of a request's body. Default 8 MiB. */
  readonly bodyBytes: number;
  /** Tokens of a prompt. Default 131,072. */
  readonly promptTokens: number;
  /** Tokens that a request may ask for, and the most of an answer in a chat. Default 16,384. */
  readonly maxTokens: number;
  /** Seconds of a request, waiting included; the answer then ends where it is. Default 600. */
  readonly requestSeconds: number;
  /** Seconds after which a reader that takes nothing of a stream is given up. Default 60. */
  readonly stalledSeconds: number;
  /** States that an API key may keep at /v1/states. Default 256. */
  readonly keptStates: number;
  /** Bytes of all of them. Default 1 GiB. */
  readonly keptStateBytes: number;
  /** Responses of an API key that can be continued; further ones push the oldest out. Default 256. */
  readonly keptResponses: number;
  /** Bytes of all of them. Default 1 GiB. */
  readonly keptResponseBytes: number;
  /** Seconds after which a response is gone. Default a day. */
  readonly responseSeconds: number;
  /** Bytes of a file of requests. Default 64 MiB. */
  readonly fileBytes: number;
  /** Files that an API key may keep at /v1/files, what its batches wrote included. Default 1000. */
  readonly keptFiles: number;
  /** Batches of an API key; further ones push the oldest out that have ended. Default 1000. */
  readonly keptBatches: number;
}

/** Options of `createApp`. */
export interface AppOptions {
  /** The model's name in the API. By default that of its file. */
  readonly name?: string;
  /** Further names under which clients may ask for it. */
  readonly aliases?: readonly string[];
  /** A state that every prompt begins with, as `session.save()` or `model.readState()` gives it. */
  readonly state?: Uint8Array;
  /** How conversations are written; by default as suits the model. */
  readonly format?: ChatFormatName;
  /** How tokens are sampled where a request does not say. */
  readonly sampling?: SamplingOptions;
  /** Keys, one of which a request must bring. By default none is needed. */
  readonly apiKeys?: readonly string[];
  /** Origins whose pages may call the API, or "*". By default none. */
  readonly corsOrigins?: readonly string[];
  /** Bytes that kept states may take, 0 to keep none. Default 1 GiB. */
  readonly stateCacheBytes?: number;
  /**
   * Where states outlive the application, as `openStateDirectory` or `openStateStore` gives it; closing the application closes it. By
   * default they do not.
   */
  readonly storage?: StateStorage;
  /** Where files and batches of clients are, as `openBatchDirectory` gives it. By default /v1/files and /v1/batches are not there. */
  readonly batches?: BatchDirectory;
  /**
   * The workers that carry batches out, as `openBatchQueue` gives it; closing the application closes it. By default the application does
   * itself.
   */
  readonly batchQueue?: BatchQueue;
  readonly limits?: Partial<ServerLimits>;
  /** Called when a request was answered, or its stream has ended. */
  readonly onRequest?: (record: RequestRecord) => void;
  /** Called when a batch of a client has ended, and when the server cannot carry one out. */
  readonly onBatch?: (record: BatchEnding) => void;
}

/** What is told of a request: numbers and names of the server's own, nothing that a client wrote. */
export interface RequestRecord {
  readonly requestId: string;
  readonly method: string;
  /** The route, as /v1/models/:id; "unknown" where there is none. */
  readonly route: string;
  readonly status: number;
  readonly milliseconds: number;
  readonly promptTokens?: number;
  readonly cachedTokens?: number;
  readonly generatedTokens?: number;
  /** What went wrong, where the server failed. */
  readonly error?: unknown;
}

/** All options with their values. */
export interface ResolvedAppOptions
  extends Required<
    Omit<
      AppOptions,
      "name" | "state" | "format" | "storage" | "batches" | "batchQueue" | "limits" | "onRequest" | "onBatch"
    >
  > {
  readonly name: string | undefined;
  readonly state: Uint8Array | undefined;
  readonly format: ChatFormatName | undefined;
  readonly storage: StateStorage | undefined;
  readonly batches: BatchDirectory | undefined;
  readonly batchQueue: BatchQueue | undefined;
  readonly limits: ServerLimits;
  readonly onRequest: ((record: RequestRecord) => void) | undefined;
  readonly onBatch: ((record: BatchEnding) => void) | undefined;
}

/** Timers take no more. */
const maxSeconds = 2 ** 20;

export const defaultLimits: ServerLimits = {
  concurrent: 32,
  waiting: 256,
  bodyBytes: 8 * 2 ** 20,
  promptTokens: 131_072,
  maxTokens: 16_384,
  requestSeconds: 600,
  stalledSeconds: 60,
  keptStates: 256,
  keptStateBytes: 2 ** 30,
  keptResponses: 256,
  keptResponseBytes: 2 ** 30,
  responseSeconds: 86_400,
  fileBytes: 64 * 2 ** 20,
  keptFiles: 1000,
  keptBatches: 1000,
};

/**
 * Fills in defaults, checks the options, and copies them.
 *
 * @throws OptionError
 */
export function resolveAppOptions(options: AppOptions): ResolvedAppOptions {
  if (typeof options !== "object" || options === null) throw new OptionError("options", options, "an object");
  const { limits = {}, stateCacheBytes = 2 ** 30 } = options;
  if (typeof limits !== "object" || limits === null) throw new OptionError("limits", limits, "an object");
  const given = Object.fromEntries(Object.entries(limits).filter(([, value]) => value !== undefined));
  const all: ServerLimits = { ...defaultLimits, ...given };
  for (const [name, value] of Object.entries(all)) {
    if (!Object.hasOwn(defaultLimits, name))
      throw new OptionError(`limits.${name}`, value, `one of ${Object.keys(defaultLimits).join(", ")}`);
    const isTime = name.endsWith("Seconds");
    const least = name === "waiting" || name.startsWith("kept") ? 0 : isTime ? 0.001 : 1;
    const most = isTime ? maxSeconds : name.endsWith("Bytes") ? Number.MAX_SAFE_INTEGER : 2 ** 31;
    const isWhole = isTime || Number.isSafeInteger(value);
    if (!(isWhole && value >= least && value <= most))
      throw new OptionError(`limits.${name}`, value, `a number from ${least} to ${most}`);
  }
  if (!(Number.isSafeInteger(stateCacheBytes) && stateCacheBytes >= 0)) {
    throw new OptionError("stateCacheBytes", stateCacheBytes, "a whole number of bytes");
  }
  const { storage } = options;
  if (storage !== undefined && typeof storage?.prefixes?.find !== "function") {
    throw new OptionError(
      "storage",
      storage,
      "what openStateDirectory or openStateStore gives, once its promise is fulfilled",
    );
  }
  const { batches } = options;
  if (batches !== undefined && !(batches instanceof BatchDirectory)) {
    throw new OptionError("batches", batches, "what openBatchDirectory gives, once its promise is fulfilled");
  }
  const { batchQueue } = options;
  if (batchQueue !== undefined && !(batchQueue instanceof BatchQueue && batches)) {
    const expected = "what openBatchQueue gives, once its promise is fulfilled, and the option batches beside it";
    throw new OptionError("batchQueue", batchQueue, expected);
  }
  return {
    name: options.name,
    aliases: strings("aliases", options.aliases),
    state: options.state?.slice(),
    format: options.format,
    storage,
    batches,
    batchQueue,
    sampling: { ...options.sampling },
    apiKeys: strings("apiKeys", options.apiKeys),
    corsOrigins: strings("corsOrigins", options.corsOrigins),
    stateCacheBytes,
    limits: all,
    onRequest: options.onRequest,
    onBatch: options.onBatch,
  };
}

function strings(option: string, values: readonly string[] = []): string[] {
  const areStrings = Array.isArray(values) && values.every((value) => typeof value === "string" && value !== "");
  if (!areStrings) throw new OptionError(option, values, "an array of strings that are not empty");
  return [...values];
}
