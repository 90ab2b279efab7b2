// Requests to the hub. Its token goes to the hub alone: the storage that it sends clients to for large files signs its own URLs. Errors
// name the model, never such a URL, which is as good as a key.

import { CheckpointError } from "../errors.js";
import { exchange, TransientError } from "../http/exchange.js";

/** Where the hub is, and how it is asked. */
export interface HubSettings {
  /** URL of the hub, without a slash at its end. */
  readonly endpoint: string;
  /** The key of a user, for repositories that are not public. */
  readonly token?: string | undefined;
  /** Whether nothing may be asked of it. */
  readonly offline: boolean;
  /** Whether requests can be stopped at a redirect and its headers read, which pages do not allow. */
  readonly seesRedirects: boolean;
}

/** An error that says how long to wait, in milliseconds. */
export class BusyError extends TransientError {
  readonly wait: number;

  constructor(name: string, message: string, wait: number) {
    super(name, message);
    this.wait = wait;
  }
}

export interface HubRequest {
  readonly method?: "GET" | "HEAD";
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal | undefined;
  readonly timeout?: number | undefined;
  /** Stops at a redirect for which this holds, and gives it as the response. */
  readonly stopAt?: (response: Response) => boolean;
}

/** A response and where it came from, past all redirects. */
export type UseResponse<T> = (response: Response, body: AsyncIterable<Uint8Array>, url: string) => Promise<T>;

const mostRedirects = 8;
const isRedirect = ({ status }: Response) => [301, 302, 303, 307, 308].includes(status);

/**
 * Makes a request, and follows redirects.
 *
 * @param name the model's, for errors
 * @throws CheckpointError when the server cannot be reached; the signal's reason when it was aborted
 */
export async function hubExchange<T>(
  { endpoint, token, seesRedirects }: HubSettings,
  name: string,
  url: string,
  { stopAt, signal, headers, ...options }: HubRequest,
  use: UseResponse<T>,
): Promise<T> {
  const origin = new URL(endpoint).origin;
  let next = url;
  for (let redirects = 0; redirects <= mostRedirects; redirects++) {
    const at = next;
    const authorization = token !== undefined && new URL(at).origin === origin && { authorization: `Bearer ${token}` };
    const request = {
      ...options,
      name,
      headers: { ...headers, ...authorization },
      cache: "no-store",
      redirect: seesRedirects ? "manual" : "follow",
      ...(signal && { signal }),
    } as const;
    const result = await exchange(at, request, async (response, body) => {
      const location = response.headers.get("location");
      if (!isRedirect(response) || stopAt?.(response)) return { value: await use(response, body, response.url || at) };
      if (location === null || !URL.canParse(location, at)) {
        throw new CheckpointError(name, `the server redirects to nowhere (status ${response.status})`);
      }
      return { location: new URL(location, at).href };
    }).catch((error) => {
      signal?.throwIfAborted();
      throw error;
    });
    if (result.location === undefined) return result.value as T;
    next = result.location;
  }
  throw new CheckpointError(name, `the server redirects more than ${mostRedirects} times`);
}

/**
 * @param missing what there may be none of, for an error
 * @throws CheckpointError when the status is not one of success; TransientError when it may be another time
 */
export function checkHubStatus(settings: HubSettings, name: string, response: Response, missing = "file"): void {
  const { ok, status, headers } = response;
  if (ok) return;
  const code = headers.get("x-error-code");
  const key = settings.token === undefined ? "set HF_TOKEN, or run hf auth login" : "the token may not read it";
  if (code === "GatedRepo" || (status === 403 && code === null)) {
    const hub = settings.endpoint;
    throw new CheckpointError(
      name,
      `access is denied (status ${status}): if its authors give access on request, ask for it at ${hub}; ${key}`,
    );
  }
  if (code === "RevisionNotFound") throw new CheckpointError(name, "no such revision in this repository");
  if (code === "EntryNotFound") throw new CheckpointError(name, "no such file in this repository");
  if (status === 401 || code === "RepoNotFound") {
    throw new CheckpointError(name, `no such repository, or one that is not public (status ${status}); ${key}`);
  }
  if (status === 404 || status === 410) throw new CheckpointError(name, `no such ${missing} (status ${status})`);
  if (status === 429 || status === 503) {
    const wait = waitOf(headers.get("retry-after"));
    throw new BusyError(name, `the server is busy (status ${status})`, wait);
  }
  const message = `cannot be fetched (status ${status})`;
  throw status >= 500 || status === 408 ? new TransientError(name, message) : new CheckpointError(name, message);
}

/** Milliseconds of a Retry-After header, which has seconds or a date. */
function waitOf(text: string | null): number {
  if (text === null) return 0;
  const wait = /^\d+$/.test(text) ? Number(text) * 1000 : Date.parse(text) - Date.now();
  return Number.isFinite(wait) ? Math.max(0, wait) : 0;
}

/** Pauses before attempts that follow one that failed, in milliseconds. */
const pauses = [300, 1000, 3000, 8000];
/** A server that asks for more patience than this, in milliseconds, is left alone. */
const longestWait = 120_000;

/**
 * Repeats what fails with a TransientError.
 *
 * @param progressed whether anything has come since the attempt before; then patience begins anew
 */
export async function withPatience<T>(
  attempt: () => Promise<T>,
  signal?: AbortSignal,
  progressed: () => boolean = () => false,
): Promise<T> {
  for (let failures = 0; ; failures++) {
    try {
      return await attempt();
    } catch (error) {
      signal?.throwIfAborted();
      if (progressed()) failures = 0;
      const pause = pauses[failures];
      if (!(error instanceof TransientError) || pause === undefined) throw error;
      const wait = error instanceof BusyError ? Math.max(error.wait, pause) : pause;
      if (wait > longestWait) throw error;
      await sleep(wait, signal);
    }
  }
}

/** Waits. @throws the signal's reason as soon as it is aborted */
export function sleep(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    signal?.addEventListener("abort", stop, { once: true });
    if (signal?.aborted) stop();
  });
}
