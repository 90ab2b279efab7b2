// One HTTP request and its response, with errors that name the URL: errors of the network and of the server, and
// connections that go silent or are cut.

import { CheckpointError } from "../errors.js";

/** The time without any bytes after which a request is given up, in milliseconds. */
const defaultTimeout = 60_000;

/** An error that may not occur again when the request is repeated. */
export class TransientError extends CheckpointError {}

/** Options of a request. */
export interface ExchangeOptions {
  readonly method?: "GET" | "HEAD";
  readonly headers?: Readonly<Record<string, string>>;
  readonly cache?: RequestCache;
  readonly redirect?: RequestRedirect;
  /** What errors call the file; by default its URL. */
  readonly name?: string;
  /** Aborts the exchange. */
  readonly signal?: AbortSignal;
  /** The time without any bytes after which the request is given up, in milliseconds. */
  readonly timeout?: number | undefined;
}

/**
 * Makes a request and passes its response, whatever its status, to `use`, which may read the body piece by piece. The
 * rest of a body that is not read to its end is abandoned.
 *
 * @throws CheckpointError when the server cannot be reached or goes silent
 */
export async function exchange<T>(
  url: string,
  {
    method = "GET",
    headers = {},
    cache = "default",
    redirect = "follow",
    name = url,
    signal,
    timeout = defaultTimeout,
  }: ExchangeOptions,
  use: (response: Response, body: AsyncIterable<Uint8Array>) => Promise<T>,
): Promise<T> {
  const controller = new AbortController();
  const stop = () => controller.abort();
  signal?.addEventListener("abort", stop);
  if (signal?.aborted) stop();
  /** Waits for the network up to the timeout, and turns its errors into errors that name the URL. */
  const withTimeout = async <V>(promise: Promise<V>): Promise<V> => {
    let silent = false;
    const timer = setTimeout(() => {
      silent = true;
      stop();
    }, timeout);
    try {
      return await unlessAborted(promise, controller.signal);
    } catch (cause) {
      if (signal?.aborted) throw new CheckpointError(name, "reading was ended", { cause });
      const reason = silent ? `the server sent nothing for ${timeout / 1000} seconds` : reasonOf(cause);
      throw new TransientError(name, `cannot be fetched (${reason})`, { cause });
    } finally {
      clearTimeout(timer);
    }
  };
  try {
    const response = await withTimeout(fetch(url, { method, headers, cache, redirect, signal: controller.signal }));
    return await use(response, piecesOf(response, withTimeout));
  } finally {
    signal?.removeEventListener("abort", stop);
    stop();
  }
}

async function* piecesOf(
  response: Response,
  withTimeout: <V>(promise: Promise<V>) => Promise<V>,
): AsyncGenerator<Uint8Array, void, void> {
  const reader = response.body?.getReader();
  if (!reader) return;
  try {
    for (;;) {
      const { done, value } = await withTimeout(reader.read());
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/**
 * Waits for a promise until a signal is aborted. Node's fetch forgets the signal of a request that it has no more use for (it holds it
 * weakly), and a read of the body that is under way then never ends.
 */
function unlessAborted<V>(promise: Promise<V>, signal: AbortSignal): Promise<V> {
  return new Promise((resolve, reject) => {
    const fail = () => reject(signal.reason);
    if (signal.aborted) fail();
    signal.addEventListener("abort", fail, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", fail));
  });
}

/** @throws CheckpointError when the status is not one of success */
export function checkStatus(url: string, { ok, status }: Response): void {
  if (ok) return;
  if (status === 404 || status === 410) throw new CheckpointError(url, "no such file");
  if (status === 401 || status === 403) throw new CheckpointError(url, `access is denied (status ${status})`);
  const message = `cannot be fetched (status ${status})`;
  throw status >= 500 || status === 429 || status === 408
    ? new TransientError(url, message)
    : new CheckpointError(url, message);
}

/** Whether the body is compressed, so that lengths and ranges are not those of the file. */
export function isEncoded(response: Response): boolean {
  const encoding = response.headers.get("content-encoding");
  return encoding !== null && encoding !== "" && encoding !== "identity";
}

/** Repeats an attempt that fails with a TransientError, up to three attempts in all. */
export async function withRetries<T>(attempt: () => Promise<T>): Promise<T> {
  for (const pause of [300, 1500]) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof TransientError)) throw error;
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }
  return attempt();
}

/** The reason for a failed fetch. Node's message is only "fetch failed"; its cause says why. */
function reasonOf(error: unknown): string {
  const { message, cause } = error as Error;
  return cause instanceof Error && cause.message ? `${message}: ${cause.message}` : message;
}
