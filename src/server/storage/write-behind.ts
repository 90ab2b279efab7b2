// States that wait to be written where a write must never be waited for. Where there are too many, those that wait longest are left out.

import type { Snapshot } from "../../generation/snapshot.js";

/** How many wait, at most. */
const maxWaiting = 64;
const maxWaitingBytes = 2 ** 28;

/** Writes one state after the other, each when there is nothing else to do. */
export class WriteBehind<Item extends { readonly snapshot: Snapshot }> {
  readonly #write: (item: Item) => Promise<void>;
  readonly #onLeftOut: (item: Item) => void;
  readonly #waiting: Item[] = [];
  #bytes = 0;
  /** The one that is being written. */
  #current: Item | undefined;
  #writing: Promise<void> | undefined;

  /**
   * @param write what it fails with is not told: what is not written is read again
   * @param onLeftOut is given those that are not written
   */
  constructor(write: (item: Item) => Promise<void>, onLeftOut: (item: Item) => void = () => {}) {
    this.#write = write;
    this.#onLeftOut = onLeftOut;
  }

  /** Those that are not written yet. */
  get statistics(): { readonly waiting: number; readonly bytes: number } {
    const current = this.#current;
    return { waiting: this.#waiting.length + (current ? 1 : 0), bytes: this.#bytes + (current?.snapshot.bytes ?? 0) };
  }

  add(item: Item): void {
    this.#waiting.push(item);
    this.#bytes += item.snapshot.bytes;
    while (this.#waiting.length > maxWaiting || (this.#bytes > maxWaitingBytes && this.#waiting.length > 1)) {
      this.#onLeftOut(this.#next() as Item);
    }
    this.#writing ??= this.#writeAll().finally(() => {
      this.#writing = undefined;
    });
  }

  /** Resolves when all is written that was added. */
  async written(): Promise<void> {
    await this.#writing;
  }

  #next(): Item | undefined {
    const item = this.#waiting.shift();
    this.#bytes -= item?.snapshot.bytes ?? 0;
    return item;
  }

  async #writeAll(): Promise<void> {
    for (;;) {
      await new Promise(setImmediate); // tokens first
      this.#current = this.#next();
      if (!this.#current) return;
      await this.#write(this.#current).catch(() => {});
    }
  }
}
