// What is found out about a network before it reads anything: which nodes can be left without reading, how deep the
// shortest way to the end of a rule goes, and whether a rule would call itself for ever.

import { Found, OptionError } from "../errors.js";
import type { Counter, Network } from "./network.js";

/** A depth that no text has: of nodes from which no way leads to the end of their rule. */
export const endless = 2 ** 28;

/** Facts about the nodes of a network. */
export class NetworkFacts {
  readonly network: Network;
  readonly #nullable: Uint8Array;
  readonly #depths: Int32Array;

  constructor(network: Network) {
    this.network = network;
    // One entry for each node, and behind them one for each counter.
    const size = network.nodes + network.counters.length;
    this.#nullable = new Uint8Array(size);
    this.#depths = new Int32Array(size).fill(endless);
    const dependents = this.#findDependents();
    this.#findDepths(dependents);
    this.#findNullable(dependents);
  }

  /** The counter that a node belongs to, if it counts. */
  counterOf(node: number): Counter | undefined {
    const { counters, nodes } = this.network;
    return node < nodes ? undefined : counters[this.#counterIndex(node)];
  }

  /**
   * How many calls deep the way from a node to the end of its rule must go, at least; `endless` where there is no way.
   */
  depthToEnd(node: number): number {
    if (node < this.network.nodes) return this.#depths[node] as number;
    const index = this.#counterIndex(node);
    const { base, min } = this.network.counters[index] as Counter;
    return node - base >= this.#leastRepetitions(index, min) ? 0 : (this.#depths[this.network.nodes + index] as number);
  }

  /** Whether a node leads to the end of its rule without reading anything. */
  isNullable(node: number): boolean {
    if (node < this.network.nodes) return this.#nullable[node] === 1;
    const index = this.#counterIndex(node);
    const { base, min } = this.network.counters[index] as Counter;
    return node - base >= this.#leastRepetitions(index, min);
  }

  /** The repetitions that must be read: none where the body may be empty. */
  #leastRepetitions(index: number, min: number): number {
    return this.#nullable[this.network.nodes + index] === 1 ? 0 : min;
  }

  #counterIndex(node: number): number {
    const { counters } = this.network;
    let low = 0;
    for (let high = counters.length; high - low > 1; ) {
      const middle = (low + high) >> 1;
      if ((counters[middle] as Counter).base <= node) low = middle;
      else high = middle;
    }
    return low;
  }

  /** The index of a node in the arrays here; all nodes of a counter that must still count are one. */
  #indexOf(node: number): number {
    return node < this.network.nodes ? node : this.network.nodes + this.#counterIndex(node);
  }

  /** @throws OptionError for a rule that begins with itself, or that no text can end */
  check(option: string): void {
    const { rules } = this.network;
    rules.forEach(({ name, start }, i) => {
      if (i > 0 && name === undefined) return;
      if (this.depthToEnd(start) < endless) return;
      const what =
        name === undefined ? "one that no text can follow to its end" : `rule ${name}, which no text can end`;
      throw new OptionError(option, new Found(what), "a grammar that texts can follow to its end");
    });
    const recursive = this.#leftRecursiveRule();
    if (recursive !== undefined) {
      throw new OptionError(
        option,
        new Found(`rule ${recursive}, which begins with itself`),
        "rules without left recursion (x ::= y y*, not x ::= x y | y)",
      );
    }
  }

  /** By index of a node, the indices of those of which it may decide what is true of them. */
  #findDependents(): readonly (readonly number[])[] {
    const { nodes, bytes, calls, skips, rules, counters } = this.network;
    const before: number[][] = Array.from({ length: nodes + counters.length }, () => []);
    const depend = (on: number, node: number) => before[this.#indexOf(on)]?.push(node);
    for (let node = 0; node < nodes; node++) {
      const edges = bytes[node] ?? [];
      for (let i = 2; i < edges.length; i += 3) depend(edges[i] as number, node);
      for (const next of skips[node] ?? []) depend(next, node);
      const called = calls[node] ?? [];
      for (let i = 0; i < called.length; i += 2) {
        depend((rules[called[i] as number] as { start: number }).start, node);
        depend(called[i + 1] as number, node);
      }
    }
    counters.forEach(({ body }, i) => {
      depend((rules[body] as { start: number }).start, nodes + i);
    });
    return before;
  }

  /** Goes from what is known backwards to what depends on it, until nothing changes. */
  #spread(
    before: readonly (readonly number[])[],
    begin: (node: number) => boolean,
    update: (node: number) => boolean,
  ): void {
    const waiting: number[] = [];
    for (let node = 0; node < before.length; node++) if (begin(node)) waiting.push(node);
    for (let node = waiting.pop(); node !== undefined; node = waiting.pop()) {
      for (const other of before[node] as readonly number[]) if (update(other)) waiting.push(other);
    }
  }

  #findDepths(dependents: readonly (readonly number[])[]): void {
    const { nodes, bytes, calls, skips, final, rules, counters } = this.network;
    const depths = this.#depths;
    const depthOf = (node: number) => depths[this.#indexOf(node)] as number;
    const callDepth = (rule: number) => 1 + depthOf((rules[rule] as { start: number }).start);
    const lower = (index: number, depth: number) => {
      if (depth >= (depths[index] as number)) return false;
      depths[index] = depth;
      return true;
    };
    this.#spread(
      dependents,
      (index) =>
        lower(index, index < nodes ? (final[index] ? 0 : endless) : counters[index - nodes]?.min === 0 ? 0 : endless),
      (index) => {
        if (index >= nodes) return lower(index, callDepth((counters[index - nodes] as Counter).body));
        let depth = endless;
        const edges = bytes[index] ?? [];
        for (let i = 2; i < edges.length; i += 3) depth = Math.min(depth, depthOf(edges[i] as number));
        for (const next of skips[index] ?? []) depth = Math.min(depth, depthOf(next));
        const called = calls[index] ?? [];
        for (let i = 0; i < called.length; i += 2) {
          depth = Math.min(depth, Math.max(callDepth(called[i] as number), depthOf(called[i + 1] as number)));
        }
        return lower(index, depth);
      },
    );
  }

  #findNullable(dependents: readonly (readonly number[])[]): void {
    const { nodes, calls, skips, final, rules, counters } = this.network;
    const nullable = this.#nullable;
    const is = (node: number) => nullable[this.#indexOf(node)] === 1;
    const set = (index: number, value: boolean) => {
      if (!value || nullable[index] === 1) return false;
      nullable[index] = 1;
      return true;
    };
    const startOf = (rule: number) => (rules[rule] as { start: number }).start;
    this.#spread(
      dependents,
      (index) => set(index, index < nodes ? (final[index] as boolean) : counters[index - nodes]?.min === 0),
      (index) => {
        if (index >= nodes) return set(index, is(startOf((counters[index - nodes] as Counter).body)));
        const called = calls[index] ?? [];
        let found = (skips[index] ?? []).some(is);
        for (let i = 0; !found && i < called.length; i += 2) {
          found = is(startOf(called[i] as number)) && is(called[i + 1] as number);
        }
        return set(index, found);
      },
    );
  }

  /** The name of a rule that calls itself before it has read anything; undefined where there is none. */
  #leftRecursiveRule(): string | undefined {
    const { rules } = this.network;
    const state = new Uint8Array(rules.length); // 1: its calls are being followed, 2: done
    for (let first = 0; first < rules.length; first++) {
      if (state[first] !== 0) continue;
      const path: { rule: number; next: number[] }[] = [{ rule: first, next: this.#firstCalls(first) }];
      state[first] = 1;
      for (let top = path.at(-1); top; top = path.at(-1)) {
        const rule = top.next.pop();
        if (rule === undefined) {
          state[top.rule] = 2;
          path.pop();
        } else if (state[rule] === 1) {
          const circle = path.slice(path.findIndex((entry) => entry.rule === rule));
          const named = circle.find((entry) => rules[entry.rule]?.name !== undefined);
          return (named && rules[named.rule]?.name) ?? "of the whole grammar";
        } else if (state[rule] === 0) {
          state[rule] = 1;
          path.push({ rule, next: this.#firstCalls(rule) });
        }
      }
    }
    return undefined;
  }

  /** The rules that a rule may call before it has read anything. */
  #firstCalls(rule: number): number[] {
    const { nodes, rules, calls, skips } = this.network;
    const found = new Set<number>();
    const seen = new Set<number>();
    const waiting = [(rules[rule] as { start: number }).start];
    for (let node = waiting.pop(); node !== undefined; node = waiting.pop()) {
      if (seen.has(node)) continue;
      seen.add(node);
      if (node >= nodes) {
        found.add((this.counterOf(node) as Counter).body);
        continue;
      }
      waiting.push(...(skips[node] ?? []));
      const called = calls[node] ?? [];
      for (let i = 0; i < called.length; i += 2) {
        const other = called[i] as number;
        found.add(other);
        if (this.isNullable((rules[other] as { start: number }).start)) waiting.push(called[i + 1] as number);
      }
    }
    return [...found];
  }
}
