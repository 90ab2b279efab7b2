// Calls of the worker, from the page.

import type { CallName, Calls, ToPage, ToWorker } from "../protocol.js";

export interface CallOptions<Piece> {
  readonly signal?: AbortSignal | undefined;
  readonly onPiece?: (piece: Piece) => void;
}

interface Pending {
  resolve(output: never): void;
  reject(error: Error): void;
  onPiece?: ((piece: never) => void) | undefined;
}

class WorkerClient {
  readonly #worker: Worker;
  readonly #pending = new Map<number, Pending>();
  #last = 0;

  constructor() {
    this.#worker = new Worker(new URL("../worker/worker.ts", import.meta.url), { type: "module" });
    this.#worker.onmessage = ({ data }: MessageEvent<ToPage>) => this.#receive(data);
    this.#worker.onerror = ({ message }) => this.#fail(message || "the worker's script cannot be loaded");
  }

  /** @throws Error with the message of what went wrong; the signal's reason once it is aborted before the call is answered */
  call<Name extends CallName>(
    name: Name,
    input: Calls[Name]["input"],
    { signal, onPiece }: CallOptions<Calls[Name]["piece"]> = {},
  ): Promise<Calls[Name]["output"]> {
    const id = ++this.#last;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject, onPiece } as Pending);
      signal?.addEventListener("abort", () => this.#post({ id, abort: true }), { once: true });
      this.#post({ id, call: name, input } as ToWorker);
      if (signal?.aborted) this.#post({ id, abort: true });
    });
  }

  #post(message: ToWorker): void {
    this.#worker.postMessage(message);
  }

  #receive(message: ToPage): void {
    const pending = this.#pending.get(message.id);
    if (!pending) return;
    if ("piece" in message) return pending.onPiece?.(message.piece as never);
    this.#pending.delete(message.id);
    if ("output" in message) return pending.resolve(message.output as never);
    const error = new Error(message.error.message);
    error.name = message.error.name;
    pending.reject(error);
  }

  #fail(reason: string): void {
    for (const { reject } of this.#pending.values()) reject(new Error(reason));
    this.#pending.clear();
    this.#worker.terminate();
    if (client === this) client = undefined; // the next call starts another one
  }
}

let client: WorkerClient | undefined;

/** Starts the worker ahead of the first call, so that its script is there by then. */
export function startWorker(): WorkerClient {
  client ??= new WorkerClient();
  return client;
}

/** The one worker of the page. */
export const callWorker: WorkerClient["call"] = (name, input, options) => startWorker().call(name, input, options);
