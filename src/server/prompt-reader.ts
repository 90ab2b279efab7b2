// Reads prompts through the cache of states: from the longest beginning that is known, and keeping states on the way where other prompts
// are likely to go on: at the ends of messages, and where a prompt leaves one that was seen before.

import type { Model } from "../generation/model.js";
import type { Session } from "../generation/session.js";
import type { Snapshot } from "../generation/snapshot.js";
import { senselessState } from "./errors.js";
import type { Prompt, PromptStart } from "./prompts.js";
import type { Lookup, Reading, StateCache } from "./state-cache.js";
import { commonLength, TokenChain } from "./token-chain.js";
import { traced, tracedPasses } from "./tracing.js";

/** A prompt that was read. */
export interface ReadPrompt {
  readonly chain: TokenChain;
  /** The state after the prompt, with the logits that follow it. */
  readonly snapshot: Snapshot;
  /** How many of the prompt's tokens were not read for this request; of the state that it begins with, none were. */
  readonly cachedTokens: number;
}

/** Tokens that a state must save the reading of, to be kept: a few rows of a pass cost hardly more than none. */
const fewTokens = 16;
/** At how many of a prompt's first messages states are kept, which many conversations share, and of its last ones. */
const firstMessages = 2;
const lastMessages = 3;
/** How many prompts are remembered, to see where new ones leave them. */
const rememberedPrompts = 64;

/** Reads prompts of one model, which begin with the same state unless they say another. */
export class PromptReader {
  readonly #model: Model;
  readonly #cache: StateCache;
  readonly #firstState: Uint8Array | undefined;
  readonly #root: string;
  /** The last prompts, the oldest first. */
  readonly #seen: TokenChain[] = [];

  /**
   * @param firstState the state that every prompt begins with
   * @param root what names the model and that state, for keys
   */
  constructor(model: Model, cache: StateCache, firstState: Uint8Array | undefined, root: string) {
    this.#model = model;
    this.#cache = cache;
    this.#firstState = firstState;
    this.#root = root;
  }

  /**
   * Reads a prompt, or what of it is not known yet.
   *
   * @param owner what stands for the API key of whoever asks: what others have read is not known to them, nor can they find out by the
   *   numbers of tokens that are not read
   * @throws the signal's reason when it is aborted; LimitError where the model has no place for a state; ApiError for a state that a
   *   client made up, with which the model computes nothing
   */
  async read(prompt: Prompt, owner: string, signal: AbortSignal): Promise<ReadPrompt> {
    const read = await this.#read(prompt, owner, signal);
    if (prompt.start && !read.snapshot.logits?.every(Number.isFinite)) {
      throw senselessState();
    }
    return read;
  }

  async #read(prompt: Prompt, owner: string, signal: AbortSignal): Promise<ReadPrompt> {
    const { start } = prompt;
    const chain = new TokenChain(rootOf(owner, start?.root ?? this.#root), prompt.tokens);
    const before = start?.snapshot.position ?? 0;
    if (start && chain.length === 0) return { chain, snapshot: await this.#withLogits(start), cachedTokens: before };
    const { prefix, reading } = await this.#lookUp(chain, signal);
    if (!reading) return { chain, snapshot: prefix?.snapshot as Snapshot, cachedTokens: before + chain.length };
    const from = prefix?.length ?? 0;
    const stops = this.#stops(prompt, chain, from);
    this.#remember(chain);
    const readings = [...stops.slice(0, -1).map((length) => this.#cache.begin(chain, length)), reading];
    try {
      const session = this.#model.session(prefix?.snapshot ?? start?.snapshot ?? this.#firstState);
      try {
        const snapshot = await tracedPasses(
          "prompt",
          () => this.#model.scheduler.passes,
          (span) => {
            span.setAttribute("rwkv.prompt.tokens", chain.length - from);
            return this.#readPieces(session, chain.tokens, from, stops, readings, signal);
          },
        );
        return { chain, snapshot, cachedTokens: before + from };
      } finally {
        await session.dispose();
      }
    } finally {
      for (const one of readings) one.abandon();
    }
  }

  #lookUp(chain: TokenChain, signal: AbortSignal): Promise<Lookup> {
    return traced("prefix lookup", async (span) => {
      const found = await this.#cache.lookUp(chain, signal);
      span.setAttributes({ "rwkv.prompt.tokens": chain.length, "rwkv.prefix.tokens": found.prefix?.length ?? 0 });
      return found;
    });
  }

  /** Puts the state at the end of an answer into the cache. */
  keep(prompt: TokenChain, answer: readonly number[], snapshot: Snapshot, firstPosition: number): void {
    const before = snapshot.withoutPendingToken();
    const length = before.position - firstPosition;
    if (length - prompt.length < fewTokens / 2) return;
    const tokens = new Int32Array(length);
    tokens.set(prompt.tokens);
    tokens.set(answer.slice(0, length - prompt.length), prompt.length);
    this.#cache.add(new TokenChain(prompt.root, tokens), length, before);
  }

  /** A state with the logits that follow it: what it kept back is run. */
  async #withLogits({ snapshot }: PromptStart): Promise<Snapshot> {
    if (snapshot.hasLogits) return snapshot;
    const session = this.#model.session(snapshot);
    try {
      await session.read([], { keepLogits: true });
      return await session.snapshot();
    } finally {
      await session.dispose();
    }
  }

  async #readPieces(
    session: Session,
    tokens: Int32Array,
    from: number,
    stops: readonly number[],
    readings: readonly Reading[],
    signal: AbortSignal,
  ): Promise<Snapshot> {
    let at = from;
    let snapshot: Snapshot | undefined;
    for (const [i, stop] of stops.entries()) {
      await session.read(tokens.subarray(at, stop), { signal, keepLogits: true });
      snapshot = await session.snapshot();
      readings[i]?.finish(snapshot);
      at = stop;
    }
    return snapshot as Snapshot; // the end is always a stop
  }

  /** The lengths at which states are kept, in ascending order; the whole length is the last. */
  #stops({ tokens, boundaries }: Prompt, chain: TokenChain, from: number): number[] {
    const usual = [
      ...boundaries.slice(0, firstMessages),
      ...boundaries.slice(-lastMessages),
      this.#branchingPoint(chain),
    ];
    const stops: number[] = [];
    for (const length of [...new Set(usual)].sort((a, b) => a - b)) {
      const isNear = length - (stops.at(-1) ?? from) < fewTokens || length >= tokens.length;
      if (!isNear && !this.#cache.has(chain, length)) stops.push(length);
    }
    return [...stops, tokens.length];
  }

  /** Where the prompt leaves the prompt before it with which it has most in common. */
  #branchingPoint({ root, tokens }: TokenChain): number {
    const others = this.#seen.filter((other) => other.root === root);
    return others.reduce((most, other) => Math.max(most, commonLength(tokens, other.tokens)), 0);
  }

  #remember(chain: TokenChain): void {
    this.#seen.push(chain);
    if (this.#seen.length > rememberedPrompts) this.#seen.shift();
  }
}

/** What sets texts apart that must not be taken for each other: those of other API keys, and those after other states. */
function rootOf(owner: string, state: string): string {
  return owner === "" ? state : `${owner}:${state}`;
}
