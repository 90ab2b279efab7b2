// States of prompts in a Redis, as the second level of the cache of several servers. A state is found by what Redis has of the beginnings
// of a text: for every 64 tokens of a text there is a marker that says after how many further ones there may be a state, so a text of n
// tokens is looked up by n/64 small questions at once. What is found is used only if it holds the tokens that were asked for.

import { createHash } from "node:crypto";
import type { Model } from "../../../generation/model.js";
import type { Snapshot } from "../../../generation/snapshot.js";
import type { CachedPrefix, SecondLevel } from "../../state-cache.js";
import type { TokenChain } from "../../token-chain.js";
import { decodeKept } from "../kept-bytes.js";
import { WriteBehind } from "../write-behind.js";
import { answersOf, isReply, type RedisLink } from "./link.js";
import { ReadingClaims } from "./reading-claims.js";
import type { Scripted } from "./scripts.js";
import type { StateCodec } from "./state-codec.js";
import type { StoreMetrics } from "./store-metrics.js";

/** A state of fewer tokens is read again sooner than it is asked for, and so is a part of a text that has so many more. */
const fewTokens = 32;
/** Texts of which fewer tokens are left to read are not claimed. */
const fewClaimed = 64;
/** Tokens of a marker. */
const blockTokens = 64;
/** How many states that may be there are asked for at once, how often, and how many that are none are read. */
const candidatesAtOnce = 128;
const maxRounds = 4;
const maxDamaged = 3;
/** For so many milliseconds nothing is written where Redis takes nothing, being full or a copy. */
const refusedMilliseconds = 5000;

/** What states are kept with. */
export interface PrefixStoreOptions {
  readonly model: Model;
  readonly link: RedisLink;
  readonly metrics: StoreMetrics;
  readonly codec: StateCodec;
  /** What all keys of this model begin with. */
  readonly namespace: string;
  /** Bytes that all states may take. */
  readonly maxBytes: number;
  /** Seconds after which a state is gone that nobody used. */
  readonly seconds: number;
}

interface Waiting {
  readonly chain: TokenChain;
  readonly length: number;
  readonly snapshot: Snapshot;
}

/** A state that may be there. */
interface Candidate {
  readonly length: number;
  /** The last part of its key. */
  readonly name: string;
}

/** What a value says of itself. */
interface Head {
  readonly scope: string;
}

/** States of prompts of one model. */
export class PrefixStore implements SecondLevel {
  readonly #options: PrefixStoreOptions;
  readonly #claims: ReadingClaims;
  readonly #queue = new WriteBehind<Waiting>(
    (waiting) => this.#write(waiting),
    (waiting) => this.#leaveOut(waiting),
  );
  #bytes = 0;
  #refusedUntil = 0;

  constructor(options: PrefixStoreOptions) {
    this.#options = options;
    this.#claims = new ReadingClaims(options.link);
  }

  /** Bytes of all states, as Redis said last. */
  get bytes(): number {
    return this.#bytes;
  }

  get waiting(): { readonly waiting: number; readonly bytes: number } {
    return this.#queue.statistics;
  }

  async find(chain: TokenChain, longerThan: number, signal: AbortSignal): Promise<CachedPrefix | undefined> {
    if (chain.length < fewTokens || chain.length - longerThan < fewTokens) return undefined;
    let found: CachedPrefix | undefined;
    try {
      for (;;) {
        found = (await this.#find(chain, longerThan)) ?? found;
        const from = found?.length ?? longerThan;
        if (chain.length - from < fewClaimed) return found;
        if (await this.#claim(chain)) {
          // Another server may have written it since it was looked for.
          const whole = await this.#read(chain, candidateOf(chain, chain.length, "l"), this.#deadline());
          if (whole) this.abandon(chain);
          return whole ?? found;
        }
        this.#options.metrics.waits.inc();
        if (!(await this.#claims.wait(this.#claimKey(chain), signal))) return found;
      }
    } catch (error) {
      signal.throwIfAborted();
      if (!isReply(error) && (error as Error).name !== "OutOfReachError") throw error;
      return found; // Redis gives nothing at present
    }
  }

  store(chain: TokenChain, length: number, snapshot: Snapshot): void {
    if (length < fewTokens) return;
    const waiting = { chain, length, snapshot };
    if (this.#options.link.isUp && performance.now() >= this.#refusedUntil) this.#queue.add(waiting);
    else this.#leaveOut(waiting);
  }

  abandon(chain: TokenChain): void {
    void this.#claims.release(this.#claimKey(chain));
  }

  async close(): Promise<void> {
    await this.#queue.written();
    await this.#claims.close();
  }

  #leaveOut({ chain, length }: Waiting): void {
    this.#options.metrics.leftOut.inc();
    if (length === chain.length) this.abandon(chain);
  }

  #claim(chain: TokenChain): Promise<boolean> {
    return this.#options.metrics.measure("claim", async () => {
      const value = await this.#claims.claim(this.#claimKey(chain));
      return { outcome: "done", value };
    });
  }

  /** Until when a state must be there that is asked for now. */
  #deadline(): number {
    const { link, model } = this.#options;
    return link.deadline(model.info.stateBytes);
  }

  /** The longest state that Redis has. @throws OutOfReachError, ReplyError */
  #find(chain: TokenChain, longerThan: number): Promise<CachedPrefix | undefined> {
    return this.#options.metrics.measure("find", async () => {
      const until = this.#deadline();
      const candidates = await this.#candidates(chain, longerThan, until);
      let damaged = 0;
      for (let round = 0; round < maxRounds; round++) {
        const some = candidates.slice(round * candidatesAtOnce, (round + 1) * candidatesAtOnce);
        if (some.length === 0) break;
        const there = await this.#there(some, until);
        for (const candidate of there) {
          const value = await this.#read(chain, candidate, until);
          if (value) return { outcome: "found", value };
          if (++damaged === maxDamaged) return { outcome: "absent", value: undefined };
        }
      }
      this.#options.link.confirm();
      return { outcome: "absent", value: undefined };
    });
  }

  /** What the markers say, the longest first. */
  async #candidates(chain: TokenChain, longerThan: number, until: number): Promise<Candidate[]> {
    const least = longerThan + fewTokens;
    const blocks: number[] = [];
    for (let at = Math.floor(chain.length / blockTokens); (at + 1) * blockTokens > least && at >= 0; at--)
      blocks.push(at);
    const keys = blocks.map((block) => this.#markerKey(chain, block));
    const markers = await this.#options.link.ask("read", until, (client) => client.mgetBuffer(keys));
    return blocks.flatMap((block, i) => {
      const bits = markers[i];
      if (!bits) return [];
      const candidates: Candidate[] = [];
      for (let place = blockTokens - 1; place >= 0; place--) {
        const length = block * blockTokens + place;
        const isThere = ((bits[place >> 3] ?? 0) >> (7 - (place & 7))) & 1;
        if (!isThere || length < least || length > chain.length) continue;
        candidates.push(candidateOf(chain, length, "l"));
        if (length < chain.length) candidates.push(candidateOf(chain, length, "p"));
      }
      return candidates;
    });
  }

  async #there(candidates: readonly Candidate[], until: number): Promise<Candidate[]> {
    const found = await this.#options.link.ask("read", until, async (client) => {
      const pipeline = client.pipeline();
      for (const { name } of candidates) pipeline.exists(this.#valueKey(name));
      return answersOf(await pipeline.exec());
    });
    return candidates.filter((_, i) => found[i] === 1);
  }

  /** Reads a state, and removes what is none. */
  async #read(chain: TokenChain, { length, name }: Candidate, until: number): Promise<CachedPrefix | undefined> {
    const { link, codec, metrics } = this.#options;
    const key = this.#valueKey(name);
    const bytes = await link.ask("read", until, (client) => client.getBuffer(key));
    if (!bytes) return undefined;
    const kept = decodeKept(bytes);
    const { scope } = (kept?.head ?? {}) as Partial<Head>;
    const isRight = kept?.body.length === length * 4 && scope === scopeOf(chain);
    const tokens = isRight ? new Int32Array(kept.body.buffer) : undefined;
    const snapshot = kept && tokens && chain.beginsWith(tokens) ? codec.decode(kept.state) : undefined;
    if (!snapshot || (length === chain.length && !snapshot.hasLogits)) {
      metrics.count("find", "damaged");
      void link.ask("write", link.deadline(), (client) => client.unlink(key)).catch(() => {});
      return undefined;
    }
    link.confirm();
    metrics.readBytes.inc(bytes.length);
    void this.#note(chain, length, name, bytes.length).catch(() => {});
    return { length, snapshot };
  }

  async #write({ chain, length, snapshot }: Waiting): Promise<void> {
    const { link, codec, metrics, seconds } = this.#options;
    try {
      if (!link.isUp || performance.now() < this.#refusedUntil) {
        metrics.leftOut.inc();
        return;
      }
      const head: Head = { scope: scopeOf(chain) };
      const body = new Uint8Array(chain.tokens.slice(0, length).buffer);
      const value = codec.encode(head, body, snapshot);
      const { name } = candidateOf(chain, length, snapshot.hasLogits ? "l" : "p");
      await metrics.measure("store", async () => {
        const key = this.#valueKey(name);
        await link.ask("write", link.deadline(value.length), (client) => client.set(key, value, "PX", seconds * 1000));
        await this.#note(chain, length, name, value.length);
        return { outcome: "done", value: undefined };
      });
      metrics.writtenBytes.inc(value.length);
    } catch (error) {
      if (isReply(error)) this.#refusedUntil = performance.now() + refusedMilliseconds;
      throw error;
    } finally {
      if (length === chain.length) this.abandon(chain);
    }
  }

  /** Notes that a state is there, or was used. */
  async #note(chain: TokenChain, length: number, name: string, bytes: number): Promise<void> {
    const { link, namespace, seconds, maxBytes } = this.#options;
    const [used, total] = [`${namespace}used`, `${namespace}total`];
    const marker = this.#markerKey(chain, Math.floor(length / blockTokens));
    const values = [`${name}|${bytes}`, bytes, seconds * 1000, length % blockTokens, maxBytes, this.#valueKey("")];
    const sum = await link.ask("write", link.deadline(), (client) =>
      (client as unknown as Scripted).noteState(used, total, marker, ...values),
    );
    this.#bytes = Number(sum);
  }

  #valueKey(name: string): string {
    return `${this.#options.namespace}state:${name}`;
  }

  #markerKey(chain: TokenChain, block: number): string {
    return `${this.#options.namespace}marker:${scopeOf(chain)}:${hex(chain.key(block * blockTokens))}:${block}`;
  }

  #claimKey(chain: TokenChain): string {
    return `${this.#options.namespace}claim:${candidateOf(chain, chain.length, "l").name}`;
  }
}

/** @param kind "l" with the logits that follow, "p" without */
function candidateOf(chain: TokenChain, length: number, kind: "l" | "p"): Candidate {
  return { length, name: `${scopeOf(chain)}:${hex(chain.key(length))}:${length}:${kind}` };
}

/** What stands for the root of a chain, the API key and the first state, of which a key must tell nothing. */
function scopeOf({ root }: TokenChain): string {
  const known = scopes.get(root);
  if (known !== undefined) return known;
  const scope = createHash("sha256").update(root).digest("hex").slice(0, 32);
  scopes.set(root, scope);
  if (scopes.size > 1000) scopes.delete(scopes.keys().next().value as string);
  return scope;
}

const scopes = new Map<string, string>();

function hex(key: number): string {
  return key.toString(16).padStart(14, "0");
}
