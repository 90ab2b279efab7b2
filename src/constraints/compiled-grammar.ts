// A grammar for the tokens of one model: the constraint that a generation is given.

import { RwkvError } from "../errors.js";
import { onlyGrows } from "../generation/generated-tokens.js";
import type { Constraint } from "../generation/generation-options.js";
import type { Tokenizer } from "../tokenizers/tokenizer.js";
import type { Machine, State } from "./machine.js";
import { TokenMasks } from "./token-masks.js";
import type { TokenTrie } from "./token-trie.js";

/** The most bytes that are looked ahead for what is forced. */
const maxForcedBytes = 1024;

/** What all generations with a grammar and a model share. */
export class CompiledGrammar implements Constraint {
  readonly machine: Machine;
  readonly masks: TokenMasks;
  readonly trie: TokenTrie;
  readonly #tokenizer: Tokenizer;
  readonly #forced = new WeakMap<State, readonly number[]>();

  constructor(machine: Machine, trie: TokenTrie, tokenizer: Tokenizer, vocabulary: number) {
    this.machine = machine;
    this.trie = trie;
    this.masks = new TokenMasks(machine, trie, vocabulary);
    this.#tokenizer = tokenizer;
  }

  begin(): Constraint {
    return new GrammarReader(this);
  }

  /**
   * The tokens of what must follow a state, where only one text can. The last of them may be left out: those that a
   * longer token might replace, which goes on into what is not forced.
   */
  forcedAfter(state: State): readonly number[] {
    let tokens = this.#forced.get(state);
    if (!tokens) {
      tokens = this.#findForced(state);
      this.#forced.set(state, tokens);
    }
    return tokens;
  }

  #findForced(state: State): readonly number[] {
    const { machine } = this;
    const bytes: number[] = [];
    let end = state;
    machine.refill();
    for (let byte = machine.onlyByte(end); byte !== undefined && bytes.length < maxForcedBytes; ) {
      bytes.push(byte);
      end = machine.step(end, byte);
      byte = machine.onlyByte(end);
    }
    if (bytes.length === 0) return [];
    const tokens: number[] = [];
    let at = 0;
    for (const token of this.#tokenize(bytes)) {
      if (this.#mayGoOn(bytes, at, end)) break;
      tokens.push(token);
      at += (this.trie.bytesOf[token] as Uint8Array).length;
    }
    return tokens;
  }

  /** The tokens of bytes as the tokenizer cuts them, or the longest ones where it cannot. */
  #tokenize(bytes: readonly number[]): readonly number[] {
    const { trie } = this;
    try {
      const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Uint8Array.from(bytes));
      const tokens = this.#tokenizer.encode(text);
      const written = tokens.flatMap((token) => [...(trie.bytesOf[token] ?? [])]);
      if (written.length === bytes.length && written.every((byte, i) => byte === bytes[i])) return tokens;
    } catch {
      // The bytes end within a character, or the tokenizer has no token for one of them.
    }
    const tokens: number[] = [];
    for (let at = 0; at < bytes.length; ) {
      const { token, length } = trie.longestMatch(bytes, at);
      if (length === 0) break;
      tokens.push(token);
      at += length;
    }
    return tokens;
  }

  /** Whether an allowed token has the bytes from `at` on and goes on after them. */
  #mayGoOn(bytes: readonly number[], at: number, end: State): boolean {
    const { trie, machine } = this;
    let node = 0;
    for (let i = at; i < bytes.length; i++) {
      node = trie.child(node, bytes[i] as number);
      if (node < 0) return false;
    }
    const last = trie.ends[node] as number;
    for (let child = node + 1; child < last; child = trie.ends[child] as number) {
      // A child of the trie leads to a token in any case, but perhaps to one that is not allowed: then a token more is
      // left to be sampled than need be.
      if (!machine.step(end, trie.bytes[child] as number).isDead) return true;
    }
    return false;
  }
}

/** One generation's reading of a grammar. */
class GrammarReader implements Constraint {
  readonly #grammar: CompiledGrammar;
  /** The tokens that were read, and the state after them. */
  readonly #read: number[] = [];
  #state: State;
  /** The array that they were in. */
  #source: readonly number[] | undefined;

  constructor(grammar: CompiledGrammar) {
    this.#grammar = grammar;
    this.#state = grammar.machine.start;
  }

  allowedTokens(generated: readonly number[]): Uint32Array {
    return this.#grammar.masks.maskOf(this.#stateAfter(generated));
  }

  mayEnd(generated: readonly number[]): boolean {
    return this.#stateAfter(generated).ends;
  }

  forcedTokens(generated: readonly number[]): readonly number[] {
    return this.#grammar.forcedAfter(this.#stateAfter(generated));
  }

  /** @throws RwkvError when the tokens do not follow the grammar */
  #stateAfter(generated: readonly number[]): State {
    const { machine, trie } = this.#grammar;
    const isSource = generated === this.#source && onlyGrows(generated);
    this.#source = generated;
    const count = this.#read.length;
    if (generated.length < count || (!isSource && this.#read.some((token, i) => token !== generated[i]))) {
      this.#state = machine.start;
      this.#read.length = 0;
    }
    machine.refill();
    while (this.#read.length < generated.length) {
      const token = generated[this.#read.length] as number;
      const bytes = trie.bytesOf[token] ?? [];
      let state = this.#state;
      for (const byte of bytes) state = machine.step(state, byte);
      if (bytes.length === 0 || state.isDead) {
        throw new RwkvError(`token ${token}, which was generated, does not follow the grammar`);
      }
      this.#state = state;
      this.#read.push(token);
    }
    return this.#state;
  }
}
