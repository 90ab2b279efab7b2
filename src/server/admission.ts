// Places for texts that are read or written at once, and the queue of requests that wait for them.

import { ApiError } from "./errors.js";

/** A request that waits. */
interface Waiter {
  readonly places: number;
  readonly admit: () => void;
}

/** Gives places to requests, in the order in which they came. */
export class Admission {
  readonly #places: number;
  readonly #maxWaiting: number;
  readonly #waiting = new Set<Waiter>();
  #taken = 0;
  /** The mean number of seconds for which a place was taken lately. */
  #meanSeconds = 1;

  constructor(limits: { readonly concurrent: number; readonly waiting: number }) {
    this.#places = limits.concurrent;
    this.#maxWaiting = limits.waiting;
  }

  get statistics(): { readonly running: number; readonly waiting: number } {
    return { running: this.#taken, waiting: this.#waiting.size };
  }

  /** Whether a further request would be refused. */
  get isFull(): boolean {
    return this.#taken >= this.#places && this.#waiting.size >= this.#maxWaiting;
  }

  /**
   * Takes places, once they are free.
   *
   * @param places how many
   * @returns for each a function that gives it back
   * @throws ApiError when too many wait, or for more places than there are; the signal's reason when it is aborted before
   */
  async enter(places: number, signal: AbortSignal): Promise<(() => void)[]> {
    signal.throwIfAborted();
    if (places > this.#places) {
      const message = `n: expected at most ${this.#places}, the number of texts this server writes at once, found ${places}`;
      throw new ApiError(400, message, { param: "n", code: "invalid_value" });
    }
    if (this.#waiting.size > 0 || this.#taken + places > this.#places) await this.#wait(places, signal);
    else this.#taken += places;
    return Array.from({ length: places }, () => this.#place());
  }

  #wait(places: number, signal: AbortSignal): Promise<void> {
    if (this.#waiting.size >= this.#maxWaiting) {
      const seconds = Math.ceil((this.#meanSeconds * (this.#waiting.size + 1)) / this.#places);
      const message = `the server is busy: ${this.#waiting.size} requests wait, which is its limit; try again later`;
      const retryAfter = Math.min(60, Math.max(1, seconds));
      throw new ApiError(429, message, { code: "rate_limit_exceeded", retryAfter });
    }
    return new Promise((resolve, reject) => {
      const leave = () => {
        this.#waiting.delete(waiter);
        reject(signal.reason);
        this.#admit();
      };
      const waiter: Waiter = {
        places,
        admit: () => {
          signal.removeEventListener("abort", leave);
          resolve();
        },
      };
      signal.addEventListener("abort", leave, { once: true });
      this.#waiting.add(waiter);
    });
  }

  #place(): () => void {
    const since = performance.now();
    let isTaken = true;
    return () => {
      if (!isTaken) return;
      isTaken = false;
      this.#taken--;
      this.#meanSeconds += ((performance.now() - since) / 1000 - this.#meanSeconds) / 16;
      this.#admit();
    };
  }

  #admit(): void {
    for (const waiter of this.#waiting) {
      if (this.#taken + waiter.places > this.#places) return;
      this.#waiting.delete(waiter);
      this.#taken += waiter.places;
      waiter.admit();
    }
  }
}
