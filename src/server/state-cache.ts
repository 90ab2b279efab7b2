// Keeps states of texts that were read, so that whatever begins with such a text is read from there on. An entry is there from the moment
// its reading begins: whoever wants the same text meanwhile waits for it.

import type { Snapshot } from "../generation/snapshot.js";
import type { TokenChain } from "./token-chain.js";

/** What is found of a text: a state of its first `length` tokens. */
export interface CachedPrefix {
  readonly length: number;
  readonly snapshot: Snapshot;
}

/**
 * A second place for what the cache in memory lets go, on a disk or in a store that several servers share. What it gives is trusted: it
 * compares tokens itself, and returns nothing for what is damaged or of another model.
 */
export interface SecondLevel {
  /**
   * The longest beginning of a text that it has, of those longer than `longerThan`. Where that is not all of the text, whoever asked reads
   * it, and stores or abandons it: others who ask for it may wait.
   *
   * @throws the signal's reason when it is aborted
   */
  find(chain: TokenChain, longerThan: number, signal: AbortSignal): Promise<CachedPrefix | undefined>;
  /** Takes a state of the first `length` tokens; it may leave it out. */
  store(chain: TokenChain, length: number, snapshot: Snapshot): void;
  /** Nobody reads a text any more that was asked for. */
  abandon?(chain: TokenChain): void;
  /** Resolves when all that was taken is stored. */
  close(): Promise<void>;
}

/** What a lookup finds, and what whoever looked must do. */
export interface Lookup {
  readonly prefix: CachedPrefix | undefined;
  /** Where the state of the whole text is not there: it is whoever looked who reads it, and finishes or abandons this. */
  readonly reading: Reading | undefined;
}

/** A text that is being read. */
export interface Reading {
  /** Its state is there. @param isStored whether the second level has it already */
  finish(snapshot: Snapshot, isStored?: boolean): void;
  /** It was not read to its end; those who wait for it look again. */
  abandon(): void;
}

interface Entry {
  /** The tokens of the text, or of one that it begins. */
  readonly chain: TokenChain;
  readonly length: number;
  snapshot: Snapshot | undefined;
  /** Resolves with the state, or with undefined when the reading was abandoned; present until then. */
  reading: Promise<Snapshot | undefined> | undefined;
}

/** A snapshot of how the cache is used. */
export interface StateCacheStatistics {
  readonly entries: number;
  readonly bytes: number;
  readonly lookups: number;
  /** Lookups that found something. */
  readonly hits: number;
  readonly evictions: number;
}

/** States of texts, by their tokens. The least recently used go when they take more than the budget. */
export class StateCache {
  readonly #budget: number;
  readonly #secondLevel: SecondLevel | undefined;
  /** By key, the least recently used first. */
  readonly #entries = new Map<number, Entry>();
  #bytes = 0;
  #lookups = 0;
  #hits = 0;
  #evictions = 0;

  /** @param budget the bytes that entries may take */
  constructor(budget: number, secondLevel?: SecondLevel) {
    this.#budget = budget;
    this.#secondLevel = secondLevel;
  }

  get statistics(): StateCacheStatistics {
    const { size: entries } = this.#entries;
    return { entries, bytes: this.#bytes, lookups: this.#lookups, hits: this.#hits, evictions: this.#evictions };
  }

  /**
   * The longest beginning of a text that is there, or that is being read, which is waited for. A state of the whole text counts only where
   * the logits that follow it are known; where it does not, the text is noted as one that is being read from now on.
   *
   * @throws the signal's reason when it is aborted while another reads
   */
  async lookUp(chain: TokenChain, signal: AbortSignal): Promise<Lookup> {
    this.#lookups++;
    let waited: CachedPrefix | undefined;
    for (;;) {
      const entry = this.#longest(chain);
      if (entry?.reading) {
        await settled(entry.reading, signal);
        // It may have been let go since, but not before whoever waited for it.
        const { length, snapshot } = entry;
        if (snapshot && length > (waited?.length ?? 0)) waited = { length, snapshot };
        if (waited?.length !== chain.length) continue;
      }
      const inMemory = entry?.snapshot && { length: entry.length, snapshot: entry.snapshot };
      if (entry) this.#touch(entry);
      const known = (inMemory?.length ?? 0) < (waited?.length ?? 0) ? waited : inMemory;
      if (known?.length === chain.length) return this.#found({ prefix: known, reading: undefined });
      const reading = this.begin(chain, chain.length);
      const stored = await this.#secondLevel?.find(chain, known?.length ?? 0, signal).catch((error) => {
        reading.abandon();
        throw error;
      });
      if (stored?.length === chain.length) {
        reading.finish(stored.snapshot, true);
        return this.#found({ prefix: stored, reading: undefined });
      }
      if (stored) this.begin(chain, stored.length).finish(stored.snapshot, true);
      return this.#found({ prefix: stored ?? known, reading });
    }
  }

  #found(lookup: Lookup): Lookup {
    if (lookup.prefix) this.#hits++;
    return lookup;
  }

  /** Whether there is a state of the first `length` tokens, or one is being read. */
  has(chain: TokenChain, length: number): boolean {
    return this.#entryOf(chain, length) !== undefined;
  }

  /** Notes that the first `length` tokens of a text are being read. */
  begin(chain: TokenChain, length: number): Reading {
    let resolve: (snapshot: Snapshot | undefined) => void = () => {};
    const reading = new Promise<Snapshot | undefined>((settle) => {
      resolve = settle;
    });
    const entry: Entry = { chain, length, snapshot: undefined, reading };
    this.#insert(entry);
    return {
      finish: (snapshot, isStored = false) => {
        entry.snapshot = snapshot;
        entry.reading = undefined;
        resolve(snapshot);
        if (!isStored) this.#secondLevel?.store(chain, length, snapshot);
        if (this.#entries.get(chain.key(length)) !== entry) return;
        this.#bytes += bytesOf(entry);
        if (bytesOf(entry) > this.#budget) this.#remove(entry);
        else {
          this.#touch(entry);
          this.#evict();
        }
      },
      abandon: () => {
        if (!entry.reading) return;
        entry.reading = undefined;
        resolve(undefined);
        if (length === chain.length) this.#secondLevel?.abandon?.(chain);
        if (this.#entries.get(chain.key(length)) === entry) this.#entries.delete(chain.key(length));
      },
    };
  }

  /** Puts a state of the first `length` tokens of a text there, unless there is one. */
  add(chain: TokenChain, length: number, snapshot: Snapshot): void {
    if (!this.has(chain, length)) this.begin(chain, length).finish(snapshot);
  }

  close(): Promise<void> {
    this.#entries.clear();
    this.#bytes = 0;
    return this.#secondLevel?.close() ?? Promise.resolve();
  }

  #longest(chain: TokenChain): Entry | undefined {
    for (let length = chain.length; length > 0; length--) {
      const entry = this.#entryOf(chain, length);
      if (!entry) continue;
      const isWhole = length === chain.length;
      if (!isWhole || entry.reading || entry.snapshot?.hasLogits) return entry;
    }
    return undefined;
  }

  #entryOf(chain: TokenChain, length: number): Entry | undefined {
    const entry = this.#entries.get(chain.key(length));
    const isSame = entry?.length === length && chain.beginsWith(entry.chain.tokens.subarray(0, length));
    return isSame ? entry : undefined;
  }

  #insert(entry: Entry): void {
    const key = entry.chain.key(entry.length);
    const before = this.#entries.get(key);
    if (before?.snapshot) this.#bytes -= bytesOf(before);
    this.#entries.delete(key);
    this.#entries.set(key, entry);
  }

  #touch(entry: Entry): void {
    const key = entry.chain.key(entry.length);
    if (this.#entries.get(key) !== entry) return;
    this.#entries.delete(key);
    this.#entries.set(key, entry);
  }

  #evict(): void {
    for (const entry of this.#entries.values()) {
      if (this.#bytes <= this.#budget) return;
      if (!entry.snapshot) continue;
      this.#remove(entry);
      this.#evictions++;
    }
  }

  #remove(entry: Entry): void {
    this.#entries.delete(entry.chain.key(entry.length));
    this.#bytes -= bytesOf(entry);
  }
}

/** What an entry takes: its state, and its tokens with their keys. */
function bytesOf({ snapshot, chain }: Entry): number {
  return (snapshot?.bytes ?? 0) + chain.length * 12;
}

/** @throws the signal's reason when it is aborted before the promise settles */
async function settled(promise: Promise<unknown>, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  let stop: (() => void) | undefined;
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason);
    signal.addEventListener("abort", stop);
  });
  try {
    await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", stop as () => void);
  }
}
