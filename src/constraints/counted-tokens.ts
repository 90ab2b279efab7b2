// The tokens that may follow within a repetition that is counted, for all counts at once.
//
// In a string of at most 100 characters the allowed tokens differ with every character read, though only in how many
// characters they may have. So the walk over the tokens is made once, and tells how often each token repeats the body;
// the mask of a count is then a matter of comparing. That can be done where a text can be read in one way only: where it
// is clear after each byte whether the body has ended, and whether the next byte begins another or what comes after.

import type { Machine, Stacks, State } from "./machine.js";
import type { Counter } from "./network.js";
import type { TokenTrie } from "./token-trie.js";

/** The tokens that may follow a node within a counted repetition. */
export interface CountedTokens {
  /** Tokens that stay within the repetition: those that need more repetitions come first. */
  readonly staying: Int32Array;
  /** How many repetitions there must be at least for each of them, the current one included. */
  readonly needed: Uint16Array;
  /** The mask of those tokens. */
  readonly words: Uint32Array;
  /** Tokens that leave the repetition, and after how many repetitions each of them does. */
  readonly leaving: Int32Array;
  readonly done: Int32Array;
  /** Nodes of the trie with children at which what stands below is returned to, and after how many repetitions. */
  readonly leaves: readonly { readonly node: number; readonly done: number }[];
  /** How much higher than what stands below it this reaches. */
  readonly rise: number;
}

/** Where a token is: within the body, just behind it, or in what comes after the repetition. */
const [within, behind, after] = [0, 1, 2];

/** A node within a counted repetition. */
export interface CountedPlace {
  readonly node: number;
  /** The nodes on the stack between the node and the counter, from the top down. */
  readonly taken: readonly number[];
  readonly counter: Counter;
  /** The nodes that are returned to after the repetition, from the top down. */
  readonly backs: readonly number[];
  /** What stands below these: what is unknown, or nothing. */
  readonly bottom: Stacks;
}

/**
 * Finds the tokens that may follow a node within a counted repetition.
 *
 * @param mostBelow the most nodes of the trie that may be below those at which what is unknown is returned to
 * @returns "unclear" where texts can be read in several ways, "leaky" where too much depends on what is unknown
 */
export function countedTokens(
  machine: Machine,
  trie: TokenTrie,
  { node, taken, counter, backs, bottom }: CountedPlace,
  mostBelow: number,
): CountedTokens | "unclear" | "leaky" {
  const push = (top: Stacks, other: number) => machine.push(other, top);
  const { unknown } = machine;
  const { start: first } = machine.facts.network.rules[counter.body] as { start: number };
  const next = machine.returnTo(machine.push(first, unknown));
  const left = machine.returnTo(backs.reduceRight(push, bottom));
  if (next.leaves || !areDisjoint(machine, next, left)) return "unclear";
  const stacks = taken.reduceRight(push, unknown);
  const { bytes, depths, ends, tokens } = trie;
  const path = new Array<State>(trie.maxDepth + 1).fill(machine.stateOf(node, stacks));
  const places = new Uint8Array(path.length);
  /** By depth: the repetitions begun, or done where the token has left. */
  const counts = new Int32Array(path.length).fill(1);
  /** By node of the trie: of a token that stays, the repetitions it needs; of one that leaves, minus those done. */
  const found = new Int32Array(bytes.length);
  const leaves: { node: number; done: number }[] = [];
  let [rise, below] = [0, 0];
  for (let at = 1; at < bytes.length; ) {
    const depth = depths[at] as number;
    const byte = bytes[at] as number;
    let place = places[depth - 1] as number;
    let count = counts[depth - 1] as number;
    let state: State;
    if (place === behind) {
      state = machine.step(next, byte);
      place = within;
      if (state.isDead) {
        state = machine.step(left, byte);
        place = after;
      } else count++;
    } else state = machine.step(path[depth - 1] as State, byte);
    if (state.isDead) {
      at = ends[at] as number;
      continue;
    }
    if (place === within && state.leaves) {
      if (state.nodes.length > 0) return "unclear";
      place = behind;
    }
    path[depth] = state;
    places[depth] = place;
    counts[depth] = count;
    found[at] = place === after ? -count : count;
    // Within the body, the counter and the nodes that are returned to stand below as well.
    rise = Math.max(
      rise,
      place === after ? state.reach - bottom.height : state.reach - unknown.height + backs.length + 1,
    );
    if (place === after ? state.leaves : place === behind && left.leaves) {
      const descendants = (ends[at] as number) - at - 1;
      if (descendants > 0) leaves.push({ node: at, done: count });
      below += descendants;
      if (below > mostBelow) return "leaky";
    }
    at++;
  }
  return { ...sorted(trie, found, tokens), leaves, rise: Math.max(rise, left.reach - bottom.height) };
}

function areDisjoint(machine: Machine, a: State, b: State): boolean {
  for (let byte = 0; byte < 256; byte++) {
    if (!machine.step(a, byte).isDead && !machine.step(b, byte).isDead) return false;
  }
  return true;
}

/** Puts the tokens into order. @param found by node of the trie */
function sorted(
  { maxDepth, bytesOf }: TokenTrie,
  found: Int32Array,
  tokens: Int32Array,
): Omit<CountedTokens, "leaves" | "rise"> {
  const places = new Int32Array(maxDepth + 2);
  let left = 0;
  for (let at = 1; at < found.length; at++) {
    const value = (tokens[at] as number) < 0 ? 0 : (found[at] as number);
    if (value > 0) places[value] = (places[value] as number) + 1;
    else if (value < 0) left++;
  }
  // Where those of each number begin, the largest number first.
  let total = 0;
  for (let value = places.length - 1; value > 0; value--) {
    const count = places[value] as number;
    places[value] = total;
    total += count;
  }
  const [staying, needed] = [new Int32Array(total), new Uint16Array(total)];
  const [leaving, done] = [new Int32Array(left), new Int32Array(left)];
  const words = new Uint32Array(Math.ceil(bytesOf.length / 32));
  left = 0;
  for (let at = 1; at < found.length; at++) {
    const token = tokens[at] as number;
    const value = token < 0 ? 0 : (found[at] as number);
    if (value > 0) {
      const place = places[value] as number;
      places[value] = place + 1;
      staying[place] = token;
      needed[place] = value;
      words[token >>> 5] = (words[token >>> 5] as number) | (1 << (token & 31));
    } else if (value < 0) {
      leaving[left] = token;
      done[left++] = -value;
    }
  }
  return { staying, needed, words, leaving, done };
}

/**
 * Sets the bits of the tokens that are allowed.
 *
 * @param least how many repetitions must be done before the repetition may be left, the current one included
 * @param most how many there may be
 */
export function addCounted(counted: CountedTokens, least: number, most: number, mask: Uint32Array): void {
  const { staying, needed, leaving } = counted;
  const words = counted.words.slice();
  for (let i = 0; i < staying.length && (needed[i] as number) > most; i++) {
    const token = staying[i] as number;
    words[token >>> 5] = (words[token >>> 5] as number) & ~(1 << (token & 31));
  }
  for (let i = 0; i < words.length; i++) mask[i] = (mask[i] as number) | (words[i] as number);
  leaving.forEach((token, i) => {
    const done = counted.done[i] as number;
    if (done >= least && done <= most) mask[token >>> 5] = (mask[token >>> 5] as number) | (1 << (token & 31));
  });
}
