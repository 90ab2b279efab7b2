// The wkv recurrence in its numerically safe form, arXiv 2305.13048v2, appendix D: all exponentials are relative to the
// largest exponent so far, so none exceeds 1 whatever the keys.

import { type RowNode, shapeOf } from "../graph.js";
import { operation } from "../operation.js";
import { addAt, zeros } from "../rows.js";
import { requireLength, requireState, requireTokens, requireWidth } from "./checks.js";
import { segmentSums } from "./sums.js";

/** The parts of a gradient's totals, in their order. */
const parts = ["decay", "first", "numerator", "denominator", "maxExponent"] as const;

/** The weighted average of values over time; see docs/model.md. Leaves sums and exponents in the state. */
export const wkv = operation({
  name: "wkv",
  inputs: ["key", "value"],
  vectors: ["decay", "first"],
  states: ["numerator", "denominator", "maxExponent"],
  outputs: ["result"],
  sharedBy: "channels",
  epilogue: { activations: [], multiplier: true, addend: false },
  shape({ key, value, decay, first, numerator, denominator, maxExponent }) {
    requireLength("wkv", key.width, decay, first);
    requireTokens("wkv", key, value);
    requireWidth("wkv", key, value);
    requireState("wkv", key.width, numerator, denominator, maxExponent);
    return { result: key };
  },
  reference(operands, { ranges }) {
    const { key, value, decay, first } = operands;
    const out = zeros(key.rows, key.width, key.values);
    for (const { start, count, state, nextState } of ranges) {
      for (let c = 0; c < key.width; c++) {
        let numerator = state[operands.numerator + c] as number;
        let denominator = state[operands.denominator + c] as number;
        let maxExponent = state[operands.maxExponent + c] as number;
        const w = decay[c] as number;
        const u = first[c] as number;
        for (let t = start; t < start + count; t++) {
          const k = key.values[t * key.width + c] as number;
          const v = value.values[t * key.width + c] as number;

          let q = Math.max(maxExponent, u + k);
          const past = Math.exp(maxExponent - q);
          const present = Math.exp(u + k - q);
          out.values[t * key.width + c] = (past * numerator + present * v) / (past * denominator + present);

          q = Math.max(maxExponent + w, k);
          const decayed = Math.exp(maxExponent + w - q);
          const added = Math.exp(k - q);
          numerator = decayed * numerator + added * v;
          denominator = decayed * denominator + added;
          maxExponent = q;
        }
        nextState[operands.numerator + c] = numerator;
        nextState[operands.denominator + c] = denominator;
        nextState[operands.maxExponent + c] = maxExponent;
      }
    }
    return { result: out };
  },
  gradient({ operands, gradients }, context) {
    const { key, value, decay, first, numerator, denominator, maxExponent } = operands;
    const { width } = key;
    const gradient = gradients.result as RowNode;
    const inputs = { key: context.value(key), value: context.value(value), gradient };
    const outputs = wkvGradient.apply({ ...operands, ...inputs });
    const total = (name: (typeof parts)[number]) => () =>
      segmentSums.apply({ x: outputs.totals, part: parts.indexOf(name), width }).result;
    context.addVector(decay, total("decay"));
    context.addVector(first, total("first"));
    context.addState(numerator, total("numerator"));
    context.addState(denominator, total("denominator"));
    context.addState(maxExponent, total("maxExponent"));
    context.add(key, () => outputs.key);
    context.add(value, () => outputs.value);
  },
});

/**
 * The gradients of wkv. With numerator and denominator before token t as A[t] = e^w A[t-1] + e^k[t-1] v[t-1] and B[t] likewise,
 * wkv[t] = (A[t] + e^(u + k[t]) v[t]) / (B[t] + e^(u + k[t])). Sums are relative to e^(largest exponent), as in `wkv`; so are
 * the gradients of A and B, whose exponents are those of 1 / denominator. `totals` has in the first row of each sequence what it
 * gives for decay, first, and the numerator, denominator and maxExponent that it began with.
 */
const wkvGradient = operation({
  name: "wkvGradient",
  inputs: ["key", "value", "gradient"],
  vectors: ["decay", "first"],
  states: ["numerator", "denominator", "maxExponent"],
  outputs: ["key", "value", "totals"],
  alwaysWritten: ["totals"],
  shape: ({ key }) => ({ key, value: key, totals: shapeOf("tokens", parts.length * key.width) }),
  reference(operands, { ranges }) {
    const { key, value, decay, first, gradient } = operands;
    const { width } = key;
    const result = {
      key: zeros(key.rows, width, key.values),
      value: zeros(key.rows, width, key.values),
      totals: zeros(key.rows, parts.length * width, key.values),
    };
    for (const { start, count, state } of ranges) {
      const add = (part: (typeof parts)[number], c: number, amount: number) => {
        addAt(result.totals.values, (start * parts.length + parts.indexOf(part)) * width + c, amount);
      };
      for (let c = 0; c < width; c++) {
        const w = decay[c] as number;
        const u = first[c] as number;
        const initial = {
          numerator: state[operands.numerator + c] as number,
          denominator: state[operands.denominator + c] as number,
          exponent: state[operands.maxExponent + c] as number,
        };
        const before = [initial];
        for (let t = start; t < start + count - 1; t++) {
          const { numerator, denominator, exponent } = before[t - start] as typeof initial;
          const k = key.values[t * width + c] as number;
          const v = value.values[t * width + c] as number;
          const q = Math.max(exponent + w, k);
          before.push({
            numerator: Math.exp(exponent + w - q) * numerator + Math.exp(k - q) * v,
            denominator: Math.exp(exponent + w - q) * denominator + Math.exp(k - q),
            exponent: q,
          });
        }
        let dnumerator = 0;
        let ddenominator = 0;
        let dexponent = -1e30;
        for (let t = start + count - 1; t >= start; t--) {
          const at = t * width + c;
          const { numerator, denominator, exponent } = before[t - start] as typeof initial;
          const k = key.values[at] as number;
          const v = value.values[at] as number;
          const q = Math.max(exponent, u + k);
          const past = Math.exp(exponent - q);
          const present = Math.exp(u + k - q);
          const average = (past * numerator + present * v) / (past * denominator + present);
          const scaled = (gradient.values[at] as number) / (past * denominator + present);

          const own = scaled * present;
          const later = Math.exp(k + dexponent);
          result.value.values[at] = own + later * dnumerator;
          result.key.values[at] = own * (v - average) + later * (dnumerator * v + ddenominator);
          add("first", c, own * (v - average));
          const carried = Math.exp(w + exponent + dexponent);
          add("decay", c, carried * (dnumerator * numerator + ddenominator * denominator));

          const next = Math.max(dexponent + w, -q);
          dnumerator = Math.exp(dexponent + w - next) * dnumerator + Math.exp(-q - next) * scaled;
          ddenominator = Math.exp(dexponent + w - next) * ddenominator - Math.exp(-q - next) * scaled * average;
          dexponent = next;
        }
        const scale = Math.exp(initial.exponent + dexponent);
        add("numerator", c, scale * dnumerator);
        add("denominator", c, scale * ddenominator);
        add("maxExponent", c, scale * (dnumerator * initial.numerator + ddenominator * initial.denominator));
      }
    }
    return result;
  },
  gradient: { none: "only gradients are built of it" },
});
