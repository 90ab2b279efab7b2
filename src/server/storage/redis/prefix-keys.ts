// Under which keys states of prompts are in a Redis, their markers, and the claims of who reads a text. A key tells nothing of an API key.

import { createHash } from "node:crypto";
import type { TokenChain } from "../../token-chain.js";

/** Tokens of a marker. */
const blockTokens = 64;

/** A state that may be there. */
export interface Candidate {
  readonly length: number;
  /** The last part of its key. */
  readonly name: string;
}

/** The keys of one model. */
export class PrefixKeys {
  readonly #namespace: string;

  /** @param namespace what all of them begin with */
  constructor(namespace: string) {
    this.#namespace = namespace;
  }

  /** The members of the index, by when they were used, and the sum of their bytes. */
  get index(): [used: string, total: string] {
    return [`${this.#namespace}used`, `${this.#namespace}total`];
  }

  /** Of a state. */
  value(name: string): string {
    return `${this.#namespace}state:${name}`;
  }

  /** Of the marker that says of a state of so many tokens, and the bit in it. */
  marker(chain: TokenChain, length: number): { key: string; bit: number } {
    return { key: this.#markerOf(chain, Math.floor(length / blockTokens)), bit: length % blockTokens };
  }

  /** Of the markers of all states of more tokens than `longerThan`, the longest first. */
  markers(chain: TokenChain, longerThan: number): { key: string; firstLength: number }[] {
    const all: { key: string; firstLength: number }[] = [];
    for (let block = Math.floor(chain.length / blockTokens); (block + 1) * blockTokens > longerThan; block--) {
      if (block < 0) break;
      all.push({ key: this.#markerOf(chain, block), firstLength: block * blockTokens });
    }
    return all;
  }

  /** Of the claim of whoever reads a text. */
  claim(chain: TokenChain): string {
    return `${this.#namespace}claim:${candidateOf(chain, chain.length, "l").name}`;
  }

  #markerOf(chain: TokenChain, block: number): string {
    return `${this.#namespace}marker:${scopeOf(chain)}:${hex(chain.key(block * blockTokens))}:${block}`;
  }
}

/** The lengths from `firstLength` on of which a marker says that there may be states, the longest first. */
export function lengthsIn(marker: Uint8Array, firstLength: number): number[] {
  const lengths: number[] = [];
  for (let bit = blockTokens - 1; bit >= 0; bit--) {
    if (((marker[bit >> 3] ?? 0) >> (7 - (bit & 7))) & 1) lengths.push(firstLength + bit);
  }
  return lengths;
}

/** @param kind "l" with the logits that follow, "p" without */
export function candidateOf(chain: TokenChain, length: number, kind: "l" | "p"): Candidate {
  return { length, name: `${scopeOf(chain)}:${hex(chain.key(length))}:${length}:${kind}` };
}

/** What stands for the root of a chain, the API key and the first state, of which a key must tell nothing. */
export function scopeOf({ root }: TokenChain): string {
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
