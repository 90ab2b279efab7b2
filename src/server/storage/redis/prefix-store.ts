// States of prompts in a Redis, as the second level of the cache of several servers. A state is found by what Redis has of the beginnings
// of a text: for every 64 tokens of a text there is a marker that says after how many further ones there may be a state, so a text of n
// tokens is looked up by n/64 small questions at once. What is found is used only if it holds the tokens that were asked for.

import type { Model } from "../../../generation/model.js";
import type { Snapshot } from "../../../generation/snapshot.js";
import { savedStateSize } from "../../../generation/state-file.js";
import type { CachedPrefix, SecondLevel } from "../../state-cache.js";
import type { TokenChain } from "../../token-chain.js";
import { decodeKept, headBytes } from "../kept-bytes.js";
import { WriteBehind } from "../write-behind.js";
import {
  answerOf,
  answersOf,
  isBytesOrNothing,
  isNumber,
  isOfAnotherType,
  isReply,
  isText,
  isTextOrNothing,
  listOf,
  resultsOf,
} from "./answers.js";
import type { RedisLink } from "./link.js";
import { type Candidate, candidateOf, lengthsIn, PrefixKeys, scopeOf } from "./prefix-keys.js";
import { ReadingClaims } from "./reading-claims.js";
import type { Scripted } from "./scripts.js";
import type { StateCodec } from "./state-codec.js";
import type { StoreMetrics } from "./store-metrics.js";

/** A state of fewer tokens is read again sooner than it is asked for, and so is a part of a text that has so many more. */
const fewTokens = 32;
/** Texts of which fewer tokens are left to read are not claimed. */
const fewClaimed = 64;
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

/** What a value says of itself. */
interface Head {
  readonly scope: string;
}

/** States of prompts of one model. */
export class PrefixStore implements SecondLevel {
  readonly #options: PrefixStoreOptions;
  readonly #keys: PrefixKeys;
  readonly #claims: ReadingClaims;
  readonly #queue = new WriteBehind<Waiting>(
    (waiting) => this.#write(waiting),
    (waiting) => this.#leaveOut(waiting),
  );
  #bytes = 0;
  #refusedUntil = 0;

  constructor(options: PrefixStoreOptions) {
    this.#options = options;
    this.#keys = new PrefixKeys(options.namespace);
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
        if (!(await this.#claims.wait(this.#keys.claim(chain), signal))) return found;
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
    void this.#claims.release(this.#keys.claim(chain));
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
      const value = await this.#claims.claim(this.#keys.claim(chain));
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
    const markers = this.#keys.markers(chain, least);
    const bits = await this.#options.link.ask(
      "read",
      until,
      (client) => client.mgetBuffer(markers.map(({ key }) => key)), // what is no marker is nothing to it
      listOf(isBytesOrNothing, markers.length),
    );
    const lengths = markers.flatMap(({ firstLength }, i) => (bits[i] ? lengthsIn(bits[i], firstLength) : []));
    return lengths
      .filter((length) => length >= least && length <= chain.length)
      .flatMap((length) => [
        candidateOf(chain, length, "l"),
        ...(length < chain.length ? [candidateOf(chain, length, "p")] : []),
      ]);
  }

  /** Those of which there is something; what cannot be a state is removed. */
  async #there(candidates: readonly Candidate[], until: number): Promise<Candidate[]> {
    const { link, model } = this.#options;
    const sizes = await link.ask(
      "read",
      until,
      (client) => {
        const pipeline = client.pipeline();
        for (const { name } of candidates) pipeline.strlen(this.#keys.value(name));
        return answersOf(pipeline);
      },
      resultsOf(candidates.length),
    );
    const { stateBytes, vocabulary } = model.info;
    return candidates.filter(({ name, length }, i) => {
      const size = answerOf(sizes[i], isNumber);
      const most = headBytes + length * 4 + savedStateSize(stateBytes / 4, vocabulary);
      if (size === undefined || size > most) this.#removeDamaged(name);
      return size !== undefined && size > 0 && size <= most;
    });
  }

  /** Reads a state, and removes what is none. */
  async #read(chain: TokenChain, { length, name }: Candidate, until: number): Promise<CachedPrefix | undefined> {
    const { link, codec, metrics } = this.#options;
    const bytes = await link
      .ask("read", until, (client) => client.getBuffer(this.#keys.value(name)), isBytesOrNothing)
      .catch((error: unknown) => {
        if (isOfAnotherType(error)) return Buffer.alloc(0);
        throw error;
      });
    if (!bytes) return undefined;
    const kept = decodeKept(bytes);
    const { scope } = (kept?.head ?? {}) as Partial<Head>;
    const isRight = kept?.body.length === length * 4 && scope === scopeOf(chain);
    const tokens = isRight ? new Int32Array(kept.body.buffer) : undefined;
    const snapshot = kept && tokens && chain.beginsWith(tokens) ? codec.decode(kept.state) : undefined;
    if (!snapshot || (length === chain.length && !snapshot.hasLogits)) {
      this.#removeDamaged(name);
      return undefined;
    }
    link.confirm();
    metrics.readBytes.inc(bytes.length);
    void this.#note(chain, length, name, bytes.length).catch(() => {});
    return { length, snapshot };
  }

  #removeDamaged(name: string): void {
    const { link, metrics } = this.#options;
    metrics.count("find", "damaged");
    void link
      .ask("write", link.deadline(), (client) => client.unlink(this.#keys.value(name)), isNumber)
      .catch(() => {}); // it is found again
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
        const key = this.#keys.value(name);
        const life = seconds * 1000;
        await link.ask(
          "write",
          link.deadline(value.length),
          (client) => client.set(key, value, "PX", life),
          isTextOrNothing,
        );
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
    const { link, seconds, maxBytes } = this.#options;
    const marker = this.#keys.marker(chain, length);
    const values = [`${name}|${bytes}`, bytes, seconds * 1000, marker.bit, maxBytes, this.#keys.value("")];
    const sum = await link.ask(
      "write",
      link.deadline(),
      (client) => (client as unknown as Scripted).noteState(...this.#keys.index, marker.key, ...values),
      isText,
    );
    this.#bytes = Number(sum);
  }
}
