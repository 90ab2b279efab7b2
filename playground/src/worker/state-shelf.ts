// States of texts that were read, the longest unused going first: a conversation is continued, or forked anywhere, without reading it again.

import type { Snapshot } from "rwkv";

const mostBytes = 128 * 2 ** 20;
const mostStates = 512;

/** A beginning that was read before. */
export interface KnownBeginning {
  /** How many of the pieces it has. */
  readonly length: number;
  readonly snapshot: Snapshot;
}

export class StateShelf {
  readonly #states = new Map<string, Snapshot>();
  #bytes = 0;

  /** The longest beginning of the pieces whose state is kept. */
  find(pieces: readonly string[]): KnownBeginning | undefined {
    for (let length = pieces.length; length > 0; length--) {
      const key = keyOf(pieces.slice(0, length));
      const snapshot = this.#states.get(key);
      if (!snapshot) continue;
      this.#states.delete(key);
      this.#states.set(key, snapshot);
      return { length, snapshot };
    }
    return undefined;
  }

  add(pieces: readonly string[], snapshot: Snapshot): void {
    const key = keyOf(pieces);
    this.#remove(key);
    this.#states.set(key, snapshot);
    this.#bytes += snapshot.bytes;
    for (const oldest of this.#states.keys()) {
      if (this.#bytes <= mostBytes && this.#states.size <= mostStates) break;
      this.#remove(oldest);
    }
  }

  #remove(key: string): void {
    const snapshot = this.#states.get(key);
    if (!snapshot) return;
    this.#states.delete(key);
    this.#bytes -= snapshot.bytes;
  }
}

/** Pieces are encoded each alone, so where one ends matters. */
function keyOf(pieces: readonly string[]): string {
  return JSON.stringify(pieces);
}
