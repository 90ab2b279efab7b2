// A grammar as nodes and edges: for each rule an automaton over bytes, in which an edge may also call a rule. Reading a
// text with it takes a stack of the nodes to return to (`machine.ts`).
//
// A body that is repeated many times is not copied: its repetitions are **counting nodes**, whose ids begin behind those
// of the others and say how often the body was read. So {1000}, and {1000} of {1000}, take no more nodes than one.

import { Found, OptionError } from "../errors.js";
import type { Expression, Rule } from "./expressions.js";
import { maxNesting, maxNodes } from "./limits.js";
import { utf8Sequences } from "./utf8.js";

/** Counting nodes: `base + k` is the node after k repetitions, up to `base + count`. */
export interface Counter {
  readonly base: number;
  readonly count: number;
  readonly min: number;
  /** Whether the body may be read any number of times after `min`. */
  readonly unbounded: boolean;
  /** The number of the rule that is repeated. */
  readonly body: number;
}

/** The nodes of all rules. */
export interface Network {
  /** The number of nodes that do not count. */
  readonly nodes: number;
  /** By node: low and high of a range of bytes, and the node it leads to, one edge after the other. */
  readonly bytes: readonly (readonly number[] | undefined)[];
  /** By node: the number of a rule and the node to return to, one call after the other. */
  readonly calls: readonly (readonly number[] | undefined)[];
  /** By node: nodes that are reached without reading anything. */
  readonly skips: readonly (readonly number[] | undefined)[];
  /** By node: whether its rule may end here. */
  readonly final: readonly boolean[];
  /** By rule: the node in which it begins, and its name where it has one. */
  readonly rules: readonly { readonly start: number; readonly name: string | undefined }[];
  readonly counters: readonly Counter[];
}

/** How deeply expressions may be nested: what is nested in a source makes a few levels here. */
const maxDepth = 5 * maxNesting;

/** Bodies are copied instead of counted while the copies have fewer nodes than this. */
const maxCopiedNodes = 64;

/**
 * Turns an expression, with all rules that it refers to, into a network. Rule 0 is the expression.
 *
 * @param option what the expression is called in errors
 * @throws OptionError for an expression that is nested too deeply or needs too many nodes
 */
export function buildNetwork(expression: Expression, option: string): Network {
  return new NetworkBuilder(option).build(expression);
}

/** A trie of texts: bytes to nodes. */
interface TextNode {
  readonly next: Map<number, TextNode>;
  ends: boolean;
}

class NetworkBuilder {
  readonly #option: string;
  readonly #bytes: (number[] | undefined)[] = [];
  readonly #calls: (number[] | undefined)[] = [];
  readonly #skips: (number[] | undefined)[] = [];
  readonly #final: boolean[] = [];
  readonly #rules: { start: number; name: string | undefined }[] = [];
  readonly #ruleNumbers = new Map<Rule, number>();
  readonly #unbuilt: { start: number; body: Expression }[] = [];
  readonly #counted: { rule: number; min: number; max: number; body: number }[] = [];
  readonly #encoder = new TextEncoder();
  #depth = 0;

  constructor(option: string) {
    this.#option = option;
  }

  build(expression: Expression): Network {
    this.#addRule(undefined, expression);
    for (let rule = this.#unbuilt.pop(); rule; rule = this.#unbuilt.pop()) {
      const end = this.#node();
      this.#final[end] = true;
      this.#connect(rule.body, rule.start, end);
    }
    let base = this.#final.length;
    const counters = this.#counted.map(({ rule, min, max, body }): Counter => {
      const unbounded = max === Number.POSITIVE_INFINITY;
      const counter = { base, count: unbounded ? min : max, min, unbounded, body };
      (this.#rules[rule] as { start: number }).start = base;
      base += counter.count + 1;
      return counter;
    });
    return {
      nodes: this.#final.length,
      bytes: this.#bytes,
      calls: this.#calls,
      skips: this.#skips,
      final: this.#final,
      rules: this.#rules,
      counters,
    };
  }

  #node(): number {
    if (this.#final.length >= maxNodes) {
      throw new OptionError(this.#option, new Found("a larger one"), `a grammar of at most ${maxNodes} nodes`);
    }
    this.#bytes.push(undefined);
    this.#calls.push(undefined);
    this.#skips.push(undefined);
    return this.#final.push(false) - 1;
  }

  #addRule(name: string | undefined, body: Expression): number {
    const start = this.#node();
    this.#unbuilt.push({ start, body });
    return this.#rules.push({ start, name }) - 1;
  }

  #addByte(from: number, low: number, high: number, to: number): void {
    addTo(this.#bytes, from, low, high, to);
  }

  #addSkip(from: number, to: number): void {
    addTo(this.#skips, from, to);
  }

  #addCall(from: number, rule: number, to: number): void {
    addTo(this.#calls, from, rule, to);
  }

  /** Adds what leads from one node to another by reading the expression: edges out of `from` and into `to` only. */
  #connect(expression: Expression, from: number, to: number): void {
    if (++this.#depth > maxDepth) {
      throw new OptionError(this.#option, new Found("more"), `parts that are nested at most ${maxDepth} times`);
    }
    switch (expression.kind) {
      case "characters":
        this.#connectCharacters(expression, from, to);
        break;
      case "texts":
        this.#connectTexts(expression.texts, from, to);
        break;
      case "sequence": {
        let at = from;
        expression.parts.forEach((part, i) => {
          const next = i === expression.parts.length - 1 ? to : this.#node();
          this.#connect(part, at, next);
          at = next;
        });
        if (expression.parts.length === 0) this.#addSkip(from, to);
        break;
      }
      case "alternatives":
        for (const part of expression.parts) this.#connect(part, from, to);
        break;
      case "repeat":
        this.#connectRepeat(expression, from, to);
        break;
      case "graph":
        this.#connectGraph(expression, from, to);
        break;
      case "rule": {
        const { rule } = expression;
        let number = this.#ruleNumbers.get(rule);
        if (number === undefined) {
          number = this.#addRule(rule.name, rule.body);
          this.#ruleNumbers.set(rule, number);
        }
        this.#addCall(from, number, to);
      }
    }
    this.#depth--;
  }

  #connectCharacters({ ranges }: Expression & { kind: "characters" }, from: number, to: number): void {
    // What follows the first byte is the same for many first bytes, so it is made once.
    const rest = new Map<string, number>();
    const nodeBefore = (bytes: readonly (readonly [number, number])[]): number => {
      if (bytes.length === 0) return to;
      const key = bytes.join();
      let node = rest.get(key);
      if (node === undefined) {
        node = this.#node();
        rest.set(key, node);
        const [[low, high], ...more] = bytes as [readonly [number, number]];
        this.#addByte(node, low, high, nodeBefore(more));
      }
      return node;
    };
    for (const range of ranges) {
      for (const [[low, high], ...more] of utf8Sequences(range) as [readonly [number, number]][]) {
        this.#addByte(from, low, high, nodeBefore(more));
      }
    }
  }

  #connectTexts(texts: readonly string[], from: number, to: number): void {
    const root: TextNode = { next: new Map(), ends: false };
    for (const text of texts) {
      let node = root;
      for (const byte of this.#encoder.encode(text)) {
        let next = node.next.get(byte);
        if (!next) {
          next = { next: new Map(), ends: false };
          node.next.set(byte, next);
        }
        node = next;
      }
      node.ends = true;
    }
    const waiting: [TextNode, number][] = [[root, from]];
    if (root.ends) this.#addSkip(from, to);
    for (let item = waiting.pop(); item; item = waiting.pop()) {
      const [{ next }, at] = item;
      for (const [byte, child] of next) {
        if (child.ends) this.#addByte(at, byte, byte, to);
        if (child.next.size === 0) continue;
        const node = this.#node();
        this.#addByte(at, byte, byte, node);
        waiting.push([child, node]);
      }
    }
  }

  #connectRepeat({ body, min, max }: Expression & { kind: "repeat" }, from: number, to: number): void {
    if (max === 0) return this.#addSkip(from, to);
    const copies = max === Number.POSITIVE_INFINITY ? min + 1 : max;
    if (copies > 2 && copies * sizeOf(body, maxCopiedNodes) > maxCopiedNodes) {
      const bodyRule = this.#addRule(undefined, body);
      const rule = this.#rules.push({ start: -1, name: undefined }) - 1;
      this.#counted.push({ rule, min, max, body: bodyRule });
      return this.#addCall(from, rule, to);
    }
    let at = from;
    for (let i = 0; i < min; i++) {
      const next = i === max - 1 ? to : this.#node();
      this.#connect(body, at, next);
      at = next;
    }
    if (max === Number.POSITIVE_INFINITY) {
      const loop = this.#node();
      this.#addSkip(at, loop);
      this.#connect(body, loop, loop);
      return this.#addSkip(loop, to);
    }
    for (let i = min; i < max; i++) {
      this.#addSkip(at, to);
      const next = i === max - 1 ? to : this.#node();
      this.#connect(body, at, next);
      at = next;
    }
  }

  #connectGraph({ nodes, edges, final }: Expression & { kind: "graph" }, from: number, to: number): void {
    const own = Array.from({ length: nodes }, () => this.#node());
    this.#addSkip(from, own[0] as number);
    for (const { from: start, to: end, reads } of edges) {
      const [first, last] = [own[start] as number, own[end] as number];
      if (!reads) this.#addSkip(first, last);
      else if (reads.kind === "byte") this.#addByte(first, reads.low, reads.high, last);
      else this.#connect(reads, first, last);
    }
    for (const node of final) this.#addSkip(own[node] as number, to);
  }
}

/** Adds numbers to those of a node. */
function addTo(lists: (number[] | undefined)[], node: number, ...numbers: number[]): void {
  const list = lists[node];
  if (list) list.push(...numbers);
  else lists[node] = numbers;
}

/** Roughly the number of nodes that an expression takes; counting ends beyond `most`. */
function sizeOf(expression: Expression, most: number): number {
  if (most <= 0) return 1;
  switch (expression.kind) {
    case "characters":
      return 1 + Math.min(most, (expression.ranges.at(-1)?.[1] ?? 0) / 16);
    case "texts":
      return expression.texts.reduce((sum, text) => (sum > most ? sum : sum + text.length), 1);
    case "sequence":
    case "alternatives":
      return expression.parts.reduce((sum, part) => (sum > most ? sum : sum + sizeOf(part, most - 1)), 1);
    case "repeat": {
      const copies = expression.max === Number.POSITIVE_INFINITY ? expression.min + 1 : expression.max;
      return copies * sizeOf(expression.body, most - 1);
    }
    case "graph":
      return expression.nodes + expression.edges.length;
    case "rule":
      return 1;
  }
}
