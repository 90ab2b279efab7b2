// Every operation of gradients in its plainest form: the definition that the C kernels are tested against, itself tested
// against central differences. `gradient` is that of the loss for what the forward operation gave.

import { wkvTotals } from "../../graph/gradient-nodes.js";
import { type Floats, momentsOf, type RowRange, type Rows, type WkvOffsets, zeros } from "./operations.js";

/** Losses of rows of logits, and the gradient of their mean, with RWKV-LM's penalty of the largest logit. */
export function crossEntropy(
  logits: Rows,
  targets: readonly number[],
  logitPenalty: number,
): { loss: Rows; gradient: Rows } {
  const loss = zeros(logits.rows, 1, logits.values);
  const gradient = zeros(logits.rows, logits.width, logits.values);
  targets.forEach((target, t) => {
    const row = logits.values.subarray(t * logits.width, (t + 1) * logits.width);
    let best = 0;
    for (let i = 1; i < row.length; i++) if ((row[i] as number) > (row[best] as number)) best = i;
    const most = row[best] as number;
    let sum = 0;
    for (const logit of row) sum += Math.exp(logit - most);
    loss.values[t] = most + Math.log(sum) - (row[target] as number);
    for (let i = 0; i < row.length; i++) {
      const probability = Math.exp((row[i] as number) - most) / sum;
      const penalty = i === best ? logitPenalty * most : 0;
      gradient.values[t * logits.width + i] = (probability - (i === target ? 1 : 0) + penalty) / logits.rows;
    }
  });
  return { loss, gradient };
}

/** out[t][i] = sum over o of gradient[t][o] * weight[o][i] */
export function transposedMatmul(weight: Rows, gradient: Rows): Rows {
  const out = zeros(gradient.rows, weight.width, gradient.values);
  for (let t = 0; t < gradient.rows; t++) {
    const sums = new Float64Array(weight.width);
    for (let o = 0; o < weight.rows; o++) {
      const g = gradient.values[t * weight.rows + o] as number;
      for (let i = 0; i < weight.width; i++) {
        sums[i] = (sums[i] as number) + g * (weight.values[o * weight.width + i] as number);
      }
    }
    out.values.set(sums, t * weight.width);
  }
  return out;
}

/** out[o][i] = sum over t of gradient[t][o] * x[t][i] */
export function weightGradient(x: Rows, gradient: Rows): Rows {
  const sums = new Float64Array(gradient.width * x.width);
  for (let t = 0; t < x.rows; t++) {
    for (let o = 0; o < gradient.width; o++) {
      const g = gradient.values[t * gradient.width + o] as number;
      for (let i = 0; i < x.width; i++) {
        sums[o * x.width + i] = (sums[o * x.width + i] as number) + g * (x.values[t * x.width + i] as number);
      }
    }
  }
  const out = zeros(gradient.width, x.width, x.values);
  out.values.set(sums);
  return out;
}

/** out[v] = sum over the t with indices[t] = v of gradient[t] */
export function scatterAdd(gradient: Rows, indices: readonly number[], rows: number): Rows {
  const out = zeros(rows, gradient.width, gradient.values);
  indices.forEach((index, t) => {
    for (let c = 0; c < gradient.width; c++) {
      const at = index * gradient.width + c;
      out.values[at] = (out.values[at] as number) + (gradient.values[t * gradient.width + c] as number);
    }
  });
  return out;
}

/** The gradient of a layer norm for its input: the derivative of (x - mean) * scale, both of which depend on every x. */
export function layerNormGradient(x: Rows, weight: Floats, gradient: Rows, epsilon: number): Rows {
  const out = zeros(x.rows, x.width, x.values);
  for (let t = 0; t < x.rows; t++) {
    const { mean, scale } = momentsOf(x, t, epsilon);
    const g = (c: number) => (gradient.values[t * x.width + c] as number) * (weight[c] as number);
    const normal = (c: number) => ((x.values[t * x.width + c] as number) - mean) * scale;
    let total = 0;
    let product = 0;
    for (let c = 0; c < x.width; c++) {
      total += g(c);
      product += g(c) * normal(c);
    }
    for (let c = 0; c < x.width; c++) {
      out.values[t * x.width + c] = scale * (g(c) - total / x.width - (normal(c) * product) / x.width);
    }
  }
  return out;
}

/** Mean and scale of each row. */
export function rowMoments(x: Rows, epsilon: number): Rows {
  const out = zeros(x.rows, 2, x.values);
  for (let t = 0; t < x.rows; t++) {
    const { mean, scale } = momentsOf(x, t, epsilon);
    out.values.set([mean, scale], 2 * t);
  }
  return out;
}

/** out[c] = sum over t of gradient[t][c] * (x[t][c] - mean) * scale */
export function layerNormWeightGradient(x: Rows, moments: Rows, gradient: Rows): Rows {
  return sumOverRows(x, (t, c) => {
    const [mean, scale] = moments.values.subarray(2 * t, 2 * t + 2) as unknown as [number, number];
    return (gradient.values[t * x.width + c] as number) * ((x.values[t * x.width + c] as number) - mean) * scale;
  });
}

/** The sum over ranges of a part of each one's first row. */
export function segmentSums(x: Rows, ranges: readonly RowRange[], part: number, width: number): Rows {
  const out = zeros(1, width, x.values);
  for (const { start } of ranges) {
    for (let c = 0; c < width; c++) {
      out.values[c] = (out.values[c] as number) + (x.values[start * x.width + part * width + c] as number);
    }
  }
  return out;
}

/** out[c] = sum over t of x[t][c] */
export function columnSums(x: Rows): Rows {
  return sumOverRows(x, (t, c) => x.values[t * x.width + c] as number);
}

function sumOverRows(like: Rows, term: (t: number, c: number) => number): Rows {
  const out = zeros(1, like.width, like.values);
  for (let c = 0; c < like.width; c++) {
    let sum = 0;
    for (let t = 0; t < like.rows; t++) sum += term(t, c);
    out.values[c] = sum;
  }
  return out;
}

/** The gradients of token shifts x[t] * factor + x[t-1] * (1 - factor), for x, each factor, and x[-1] from the state. */
export function tokenShiftGradient(
  x: Rows,
  factors: readonly Floats[],
  gradients: readonly Rows[],
  ranges: readonly RowRange[],
  offset: number,
): { x: Rows; state: Rows; factors: Rows[] } {
  const dx = zeros(x.rows, x.width, x.values);
  const dstate = zeros(1, x.width, x.values);
  const dfactors = factors.map(() => zeros(1, x.width, x.values));
  const add = (to: Floats, at: number, value: number) => {
    to[at] = (to[at] as number) + value;
  };
  for (const { start, count, state } of ranges) {
    for (let t = start; t < start + count; t++) {
      for (let c = 0; c < x.width; c++) {
        const at = t * x.width + c;
        const before = (t > start ? x.values[at - x.width] : state[offset + c]) as number;
        factors.forEach((factor, i) => {
          const m = factor[c] as number;
          const g = gradients[i]?.values[at] as number;
          add(dx.values, at, g * m);
          if (t > start) add(dx.values, at - x.width, g * (1 - m));
          else add(dstate.values, c, g * (1 - m));
          add((dfactors[i] as Rows).values, c, g * ((x.values[at] as number) - before));
        });
      }
    }
  }
  return { x: dx, state: dstate, factors: dfactors };
}

/**
 * The gradients of wkv. With numerator and denominator before token t as A[t] = e^w A[t-1] + e^k[t-1] v[t-1] and B[t] likewise,
 * wkv[t] = (A[t] + e^(u + k[t]) v[t]) / (B[t] + e^(u + k[t])). Sums are relative to e^(largest exponent), as in `wkv`; so are
 * the gradients of A and B, whose exponents are those of 1 / denominator. What each sequence gives for decay, first and the sums
 * it began with stands in its first row of `totals`.
 */
export function wkvGradient(
  key: Rows,
  value: Rows,
  decay: Floats,
  first: Floats,
  gradient: Rows,
  ranges: readonly RowRange[],
  offsets: WkvOffsets,
): { key: Rows; value: Rows; totals: Rows } {
  const { width } = key;
  const result = {
    key: zeros(key.rows, width, key.values),
    value: zeros(key.rows, width, key.values),
    totals: zeros(key.rows, wkvTotals.length * width, key.values),
  };
  for (const { start, count, state } of ranges) {
    const add = (part: (typeof wkvTotals)[number], c: number, amount: number) => {
      const at = (start * wkvTotals.length + wkvTotals.indexOf(part)) * width + c;
      result.totals.values[at] = (result.totals.values[at] as number) + amount;
    };
    for (let c = 0; c < width; c++) {
      const w = decay[c] as number;
      const u = first[c] as number;
      const initial = {
        numerator: state[offsets.numerator + c] as number,
        denominator: state[offsets.denominator + c] as number,
        exponent: state[offsets.maxExponent + c] as number,
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
        const through = Math.exp(w + exponent + dexponent);
        add("decay", c, through * (dnumerator * numerator + ddenominator * denominator));

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
}

/** 0 for elements left out, x / (1 - rate) for the others; which are left out follows from seed, index and place alone. */
export function dropout(x: Rows, rate: number, seed: number, index: number): Rows {
  const out = zeros(x.rows, x.width, x.values);
  const key = hash((seed ^ hash(index + 1)) >>> 0);
  const threshold = Math.floor(Math.fround(rate) * 2 ** 32);
  for (let i = 0; i < out.values.length; i++) {
    const kept = hash((key ^ hash(i)) >>> 0) >= threshold;
    out.values[i] = kept ? (x.values[i] as number) / (1 - rate) : 0;
  }
  return out;
}

/** A number that looks random, from any other (Chris Wellons, https://github.com/skeeto/hash-prospector, "lowbias32"). */
function hash(number: number): number {
  let x = number;
  x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
  return (x ^ (x >>> 16)) >>> 0;
}
