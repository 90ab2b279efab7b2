// One HTTP request and its answer, with errors that name the URL: of the network, of the server, of a connection that goes
// silent or is cut.

import { CheckpointError } from "../errors.js";

/** How long a server may send nothing before it is given up, in milliseconds. */
export const defaultPatience = 60_000;

/** An error that may not come again when the request is repeated. */
export class TransientError extends CheckpointError {}

/** How a request is made. */
export interface ExchangeOptions {
  readonly method?: "GET" | "HEAD";
  readonly headers?: Readonly<Record<string, string>>;
  readonly cache?: RequestCache;
  /** Ends the exchange from outside. */
  readonly signal?: AbortSignal;
  /** Milliseconds without a byte after which the server is given up. */
  readonly patience?: number | undefined;
}

/**
 * Makes a request and hands its answer, whatever its status, to `use`, which may read the body piece by piece. A body that is
 * not read to its end is given up.
 *
 * @throws CheckpointError
 */
export async function exchange<T>(
  url: string,
  { method = "GET", headers = {}, cache = "default", signal, patience = defaultPatience }: ExchangeOptions,
  use: (response: Response, body: AsyncIterable<Uint8Array>) => Promise<T>,
): Promise<T> {
  const controller = new AbortController();
  const stop = () => controller.abort();
  signal?.addEventListener("abort", stop);
  if (signal?.aborted) stop();
  /** Waits for the network as long as there is patience, and names its errors. */
  const patiently = async <V>(promise: Promise<V>): Promise<V> => {
    let silent = false;
    const timer = setTimeout(() => {
      silent = true;
      stop();
    }, patience);
    try {
      return await promise;
    } catch (cause) {
      if (signal?.aborted) throw new CheckpointError(url, "reading was ended", { cause });
      const reason = silent ? `the server sent nothing for ${patience / 1000} seconds` : reasonOf(cause);
      throw new TransientError(url, `cannot be fetched (${reason})`, { cause });
    } finally {
      clearTimeout(timer);
    }
  };
  try {
    const response = await patiently(fetch(url, { method, headers, cache, signal: controller.signal }));
    return await use(response, piecesOf(response, patiently));
  } finally {
    signal?.removeEventListener("abort", stop);
    stop();
  }
}

async function* piecesOf(
  response: Response,
  patiently: <V>(promise: Promise<V>) => Promise<V>,
): AsyncGenerator<Uint8Array, void, void> {
  const reader = response.body?.getReader();
  if (!reader) return;
  for (;;) {
    const { done, value } = await patiently(reader.read());
    if (done) return;
    yield value;
  }
}

/** @throws CheckpointError when the status is not that of success */
export function checkStatus(url: string, { ok, status }: Response): void {
  if (ok) return;
  if (status === 404 || status === 410) throw new CheckpointError(url, "no such file");
  if (status === 401 || status === 403) throw new CheckpointError(url, `access is denied (status ${status})`);
  const message = `cannot be fetched (status ${status})`;
  throw status >= 500 || status === 429 || status === 408
    ? new TransientError(url, message)
    : new CheckpointError(url, message);
}

/** Whether the body is sent compressed, so that lengths and ranges are not those of the file. */
export function isEncoded(response: Response): boolean {
  const encoding = response.headers.get("content-encoding");
  return encoding !== null && encoding !== "" && encoding !== "identity";
}

/** Repeats what fails for reasons that may pass, up to three attempts in all. */
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

/** Node says "fetch failed", and the cause says why. */
function reasonOf(error: unknown): string {
  const { message, cause } = error as Error;
  return cause instanceof Error && cause.message ? `${message}: ${cause.message}` : message;
}
