// States of prompts on a disk, as the second level of the cache. Files are written behind everything else, and the least recently used
// are removed when they take more than they may. A file is found by its name, which has the key of its tokens, and used only if it
// holds them: whatever is damaged, or is not what its name says, is removed.

import { readdir, rm, stat, utimes } from "node:fs/promises";
import { join } from "node:path";
import type { Model } from "../../generation/model.js";
import type { Snapshot } from "../../generation/snapshot.js";
import { removeAbandonedParts } from "../../platform/node/part-files.js";
import type { CachedPrefix, SecondLevel } from "../state-cache.js";
import type { TokenChain } from "../token-chain.js";
import { readKeptFile, writeKeptFile } from "./kept-file.js";
import { WriteBehind } from "./write-behind.js";

/** A state of fewer tokens is read again sooner than it is read from a disk, and so is a part of a text that has so many more. */
const fewTokens = 32;

/** A state that is to be written. */
interface Waiting {
  readonly chain: TokenChain;
  readonly length: number;
  readonly snapshot: Snapshot;
}

/** A file of this model. */
interface Prefix {
  readonly name: string;
  readonly length: number;
  readonly hasLogits: boolean;
}

/** What files say of themselves. */
interface PrefixHead {
  readonly identity: string;
  readonly root: string;
}

/** A folder of states of prompts, of this model and perhaps of others. */
export class PrefixDirectory implements SecondLevel {
  readonly #folder: string;
  readonly #model: Model;
  readonly #identity: string;
  readonly #maxBytes: () => number;
  /** All files with their sizes, the least recently used first. */
  readonly #files = new Map<string, number>();
  /** Those of this model, by the keys of their tokens. */
  readonly #prefixes = new Map<number, Prefix>();
  readonly #queue = new WriteBehind<Waiting>((waiting) => this.#write(waiting)); // which fails where the disk is full
  #bytes = 0;

  /** @param maxBytes how much all files may take at present */
  constructor(folder: string, model: Model, identity: string, maxBytes: () => number) {
    this.#folder = folder;
    this.#model = model;
    this.#identity = identity;
    this.#maxBytes = maxBytes;
  }

  /** Bytes of all files. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Finds out which files there are, and removes those that a process left behind that was killed. */
  async open(): Promise<void> {
    await removeAbandonedParts(this.#folder);
    const names = await readdir(this.#folder);
    const found = await Promise.all(
      names.map(async (name) => {
        const path = join(this.#folder, name);
        const status = namePattern.test(name) ? await stat(path).catch(() => undefined) : undefined;
        return status?.isFile() ? [{ name, size: status.size, used: status.mtimeMs }] : [];
      }),
    );
    for (const { name, size } of found.flat().sort((a, b) => a.used - b.used)) this.#insert(name, size);
    await this.#removeSurplus(0);
  }

  async find(chain: TokenChain, longerThan: number): Promise<CachedPrefix | undefined> {
    for (let length = chain.length; length > longerThan; length--) {
      const prefix = this.#prefixes.get(chain.key(length));
      const isUseful = length === chain.length ? prefix?.hasLogits : length >= longerThan + fewTokens;
      if (prefix?.length !== length || !isUseful) continue;
      try {
        const snapshot = await this.#read(prefix, chain);
        if (snapshot) return { length, snapshot };
        await this.#remove(prefix.name);
      } catch {
        return undefined; // the disk gives nothing at present
      }
    }
    return undefined;
  }

  store(chain: TokenChain, length: number, snapshot: Snapshot): void {
    const known = this.#prefixes.get(chain.key(length));
    if (length < fewTokens || (known?.length === length && (known.hasLogits || !snapshot.hasLogits))) return;
    this.#queue.add({ chain, length, snapshot });
  }

  async close(): Promise<void> {
    await this.#queue.written();
  }

  /** Removes the least recently used until there is place for so many bytes. */
  async makePlace(bytes: number): Promise<void> {
    await this.#removeSurplus(bytes);
  }

  async #write({ chain, length, snapshot }: Waiting): Promise<void> {
    const { root } = chain;
    const head: PrefixHead = { identity: this.#identity, root };
    const tokens = chain.tokens.slice(0, length);
    const body = new Uint8Array(tokens.buffer);
    const state = snapshot.save();
    const size = state.length + body.length + 512; // and the head, about
    if (size > this.#maxBytes()) return;
    await this.#removeSurplus(size);
    const key = chain.key(length).toString(16).padStart(14, "0");
    const name = `${this.#identity.slice(0, 16)}-${key}-${length}-${snapshot.hasLogits ? "logits" : "plain"}.kept`;
    await writeKeptFile(join(this.#folder, name), { head, body, state });
    this.#insert(name, size);
  }

  async #read({ name, length }: Prefix, chain: TokenChain): Promise<Snapshot | undefined> {
    const path = join(this.#folder, name);
    const file = await readKeptFile(path);
    if (!file || file.body.length !== length * 4) return undefined;
    const { identity, root } = file.head as Partial<PrefixHead>;
    const tokens = new Int32Array(file.body.buffer);
    if (identity !== this.#identity || root !== chain.root || !chain.beginsWith(tokens)) return undefined;
    const snapshot = snapshotOf(this.#model, file.state);
    const size = this.#files.get(name);
    if (size !== undefined) {
      this.#files.delete(name);
      this.#files.set(name, size);
    }
    const now = new Date();
    void utimes(path, now, now).catch(() => {}); // so that the next start knows
    return length < chain.length || snapshot?.hasLogits ? snapshot : undefined;
  }

  #insert(name: string, size: number): void {
    this.#bytes += size - (this.#files.get(name) ?? 0);
    this.#files.delete(name);
    this.#files.set(name, size);
    const [, identity, key = "", length, logits] = namePattern.exec(name) ?? [];
    if (identity !== this.#identity.slice(0, 16)) return;
    const hasLogits = logits === "logits";
    const known = this.#prefixes.get(Number.parseInt(key, 16));
    if (known?.hasLogits && !hasLogits) return;
    this.#prefixes.set(Number.parseInt(key, 16), { name, length: Number(length), hasLogits });
  }

  async #removeSurplus(more: number): Promise<void> {
    for (const name of this.#files.keys()) {
      if (this.#bytes + more <= this.#maxBytes()) return;
      await this.#remove(name);
    }
  }

  async #remove(name: string): Promise<void> {
    this.#bytes -= this.#files.get(name) ?? 0;
    this.#files.delete(name);
    const key = Number.parseInt(namePattern.exec(name)?.[2] ?? "", 16);
    if (this.#prefixes.get(key)?.name === name) this.#prefixes.delete(key);
    await rm(join(this.#folder, name), { force: true }).catch(() => {});
  }
}

function snapshotOf(model: Model, state: Uint8Array): Snapshot | undefined {
  try {
    return model.snapshot(state);
  } catch {
    return undefined;
  }
}

/** The model, the key of the tokens, their number, and whether there are logits. */
const namePattern = /^([0-9a-f]{16})-([0-9a-f]{14})-(\d{1,10})-(logits|plain)\.kept$/;
