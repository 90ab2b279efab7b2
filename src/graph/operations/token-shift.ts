// Token shift (arXiv 2305.13048v2, section 3.1.1, equations 11 to 15): each channel is mixed with the same channel of the token
// before.

import type { RowNode, Vector } from "../graph.js";
import { operation } from "../operation.js";
import { addAt, type Rows, rowBefore, zeros } from "../rows.js";
import { requireLength, requireState, requireTokens } from "./checks.js";

/**
 * For each factor m: x * m + previous * (1 - m), where previous is the row of the token before, from the state at the start of a
 * segment. Leaves the last row in the state.
 */
export const tokenShift = operation({
  name: "tokenShift",
  inputs: ["x"],
  vectors: ["...factors"],
  states: ["previous"],
  outputs: ["...results"],
  sharedBy: "channels",
  shape({ x, factors, previous }) {
    requireLength("tokenShift", x.width, ...factors);
    requireTokens("tokenShift", x);
    requireState("tokenShift", x.width, previous);
    return { results: factors.map(() => x) };
  },
  reference({ x, factors, previous }, { ranges }) {
    const results = factors.map((factor) => {
      const out = zeros(x.rows, x.width, x.values);
      for (const range of ranges) {
        for (let t = range.start; t < range.start + range.count; t++) {
          const before = rowBefore(x, range, previous, t);
          for (let c = 0; c < x.width; c++) {
            const m = factor[c] as number;
            out.values[t * x.width + c] = (x.values[t * x.width + c] as number) * m + (before[c] as number) * (1 - m);
          }
        }
      }
      return out;
    });
    for (const range of ranges) {
      range.nextState.set(rowBefore(x, range, previous, range.start + range.count), previous);
    }
    return { results };
  },
  gradient({ operands: { x, factors, previous }, gradients }, context) {
    // Outputs that nothing depends on have no gradient, and take no part.
    const used = gradients.results.flatMap((gradient, i) =>
      gradient ? [{ gradient, factor: factors[i] as Vector }] : [],
    );
    const outputs = tokenShiftGradient.apply({
      x: context.value(x),
      gradients: used.map(({ gradient }) => gradient),
      factors: used.map(({ factor }) => factor),
      previous,
    });
    used.forEach(({ factor }, i) => void context.addVector(factor, () => outputs.factors[i] as RowNode));
    context.addState(previous, () => outputs.state);
    context.add(x, () => outputs.x);
  },
});

/** The gradients of token shift for x, for the state before it, and for each factor. */
const tokenShiftGradient = operation({
  name: "tokenShiftGradient",
  inputs: ["x", "...gradients"],
  vectors: ["...factors"],
  states: ["previous"],
  outputs: ["x", "state", "...factors"],
  shape({ x, factors }) {
    const row = { rows: 1, width: x.width };
    return { x, state: row, factors: factors.map(() => row) };
  },
  reference({ x, gradients, factors, previous }, { ranges }) {
    const dx = zeros(x.rows, x.width, x.values);
    const dstate = zeros(1, x.width, x.values);
    const dfactors = factors.map(() => zeros(1, x.width, x.values));
    for (const range of ranges) {
      for (let t = range.start; t < range.start + range.count; t++) {
        const before = rowBefore(x, range, previous, t);
        for (let c = 0; c < x.width; c++) {
          const at = t * x.width + c;
          factors.forEach((factor, i) => {
            const m = factor[c] as number;
            const g = gradients[i]?.values[at] as number;
            addAt(dx.values, at, g * m);
            if (t > range.start) addAt(dx.values, at - x.width, g * (1 - m));
            else addAt(dstate.values, c, g * (1 - m));
            addAt((dfactors[i] as Rows).values, c, g * ((x.values[at] as number) - (before[c] as number)));
          });
        }
      }
    }
    return { x: dx, state: dstate, factors: dfactors };
  },
  gradient: { none: "only gradients are built of it" },
});

/**
 * What the row of the token before is more than each token's own: previous - x, of which later versions add a share that depends on the
 * token (arXiv 2404.05892, section 4.2.1). Leaves the last row in the state.
 */
export const shiftDifference = operation({
  name: "shiftDifference",
  inputs: ["x"],
  states: ["previous"],
  outputs: ["result"],
  sharedBy: "channels",
  shape({ x, previous }) {
    requireTokens("shiftDifference", x);
    requireState("shiftDifference", x.width, previous);
    return { result: x };
  },
  reference({ x, previous }, { ranges }) {
    const out = zeros(x.rows, x.width, x.values);
    for (const range of ranges) {
      for (let t = range.start; t < range.start + range.count; t++) {
        const before = rowBefore(x, range, previous, t);
        for (let c = 0; c < x.width; c++) {
          out.values[t * x.width + c] = (before[c] as number) - (x.values[t * x.width + c] as number);
        }
      }
      range.nextState.set(rowBefore(x, range, previous, range.start + range.count), previous);
    }
    return { result: out };
  },
  gradient({ operands: { x, previous }, gradients }, context) {
    const d = shiftDifferenceGradient.apply({ gradient: gradients.result as RowNode });
    context.addState(previous, () => d.state);
    context.add(x, () => d.x);
  },
});

/** The gradients of shiftDifference for x, and for the state before it. */
const shiftDifferenceGradient = operation({
  name: "shiftDifferenceGradient",
  inputs: ["gradient"],
  outputs: ["x", "state"],
  shape: ({ gradient }) => ({ x: gradient, state: { rows: 1, width: gradient.width } }),
  reference({ gradient }, { ranges }) {
    const { rows, width, values } = gradient;
    const [dx, dstate] = [zeros(rows, width, values), zeros(1, width, values)];
    for (const { start, count } of ranges) {
      for (let t = start; t < start + count; t++) {
        for (let c = 0; c < width; c++) {
          const g = values[t * width + c] as number;
          addAt(dx.values, t * width + c, -g);
          if (t > start) addAt(dx.values, (t - 1) * width + c, g);
          else addAt(dstate.values, c, g);
        }
      }
    }
    return { x: dx, state: dstate };
  },
  gradient: { none: "only gradients are built of it" },
});

/** Each token's row before; at the start of a segment that of the state, which it leaves alone. */
export const previousRows = operation({
  name: "previousRows",
  inputs: ["x"],
  states: ["state"],
  outputs: ["result"],
  shape: ({ x }) => ({ result: x }),
  reference({ x, state }, { ranges }) {
    const out = zeros(x.rows, x.width, x.values);
    for (const range of ranges) {
      for (let t = range.start; t < range.start + range.count; t++) {
        out.values.set(rowBefore(x, range, state, t), t * x.width);
      }
    }
    return { result: out };
  },
  gradient: { none: "only gradients are built of it" },
});
