// Small graphs around the operations of other architectures that mix over time, for the tests of kernels and of gradients.

import type { RowNode } from "#rwkv/graph/graph";
import type { GraphBuilder } from "#rwkv/graph/graph-builder";
import {
  add,
  applyUnary,
  eluPlusOne,
  exp,
  multiply,
  negate,
  reciprocal,
  reluSquared,
  sigmoid,
  squareRoot,
  subtract,
  tanh,
} from "#rwkv/graph/operations/elementwise";
import { constant, vectorRow } from "#rwkv/graph/operations/leaves";
import { attention } from "#rwkv/lab/operations/attention";
import { attentionFree } from "#rwkv/lab/operations/attention-free";
import { elman } from "#rwkv/lab/operations/elman";
import { gru } from "#rwkv/lab/operations/gru";
import { linearAttention } from "#rwkv/lab/operations/linear-attention";
import { addPosition } from "#rwkv/lab/operations/position";

/** Puts an operation on rows of a width. */
export type Build = (g: GraphBuilder, x: RowNode, width: number) => RowNode;

/** A divisor of the width. */
const headsOf = (width: number) => (width % 5 === 0 ? 5 : width % 3 === 0 ? 3 : 1);

/** Functions of elements, alone and in chains, with operands of every shape, and reductions over heads. */
export const elementGraphs: Record<string, Build> = {
  ...Object.fromEntries(
    (["sigmoid", "tanh", "exp", "negate", "oneMinus", "reluSquared", "eluPlusOne"] as const).map(
      (name): [string, Build] => [name, (_, x) => applyUnary(name, x)],
    ),
  ),
  add: (_, x) => add(x, negate(reluSquared(x))),
  subtract: (_, x) => subtract(exp(x), x),
  multiply: (_, x) => multiply(x, x),
  "multiply by a constant": (_, x) => multiply(x, constant(-1.7)),
  squareRoot: (_, x) => squareRoot(exp(x)),
  reciprocal: (_, x) => reciprocal(exp(x)),
  "functions with vectors": (g, x, n) => {
    const bias = vectorRow(g.vector("bias", n));
    const doubled = vectorRow(g.vectorFunction("exp", g.vector("scale", n)));
    return tanh(add(multiply(x, doubled), bias));
  },
  "functions with heads": (g, x, n) => {
    const heads = headsOf(n);
    const gate = sigmoid(g.matmul(g.matrix("gate", heads, n), x));
    const bonus = vectorRow(g.vector("bonus", heads));
    return add(multiply(x, gate), multiply(subtract(x, bonus), constant(0.5)));
  },
  headSum: (g, x, n) => multiply(x, g.headSum(multiply(x, x), headsOf(n))),
  headNorm: (g, x, n) => add(multiply(g.headNorm(x, headsOf(n), 1e-2), vectorRow(g.vector("weight", n))), x),
  headNormalize: (g, x, n) => g.headNormalize(add(x, constant(0.3)), headsOf(n), 1e-12),
  "headNormalize, shorter than epsilon": (g, x, n) => g.headNormalize(x, headsOf(n), 100),
  "values of one chain that several need": (g, x, n) => {
    const a = sigmoid(x);
    const b = multiply(a, x);
    const c = tanh(add(b, a));
    const products = [a, b, c].map((value, i) => g.matmul(g.matrix(`w${i}`, n, n), value));
    return products.reduce((sum, product) => add(sum, product), multiply(c, b));
  },
  "forty functions": (g, x, n) => {
    const bias = vectorRow(g.vector("bias", n));
    let y = x;
    for (let i = 0; i < 10; i++) y = add(multiply(tanh(add(y, bias)), constant(0.9)), x);
    return y;
  },
};

/** The recurrence of RWKV-5 and 6 over `width` channels that are products with x, in heads; decays one for all tokens, or of each. */
export function wkv6OfProducts(
  g: GraphBuilder,
  x: RowNode,
  width: number,
  heads: number,
  decays: "one" | "many",
): RowNode {
  const product = (name: string) => g.matmul(g.matrix(name, width, x.width), x);
  const decay =
    decays === "many" ? sigmoid(product("decay")) : vectorRow(g.vectorFunction("sigmoid", g.vector("decay", width)));
  const rows = { decay, receptance: product("receptance"), key: product("key"), value: product("value") };
  const bonus = vectorRow(g.vector("bonus", width));
  return g.wkv6({ ...rows, bonus }, g.state([heads, width / heads, width / heads], 0));
}

/** The recurrence of RWKV-7 over `width` channels that are products with x, within the limits that a model keeps it in. */
export function wkv7OfProducts(g: GraphBuilder, x: RowNode, width: number, heads: number): RowNode {
  const product = (name: string) => g.matmul(g.matrix(name, width, x.width), x);
  const removal = g.headNormalize(product("removal"), heads, 1e-12);
  const rows = {
    receptance: product("receptance"),
    decay: sigmoid(product("decay")),
    key: product("key"),
    value: product("value"),
    removal,
    replacement: multiply(removal, sigmoid(product("rate"))),
  };
  return g.wkv7(rows, heads, g.state([heads, width / heads, width / heads], 0));
}

export const mixingGraphs: Record<string, Build> = {
  shiftDifference: (g, x, n) => multiply(x, g.shiftDifference(x, g.state(n, 0))),
  wkv6: (g, x, n) => wkv6OfProducts(g, x, n, n % 5 === 0 ? 5 : 1, "many"),
  "wkv6, one decay for all tokens": (g, x, n) => wkv6OfProducts(g, x, n, n % 5 === 0 ? 5 : 1, "one"),
  wkv7: (g, x, n) => wkv7OfProducts(g, x, n, n % 5 === 0 ? 5 : 1),
  addPosition: (g, x, n) => addPosition(g, x, g.matrix("places", 5, n)),
  "aft, bias by position": (g, x, n) => {
    const key = g.matmul(g.matrix("key", n, n), x);
    return attentionFree(g, { key, value: x }, g.matrix("bias", 12, 12), 0);
  },
  "aft, bias by position in a window": (g, x, n) => {
    const key = g.matmul(g.matrix("key", n, n), x);
    return attentionFree(g, { key, value: x }, g.matrix("bias", 12, 3), 0);
  },
  "aft, bias by head in a window": (g, x, n) => {
    const key = g.matmul(g.matrix("key", n, n), x);
    return attentionFree(g, { key, value: x }, g.matrix("bias", headsOf(n), 2), headsOf(n));
  },
  elman: (g, x, n) => elman(g, x, g.matrix("recurrent", n, n)),
  gru: (g, x, n) => {
    const rows = (name: string) => g.matmul(g.matrix(name, n, n), x);
    return gru(g, {
      update: rows("wz"),
      reset: rows("wr"),
      candidate: rows("wn"),
      updateWeight: g.matrix("uz", n, n),
      resetWeight: g.matrix("ur", n, n),
      candidateWeight: g.matrix("un", n, n),
    });
  },
  attention: (g, x, n) => {
    const [query, key] = [g.matmul(g.matrix("query", n, n), x), g.matmul(g.matrix("key", n, n), x)];
    return attention(g, { query, key, value: x }, headsOf(n), 12);
  },
  linearAttention: (g, x, n) => {
    const feature = (name: string) => eluPlusOne(g.matmul(g.matrix(name, n, n), x));
    return linearAttention(g, { query: feature("query"), key: feature("key"), value: x }, headsOf(n));
  },
};

/** Every operation that generating takes, and others that mix over time. */
export const operationGraphs: Record<string, Build> = {
  embedding: (_, x) => x,
  layerNorm: (g, x, n) => g.layerNorm(x, g.vector("weight", n), g.vector("bias", n), 1e-5),
  "matmul to more": (g, x, n) => g.matmul(g.matrix("w", 2 * n + 1, n), x),
  "matmul to one": (g, x, n) => g.matmul(g.matrix("w", 1, n), x),
  "matmul with every epilogue": (g, x, n) => {
    const gate = sigmoid(g.matmul(g.matrix("gate", n, n), x));
    const hidden = reluSquared(g.matmul(g.matrix("hidden", n, n), x));
    return add(x, multiply(gate, g.matmul(g.matrix("out", n, n), hidden)));
  },
  "tokenShift, one to nine factors": (g, x, n) => {
    const factors = (count: number) => Array.from({ length: count }, (_, i) => g.vector(`factor${count}.${i}`, n));
    let sum = x;
    for (const count of [1, 3, 4, 5, 9]) {
      for (const mixed of g.tokenShift(sum, g.state(n, 0.5), factors(count))) sum = add(sum, mixed);
    }
    return sum;
  },
  wkv: (g, x, n) => {
    const state = { numerator: g.state(n, 0), denominator: g.state(n, 0), maxExponent: g.state(n, -1e30) };
    const decay = g.vectorFunction("negate", g.vectorFunction("exp", g.vector("decay", n)));
    const key = g.matmul(g.matrix("key", n, n), x);
    return g.wkv(key, x, decay, g.vector("first", n), state);
  },
  "wkv with a factor": (g, x, n) => {
    const state = { numerator: g.state(n, 0), denominator: g.state(n, 0), maxExponent: g.state(n, -1e30) };
    const gate = sigmoid(x);
    const key = g.matmul(g.matrix("key", n, n), x);
    return multiply(gate, g.wkv(key, x, g.vector("decay", n), g.vector("first", n), state));
  },
  "wkv6, heads of 64": (g, x) => wkv6OfProducts(g, x, 128, 2, "many"),
  "wkv7, heads of 64": (g, x) => wkv7OfProducts(g, x, 128, 2),
  ...mixingGraphs,
  ...elementGraphs,
};
