// Which tokens may follow a state, as a bit for each token.
//
// A token is allowed where reading its bytes leads somewhere. Most of that does not depend on the stack: within a JSON
// string nearly every token is allowed whatever the string stands in, and only tokens that go on after its closing
// quote depend on what it stands in. So the tokens that stay within a rule are found once for each of its nodes, with
// the nodes of the trie at which the rule is left, and from there on the walk is made anew for each state. Where a rule
// can be left everywhere (one character, say), the node is taken together with the one it returns to, and so on.
// XGrammar (arXiv 2411.15100) divides tokens in the same way.

import { addCounted, type CountedPlace, type CountedTokens, countedTokens } from "./counted-tokens.js";
import { maxCallDepth } from "./limits.js";
import { type Machine, type Stacks, type State, unknownHeight } from "./machine.js";
import type { TokenTrie } from "./token-trie.js";

/** The tokens that may follow a node whatever stands below it on the stack. */
interface OwnTokens {
  /** The indices of the words of the mask that are not 0; undefined where the words are the whole mask. */
  readonly indices: readonly number[] | undefined;
  readonly words: Uint32Array;
  /** The nodes of the trie with children at which what stands below is returned to. */
  readonly leaves: readonly number[];
  /** How much higher than what stands below it this reaches. */
  readonly rise: number;
}

/** Nodes of the trie that may be walked anew for each state. */
const maxWalkedAnew = 2048;

/** Nodes of the trie that are walked in advance, which takes some 30 milliseconds. */
const maxWalkedInAdvance = 2_000_000;

/** Bytes that the tokens of nodes, and the masks of states, may take each; beyond, they are dropped. */
const maxBytes = 32 * 2 ** 20;

/** Finds the tokens that may follow a state. */
export class TokenMasks {
  readonly #machine: Machine;
  readonly #trie: TokenTrie;
  readonly #words: number;
  /** The states on the way to a node of the trie, by depth. */
  readonly #path: State[];
  /** By state of one node: its own tokens; undefined where too much depends on what stands below. */
  readonly #own = new Map<State, OwnTokens | undefined>();
  /** By state of one node within a repetition, and how high above the counter it stands: its tokens, for all counts. */
  readonly #counted = new Map<string, CountedTokens | "unclear" | "leaky">();
  #ownBytes = 0;
  readonly #masks = new Map<State, Uint32Array>();
  readonly #similar = new WeakMap<Stacks, Stacks>();
  /** The number of nodes of the trie that were walked. */
  #walked = 0;

  /** @param vocabulary the number of ids of the model */
  constructor(machine: Machine, trie: TokenTrie, vocabulary: number) {
    this.#machine = machine;
    this.#trie = trie;
    this.#words = Math.ceil(vocabulary / 32);
    this.#path = new Array<State>(trie.maxDepth + 1).fill(machine.start);
  }

  /** The mask of the tokens that may follow a state. It must not be changed. @throws RwkvError as `Machine.step` */
  maskOf(state: State): Uint32Array {
    let mask = this.#masks.get(state);
    if (mask) return mask;
    mask = new Uint32Array(this.#words);
    this.#machine.refill();
    state.nodes.forEach((node, i) => {
      this.#addTokens(node, state.stacks[i] as Stacks, mask as Uint32Array);
    });
    for (const [token, other] of this.#trie.duplicates) {
      if (((mask[token >>> 5] as number) >>> (token & 31)) & 1) setBit(mask, other);
    }
    if (this.#masks.size * mask.byteLength >= maxBytes) this.#masks.clear();
    this.#masks.set(state, mask);
    return mask;
  }

  /** Finds tokens of nodes in advance, within a limit, so that a generation need not wait for them. A step takes a few milliseconds. */
  *prepare(): Generator<void, void, void> {
    const machine = this.#machine;
    const { nodes, bytes, calls, rules } = machine.facts.network;
    machine.refill();
    for (let node = 0; node < nodes && this.#walked < maxWalkedInAdvance; node++) {
      if (!bytes[node]) continue;
      this.#ownTokens(machine.stateOf(node, machine.unknown));
      yield;
    }
    for (let node = 0; node < nodes && this.#walked < maxWalkedInAdvance; node++) {
      const called = calls[node] ?? [];
      const counts = called.some((rule, i) => i % 2 === 0 && (rules[rule] as { start: number }).start >= nodes);
      if (!counts) continue;
      const { nodes: first, stacks } = machine.returnTo(machine.push(node, machine.unknown));
      for (const [i, other] of first.entries()) {
        const below = stacks[i] as Stacks;
        if (below === machine.unknown) continue;
        this.#addTokens(other, below, new Uint32Array(this.#words));
        yield;
      }
    }
  }

  #addTokens(node: number, stacks: Stacks, mask: Uint32Array): void {
    const machine = this.#machine;
    /** The nodes that are taken together with the node, from the top of the stack down. */
    const taken: number[] = [];
    for (let below = stacks; ; below = below.below[0] as Stacks) {
      const top = taken.reduceRight((stack, back) => machine.push(back, stack), machine.unknown);
      const own = this.#ownTokens(machine.stateOf(node, top));
      if (own && own.rise + below.height <= maxCallDepth) {
        addWords(own, mask);
        if (own.leaves.length > 0) {
          const returned = machine.returnTo(below);
          for (const leaf of own.leaves) this.#walk(leaf, returned, mask, undefined);
        }
        return;
      }
      if (own || below.hasEmpty || below.nodes.length !== 1) break;
      if (this.#addCounted(node, taken, below, mask)) return;
      taken.push(this.#similarNode(below.nodes[0] as number));
    }
    // There are always such tokens, unless unknown stacks were given, in advance.
    const whole = this.#ownTokens(machine.stateOf(node, this.#similarStacks(stacks)));
    if (whole) addWords(whole, mask);
  }

  /** Adds the tokens of a node that stands within a counted repetition. @returns whether that was possible */
  #addCounted(node: number, taken: readonly number[], below: Stacks, mask: Uint32Array): boolean {
    const machine = this.#machine;
    const counter = machine.facts.counterOf(below.nodes[0] as number);
    if (!counter) return false;
    const backs: number[] = [];
    for (let left = below.below[0] as Stacks; ; left = left.below[0] as Stacks) {
      const isBottom = left.hasEmpty && left.nodes.length === 0;
      const bottom = isBottom ? left : machine.unknown;
      const counted = this.#countedTokens({ node, taken, counter, backs: [...backs], bottom });
      if (typeof counted === "object" && counted.rise + left.height <= maxCallDepth) {
        const done = (below.nodes[0] as number) - counter.base;
        const least = counter.min - done + 1;
        const most = counter.unbounded ? Number.POSITIVE_INFINITY : counter.count - done + 1;
        addCounted(counted, least, most, mask);
        const leaves = counted.leaves.filter((leaf) => leaf.done >= least && leaf.done <= most);
        if (leaves.length > 0) {
          const returned = machine.returnTo(left);
          for (const leaf of leaves) this.#walk(leaf.node, returned, mask, undefined);
        }
        return true;
      }
      if (counted !== "leaky" || left.hasEmpty || left.nodes.length !== 1) return false;
      backs.push(this.#similarNode(left.nodes[0] as number));
    }
  }

  #countedTokens(place: CountedPlace): CountedTokens | "unclear" | "leaky" {
    const machine = this.#machine;
    const { node, taken, counter, backs, bottom } = place;
    const stacks = [...taken, counter.base, ...backs].reduceRight((top, other) => machine.push(other, top), bottom);
    const key = `${machine.stateOf(node, stacks).id} ${taken.length}`;
    const known = this.#counted.get(key);
    if (known) return known;
    const counted = countedTokens(machine, this.#trie, place, maxWalkedAnew);
    this.#walked += this.#trie.bytes.length;
    this.#spend(
      typeof counted === "object"
        ? counted.staying.length * 6 + counted.words.byteLength + counted.leaves.length * 32
        : 0,
    );
    this.#counted.set(key, counted);
    return counted;
  }

  /** Counts what is kept, and drops it when it is too much. */
  #spend(bytes: number): void {
    this.#ownBytes += bytes + 256;
    if (this.#ownBytes <= maxBytes) return;
    this.#own.clear();
    this.#counted.clear();
    this.#ownBytes = 0;
  }

  #ownTokens(state: State): OwnTokens | undefined {
    if (this.#own.has(state)) return this.#own.get(state);
    const words = new Uint32Array(this.#words);
    const leaves: number[] = [];
    const rise = this.#walk(0, state, words, leaves);
    let own: OwnTokens | undefined;
    if (rise !== undefined) {
      const indices: number[] = [];
      words.forEach((word, i) => {
        if (word !== 0) indices.push(i);
      });
      own =
        indices.length > words.length / 4
          ? { indices: undefined, words, leaves, rise }
          : { indices, words: Uint32Array.from(indices, (i) => words[i] as number), leaves, rise };
    }
    this.#spend(own ? own.words.byteLength * (own.indices ? 3 : 1) + leaves.length * 8 : 0);
    this.#own.set(state, own);
    return own;
  }

  /**
   * Sets the bits of the tokens below a node of the trie that lead from a state to another.
   *
   * @param leaves where the nodes at which the state's rule is left are put
   * @returns how much higher than what is unknown the stacks may reach; undefined when there are too many leaves
   */
  #walk(root: number, start: State, words: Uint32Array, leaves: number[] | undefined): number | undefined {
    const { bytes, depths, ends, tokens } = this.#trie;
    const machine = this.#machine;
    const path = this.#path;
    const end = ends[root] as number;
    let [rise, below] = [0, 0];
    path[depths[root] as number] = start;
    for (let node = root + 1; node < end; ) {
      this.#walked++;
      const depth = depths[node] as number;
      const state = machine.step(path[depth - 1] as State, bytes[node] as number);
      if (state.isDead) {
        node = ends[node] as number;
        continue;
      }
      path[depth] = state;
      const token = tokens[node] as number;
      if (token >= 0) setBit(words, token);
      if (leaves) {
        rise = Math.max(rise, state.reach - unknownHeight);
        const descendants = (ends[node] as number) - node - 1;
        if (state.leaves && descendants > 0) {
          leaves.push(node);
          below += descendants;
          if (below > maxWalkedAnew) return undefined;
        }
      }
      node++;
    }
    return rise;
  }

  /** Stacks that allow the same next token: counts are put where they are as far from their limits as matters. */
  #similarStacks(stacks: Stacks): Stacks {
    if (this.#machine.facts.network.counters.length === 0) return stacks;
    let similar = this.#similar.get(stacks);
    if (!similar) {
      similar = this.#machine.mapStacks(
        stacks,
        (node) => this.#similarNode(node),
        (below) => this.#similarStacks(below),
      );
      this.#similar.set(stacks, similar);
    }
    return similar;
  }

  #similarNode(node: number): number {
    const { facts } = this.#machine;
    const counter = facts.counterOf(node);
    if (!counter) return node;
    const far = this.#trie.maxDepth + 1; // a token has no more repetitions, so what is farther away does not matter
    const { base, count, unbounded } = counter;
    const min = facts.isNullable(base) ? 0 : counter.min;
    const done = node - base;
    if (!unbounded && count - done < far) return node;
    if (done < min) return min - done < far ? node : base + min - far;
    return unbounded ? node : base + Math.max(min, count - far);
  }
}

function addWords({ indices, words }: OwnTokens, mask: Uint32Array): void {
  if (indices) {
    for (let i = 0; i < indices.length; i++) {
      const index = indices[i] as number;
      mask[index] = (mask[index] as number) | (words[i] as number);
    }
  } else for (let i = 0; i < words.length; i++) mask[i] = (mask[i] as number) | (words[i] as number);
}

function setBit(words: Uint32Array, index: number): void {
  words[index >>> 5] = (words[index >>> 5] as number) | (1 << (index & 31));
}
