// Reads texts with a network, byte by byte. What was read so far is a **state**: the set of all nodes in which a reading
// may be, each with the stacks of nodes to return to. States are made once and remember where bytes lead, so that a text
// that is read again, or a part like it, costs a look into a table for each byte.
//
// A set of stacks is kept as a trie from the top down, whose equal parts are one object: so neither recursion nor many
// readings of the same text multiply it. (Tomita's graph-structured stack does the same from the bottom up.)

import { RwkvError } from "../errors.js";
import { maxCallDepth, maxReadings } from "./limits.js";
import type { Network } from "./network.js";
import { endless, type NetworkFacts } from "./network-facts.js";

/** A set of stacks of nodes to return to: for each node on top, the stacks below it. */
export class Stacks {
  /** Different for different sets. */
  readonly id: number;
  /** In ascending order. */
  readonly nodes: readonly number[];
  readonly below: readonly Stacks[];
  /** Whether the empty stack is among them. */
  readonly hasEmpty: boolean;
  /** Whether a stack of which nothing is known is among them. */
  readonly hasUnknown: boolean;
  /** The height of the highest stack, which is far below 0 above an unknown one. */
  readonly height: number;
  /** The state of having returned to one of the stacks; made when it is first wanted. */
  returned: State | undefined;

  constructor(id: number, nodes: readonly number[], below: readonly Stacks[], hasEmpty: boolean, hasUnknown: boolean) {
    this.id = id;
    this.nodes = nodes;
    this.below = below;
    this.hasEmpty = hasEmpty;
    this.hasUnknown = hasUnknown;
    let height = hasEmpty ? 0 : unknownHeight;
    for (const stacks of below) height = Math.max(height, stacks.height + 1);
    this.height = height;
  }
}

/** So low that no limit is reached above it. */
export const unknownHeight = -(2 ** 20);

/** Nodes that read bytes, with their stacks: all that can be known of a text that was read. */
export class State {
  readonly id: number;
  /** In ascending order. */
  readonly nodes: readonly number[];
  readonly stacks: readonly Stacks[];
  /** Whether the text may end here. */
  readonly ends: boolean;
  /** Whether a stack of which nothing is known was returned to. */
  readonly leaves: boolean;
  /** The height, of stacks and of calls that must follow, that was looked at in making the state. */
  readonly reach: number;
  /** Whether no text continues from here, not even by ending. */
  readonly isDead: boolean;
  /** By class of bytes, the state that it leads to; undefined where it was not asked for. */
  readonly next: (State | undefined)[];

  constructor(
    id: number,
    entries: readonly (readonly [number, Stacks])[],
    ends: boolean,
    leaves: boolean,
    reach: number,
    classes: number,
  ) {
    this.id = id;
    this.nodes = entries.map(([node]) => node);
    this.stacks = entries.map(([, stacks]) => stacks);
    this.ends = ends;
    this.leaves = leaves;
    this.reach = reach;
    this.next = new Array<State | undefined>(classes).fill(undefined);
    this.isDead = entries.length === 0 && !ends && !leaves;
  }
}

/** States and stacks that are kept; beyond, all are dropped and made anew when they are needed. */
const maxKept = 30_000;

/** Steps that one byte, or all tokens of one mask, may take. */
const maxWork = 2_000_000;

/** Reads texts with one network. It keeps no text: states are handed out and in. */
export class Machine {
  readonly facts: NetworkFacts;
  /** By byte, its class: bytes that no edge tells apart. */
  readonly classOf: Uint8Array;
  readonly start: State;
  readonly unknown: Stacks;
  readonly #network: Network;
  readonly #classes: number;
  readonly #stacks = new Map<string, Stacks>();
  readonly #states = new Map<string, State>();
  readonly #empty: Stacks;
  /** By node, whether nothing but a return can follow. */
  readonly #isLast: Uint8Array;
  #ids = 0;
  #work = maxWork;

  constructor(facts: NetworkFacts) {
    const { network } = facts;
    this.facts = facts;
    this.#network = network;
    const { classOf, classes } = byteClasses(network);
    this.classOf = classOf;
    this.#classes = classes;
    this.#empty = this.#intern([], [], true, false);
    this.unknown = this.#intern([], [], false, true);
    this.#isLast = lastNodes(network);
    this.start = this.#close([[(network.rules[0] as { start: number }).start, this.#empty]]);
  }

  /** Allows as many steps again as one byte, or one mask, may take. */
  refill(): void {
    this.#work = maxWork;
  }

  /**
   * The state after a further byte.
   *
   * @throws RwkvError when too many steps were taken since `refill`
   */
  step(state: State, byte: number): State {
    const byteClass = this.classOf[byte] as number;
    return state.next[byteClass] ?? this.#makeNext(state, byte, byteClass);
  }

  /** The state after returning to stacks. */
  returnTo(stacks: Stacks): State {
    stacks.returned ??= this.#close([], stacks);
    return stacks.returned;
  }

  /** The state of a node that reads bytes. */
  stateOf(node: number, stacks: Stacks): State {
    return this.#state([[node, stacks]], false, false, stacks.height + this.facts.depthToEnd(node));
  }

  /** The stacks with a node on top of others. */
  push(node: number, below: Stacks): Stacks {
    return this.#intern([node], [below], false, false);
  }

  /** The union of stacks with other nodes on top of them, and others below those. */
  mapStacks(stacks: Stacks, node: (node: number) => number, below: (stacks: Stacks) => Stacks): Stacks {
    let mapped = this.#intern([], [], stacks.hasEmpty, stacks.hasUnknown);
    stacks.nodes.forEach((top, i) => {
      mapped = this.#union(mapped, this.push(node(top), below(stacks.below[i] as Stacks)));
    });
    return mapped;
  }

  /** The one byte that may follow; undefined where others may, or the end. */
  onlyByte({ nodes, ends }: State): number | undefined {
    if (ends) return undefined;
    let only: number | undefined;
    for (const node of nodes) {
      const edges = this.#network.bytes[node] as readonly number[];
      for (let i = 0; i < edges.length; i += 3) {
        const low = edges[i] as number;
        if (low !== edges[i + 1] || (only !== undefined && only !== low)) return undefined;
        only = low;
      }
    }
    return only;
  }

  #makeNext(state: State, byte: number, byteClass: number): State {
    const entries: [number, Stacks][] = [];
    state.nodes.forEach((node, i) => {
      const edges = this.#network.bytes[node] as readonly number[];
      for (let at = 0; at < edges.length; at += 3) {
        if (byte >= (edges[at] as number) && byte <= (edges[at + 1] as number)) {
          entries.push([edges[at + 2] as number, state.stacks[i] as Stacks]);
        }
      }
    });
    const next = this.#close(entries);
    state.next[byteClass] = next;
    return next;
  }

  /** Follows everything that reads no byte: skips, calls and returns. */
  #close(entries: readonly (readonly [number, Stacks])[], returned?: Stacks): State {
    const { calls, skips, final, rules, bytes } = this.#network;
    const { facts } = this;
    const seen = new Map<number, Stacks>();
    const waiting: number[] = [];
    let [ends, leaves, reach] = [false, false, unknownHeight];
    const isWithin = (node: number, { height }: Stacks) => {
      const depth = facts.depthToEnd(node);
      if (depth >= endless) return false;
      reach = Math.max(reach, height + depth);
      return height + depth <= maxCallDepth;
    };
    const add = (node: number, stacks: Stacks) => {
      this.#spend();
      const known = seen.get(node);
      const all = known ? this.#union(known, stacks) : stacks;
      if (all === known || !isWithin(node, stacks)) return;
      seen.set(node, all);
      if (seen.size > maxReadings) throw tooAmbiguous();
      waiting.push(node);
    };
    const goBack = (stacks: Stacks) => {
      ends ||= stacks.hasEmpty;
      leaves ||= stacks.hasUnknown;
      stacks.nodes.forEach((node, i) => {
        const below = stacks.below[i] as Stacks;
        // A repetition that read nothing leads nowhere where none is needed.
        const counter = facts.counterOf(node);
        if (counter && facts.isNullable(counter.base) && node > counter.base && seen.get(node - 1) === below) return;
        add(node, below);
      });
    };
    const call = (start: number, back: number, stacks: Stacks) => {
      if (this.#isLastNode(back)) add(start, stacks);
      else if (isWithin(back, stacks)) add(start, this.push(back, stacks));
    };
    for (const [node, stacks] of entries) add(node, stacks);
    if (returned) goBack(returned);
    for (let node = waiting.pop(); node !== undefined; node = waiting.pop()) {
      const stacks = seen.get(node) as Stacks;
      const counter = facts.counterOf(node);
      if (counter) {
        if (facts.isNullable(node)) goBack(stacks);
        const { base, count, unbounded, body } = counter;
        const next = node - base < count ? node + 1 : node;
        if (next > node || unbounded) call((rules[body] as { start: number }).start, next, stacks);
        continue;
      }
      if (final[node]) goBack(stacks);
      for (const next of skips[node] ?? []) add(next, stacks);
      const called = calls[node] ?? [];
      for (let i = 0; i < called.length; i += 2) {
        call((rules[called[i] as number] as { start: number }).start, called[i + 1] as number, stacks);
      }
    }
    const reading = [...seen].filter(([node]) => node < bytes.length && bytes[node]);
    return this.#state(
      reading.sort(([a], [b]) => a - b),
      ends,
      leaves,
      reach,
    );
  }

  #isLastNode(node: number): boolean {
    const counter = this.facts.counterOf(node);
    return counter ? !counter.unbounded && node === counter.base + counter.count : this.#isLast[node] === 1;
  }

  #state(entries: readonly (readonly [number, Stacks])[], ends: boolean, leaves: boolean, reach: number): State {
    const key = `${entries.map(([node, { id }]) => `${node}:${id}`).join()} ${ends} ${leaves} ${reach}`;
    let state = this.#states.get(key);
    if (!state) {
      if (this.#states.size >= maxKept) this.#forget();
      state = new State(this.#ids++, entries, ends, leaves, reach, this.#classes);
      this.#states.set(key, state);
    }
    return state;
  }

  #intern(nodes: readonly number[], below: readonly Stacks[], hasEmpty: boolean, hasUnknown: boolean): Stacks {
    const key = `${nodes.map((node, i) => `${node}:${below[i]?.id}`).join()} ${hasEmpty} ${hasUnknown}`;
    let stacks = this.#stacks.get(key);
    if (!stacks) {
      if (this.#stacks.size >= maxKept) this.#forget();
      stacks = new Stacks(this.#ids++, nodes, below, hasEmpty, hasUnknown);
      this.#stacks.set(key, stacks);
    }
    return stacks;
  }

  /** Drops what is kept. What someone still holds stays valid. */
  #forget(): void {
    for (const state of this.#states.values()) state.next.fill(undefined);
    for (const stacks of this.#stacks.values()) stacks.returned = undefined;
    this.#states.clear();
    this.#stacks.clear();
  }

  #union(a: Stacks, b: Stacks): Stacks {
    if (a === b) return a;
    this.#spend(a.nodes.length + b.nodes.length);
    const nodes: number[] = [];
    const below: Stacks[] = [];
    for (let i = 0, j = 0; i < a.nodes.length || j < b.nodes.length; ) {
      const left = a.nodes[i] ?? Number.POSITIVE_INFINITY;
      const right = b.nodes[j] ?? Number.POSITIVE_INFINITY;
      nodes.push(Math.min(left, right));
      if (left === right) below.push(this.#union(a.below[i++] as Stacks, b.below[j++] as Stacks));
      else below.push((left < right ? a.below[i++] : b.below[j++]) as Stacks);
    }
    return this.#intern(nodes, below, a.hasEmpty || b.hasEmpty, a.hasUnknown || b.hasUnknown);
  }

  #spend(steps = 1): void {
    this.#work -= steps;
    if (this.#work < 0) throw tooAmbiguous();
  }
}

function tooAmbiguous(): RwkvError {
  return new RwkvError(
    `the grammar is too ambiguous: a text can be read in more than ${maxReadings} ways at a time, or they take too long to follow`,
  );
}

/** Bytes that every edge either has or has not are of one class. */
function byteClasses({ bytes }: Network): { classOf: Uint8Array; classes: number } {
  const begins = new Uint8Array(257);
  for (const edges of bytes) {
    for (let i = 0; edges && i < edges.length; i += 3) {
      begins[edges[i] as number] = 1;
      begins[(edges[i + 1] as number) + 1] = 1;
    }
  }
  const classOf = new Uint8Array(256);
  let classes = 0;
  for (let byte = 0; byte < 256; byte++) {
    if (byte > 0 && begins[byte]) classes++;
    classOf[byte] = classes;
  }
  return { classOf, classes: classes + 1 };
}

/** The nodes from which nothing but the end of their rule can be reached. */
function lastNodes({ nodes, bytes, calls, skips, final }: Network): Uint8Array {
  const last = new Uint8Array(nodes);
  // A skip mostly leads to a node that was made earlier or later by few, so a few rounds find nearly all; one that is
  // not found costs a place on a stack.
  for (let round = 0; round < 4; round++) {
    for (let node = 0; node < nodes; node++) {
      if (last[node] || bytes[node] || calls[node]) continue;
      const next = skips[node] ?? [];
      const canEnd = final[node] || next.length > 0;
      if (canEnd && next.every((other) => last[other] === 1)) last[node] = 1;
    }
  }
  return last;
}
