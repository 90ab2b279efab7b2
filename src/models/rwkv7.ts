// RWKV-7, as a graph.
//
// Paper: "RWKV-7 'Goose' with Expressive Dynamic State Evolution", arXiv 2503.14456, sections 3 and 4; RWKV-LM's
// RWKV-v7/rwkv_v7_numpy.py has the same equations on a page. Names are those of RWKV-LM's checkpoints; those of
// flash-linear-attention (models/rwkv7) and of transformers are known as well.
// Try it: npx rwkv generate --model rwkv7-g1d-0.1b-20260129-ctx8192.pth

import { elementCount } from "../dtypes.js";
import { OptionError } from "../errors.js";
import type { Graph, RowNode, WeightNode } from "../graph/graph.js";
import { GraphBuilder, type MatrixOptions } from "../graph/graph-builder.js";
import { add, exp, multiply, reluSquared, sigmoid, subtract, tanh } from "../graph/operations/elementwise.js";
import { constant, vectorRow } from "../graph/operations/leaves.js";
import { mostChannels } from "../graph/operations/wkv7.js";
import { orthogonal } from "./initial-values.js";
import { type Location, stored } from "./location.js";
import { type MatrixStateSize, matrixState, withInitialStates, withStoredStates } from "./matrix-states.js";
import {
  type BuildOptions,
  countLayers,
  type FirstValuesOptions,
  type ModelDefinition,
  type ModelSize,
  type NamedShapes,
} from "./model-definition.js";
import { groupNorm } from "./parts.js";
import { groupNormEpsilon, settingIn } from "./settings.js";

/** Ranks are of products of two small matrices; that of values is 0 in a model of one layer, which has none. */
interface Rwkv7Size extends MatrixStateSize {
  readonly decayRank: number;
  readonly learningRateRank: number;
  readonly valueRank: number;
  readonly gateRank: number;
}

/** The logarithm of the fastest decay, e^(-1/2): a channel keeps more than 0.545 of itself from token to token. */
const fastestDecay = -Math.exp(-0.5);

/** Below this length a removal key is not made longer. */
const shortestKey = 1e-12;

/** The vectors of token shift in the order in which files that stack them have them (flash-linear-attention's old `x_x`). */
const mixes = ["x_r", "x_w", "x_k", "x_v", "x_a", "x_g"] as const;

function build(size: Rwkv7Size, { layerNormEpsilon, settings, dropout = 0 }: BuildOptions): Graph {
  const { layers, width, hidden, vocabulary, heads, decayRank, learningRateRank, valueRank, gateRank } = size;
  const g = new GraphBuilder();

  const linear = (name: string, outputs: number, x: RowNode, options?: MatrixOptions) =>
    g.matmul(g.matrix(name, outputs, x.width, options), x);
  // Small matrices are left as they are when others are quantized, as llama.cpp leaves them.
  const small = (name: string, outputs: number, x: RowNode) => linear(name, outputs, x, { fewestBits: 16 });
  const vector = (name: string) => vectorRow(g.vector(name, width));
  const layerNorm = (name: string, x: RowNode) =>
    g.layerNorm(x, g.vector(`${name}.weight`, width), g.vector(`${name}.bias`, width), layerNormEpsilon);
  /** RWKV-LM's factors are the share of the token before; those of token shift are of the token itself. */
  const shiftFactor = (name: string) => g.vectorFunction("oneMinus", g.vector(name, width));

  function timeMixing(name: string, x: RowNode, firstValue: RowNode | undefined): { result: RowNode; value: RowNode } {
    const previous = g.state(width, 0);
    const matrix = matrixState(g, name, size);
    const [xr, xw, xk, xv, xa, xg] = g.tokenShift(x, previous, [
      shiftFactor(`${name}.x_r`),
      shiftFactor(`${name}.x_w`),
      shiftFactor(`${name}.x_k`),
      shiftFactor(`${name}.x_v`),
      shiftFactor(`${name}.x_a`),
      shiftFactor(`${name}.x_g`),
    ]);
    const r = linear(`${name}.receptance.weight`, width, xr);
    const k = linear(`${name}.key.weight`, width, xk);
    let v = linear(`${name}.value.weight`, width, xv);
    const decayLogit = add(vector(`${name}.w0`), small(`${name}.w2`, width, tanh(small(`${name}.w1`, decayRank, xw))));
    const decay = exp(multiply(constant(fastestDecay), sigmoid(decayLogit)));
    const a = sigmoid(add(vector(`${name}.a0`), small(`${name}.a2`, width, small(`${name}.a1`, learningRateRank, xa))));
    const gate = small(`${name}.g2`, width, sigmoid(small(`${name}.g1`, gateRank, xg)));
    if (firstValue) {
      const share = small(`${name}.v2`, width, small(`${name}.v1`, valueRank, xv));
      v = add(v, multiply(subtract(firstValue, v), sigmoid(add(vector(`${name}.v0`), share))));
    }
    const removal = g.headNormalize(multiply(k, vector(`${name}.k_k`)), heads, shortestKey);
    const key = multiply(k, add(constant(1), multiply(subtract(a, constant(1)), vector(`${name}.k_a`))));
    const rows = { receptance: r, decay, key, value: v, removal, replacement: multiply(removal, a) };
    const mixed = g.wkv7(rows, heads, matrix);
    const normal = groupNorm(g, `${name}.ln_x`, mixed, heads, settingIn(groupNormEpsilon, settings));
    const bonus = multiply(g.headSum(multiply(multiply(r, key), vector(`${name}.r_k`)), heads), v);
    return { result: linear(`${name}.output.weight`, width, multiply(add(normal, bonus), gate)), value: v };
  }

  function channelMixing(name: string, x: RowNode): RowNode {
    const [xk] = g.tokenShift(x, g.state(width, 0), [shiftFactor(`${name}.x_k`)]);
    return linear(`${name}.value.weight`, width, reluSquared(linear(`${name}.key.weight`, hidden, xk)));
  }

  let x = layerNorm("blocks.0.ln0", g.embedding(g.matrix("emb.weight", vocabulary, width)));
  let firstValue: RowNode | undefined;
  for (let i = 0; i < layers; i++) {
    x = g.checkpoint(x);
    const { result, value } = timeMixing(`blocks.${i}.att`, layerNorm(`blocks.${i}.ln1`, x), firstValue);
    firstValue ??= value;
    x = add(x, g.dropout(result, dropout));
    x = add(x, g.dropout(channelMixing(`blocks.${i}.ffn`, layerNorm(`blocks.${i}.ln2`, x)), dropout));
  }
  // Every logit depends on the head, so it is not quantized to fewer than 8 bits.
  return g.finish(linear("head.weight", vocabulary, layerNorm("ln_out", g.selectRows(x)), { fewestBits: 8 }));
}

/** Names of flash-linear-attention's RWKV7ForCausalLM (its utils/convert_from_rwkv7.py) and RWKV-LM's, part by part. */
const otherNames: readonly (readonly [RegExp, string])[] = [
  [/^rwkv7\./, ""],
  [/^embeddings\./, "emb."],
  [/^norm\./, "ln_out."],
  [/^lm_head\./, "head."],
  [/^layers\./, "blocks."],
  [/\.pre_norm\./, ".ln0."],
  [/\.attn_norm\./, ".ln1."],
  [/\.ffn_norm\./, ".ln2."],
  [/\.attn\./, ".att."],
  [/\.r_proj\./, ".receptance."],
  [/\.k_proj\./, ".key."],
  [/\.v_proj\./, ".value."],
  [/\.o_proj\./, ".output."],
  [/\.g_norm\./, ".ln_x."],
  [/\.([wav])_lora\.lora\.2\.bias$/, ".$10"],
];

/** The name that flash-linear-attention's small matrices keep, since they are not transposed as RWKV-LM's are. */
function untransposedName(name: string): string {
  const [, att, letter, number] = /^(blocks\.\d+\.att)\.([wavg])([12])$/.exec(name) as RegExpExecArray;
  return `${att}.${letter}_lora.lora.${number === "1" ? 0 : 2}.weight`;
}

function locate({ name }: WeightNode, { width, heads }: ModelSize, tensors: NamedShapes): Location | undefined {
  const [, layer = "", part] = /^(blocks\.\d+\.)(.*)$/.exec(name) ?? [];
  if (part === undefined) return undefined;
  if (/^att\.[wavg][12]$/.test(part)) {
    const other = untransposedName(name);
    return tensors.has(other) ? stored(other) : stored(name).transposed();
  }
  if (part === "att.r_k") return stored(name).reshaped([heads as number, width / (heads as number)], [width]);
  const mix = mixes.findIndex((each) => part === `att.${each}`);
  const stack = `${layer}att.x_x`;
  if (mix >= 0 && tensors.has(stack)) return stored(stack).entry(mix, mixes.length);
  const isVector = mix >= 0 || /^(att\.([wav]0|k_[ka])|ffn\.x_k)$/.test(part);
  return isVector ? stored(name).reshaped([1, 1, width], [width]) : undefined;
}

/** The rank of a product of two small matrices, of which this is the first. */
function rankOf(tensors: NamedShapes, name: string): number | undefined {
  return tensors.get(name)?.shape[1] ?? tensors.get(untransposedName(name))?.shape[0];
}

/** As RWKV-LM rounds ranks: to a multiple of 32, at least that; from the middle between two, as Python does, to the even one. */
function roundedRank(rank: number): number {
  const multiple = rank / 32;
  return 32 * Math.max(1, multiple % 1 === 0.5 ? 2 * Math.round(multiple / 2) : Math.round(multiple));
}

/** Heads of 64 channels as published models have, or of the most that divide a width that is smaller or odd. */
function headSizeOf(width: number): number {
  const size = [64, 32, 16, 8].find((channels) => width % channels === 0);
  if (size === undefined) throw new OptionError("width", width, "a multiple of 8, so that heads have as many channels");
  return size;
}

/**
 * First values as in RWKV-LM (https://github.com/BlinkDL/RWKV-LM, RWKV-v7/train_temp/src/model.py: RWKV_Tmix_x070, RWKV_CMix_x070,
 * generate_init_weight). A layer first adds nothing; decays, and how fast channels learn in context, are spread.
 */
function* firstValues(
  { name, shape }: WeightNode,
  { size, random }: FirstValuesOptions<Rwkv7Size>,
): Generator<void, Float32Array, void> {
  const values = new Float32Array(elementCount(shape));
  const [rows, columns = 1] = shape as [number, number?];
  const [, layerText, part = name] = /^blocks\.(\d+)\.(.*)$/.exec(name) ?? [];
  const layer = Number(layerText ?? 0);
  const depth = size.layers > 1 ? layer / (size.layers - 1) : 0; // 0 in the first layer, 1 in the last
  const shallow = 1 - layer / size.layers; // 1 in the first layer, nearly 0 in the last
  const byChannel = (value: (channel: number) => number) => values.map((_, c) => value(c));
  const last = Math.max(1, size.width - 1);
  const slope = (c: number) => c / last - 0.5;
  const headSize = size.width / size.heads;
  /** From -1 to 1 within each head, flat in the middle. */
  const zigzag = (c: number) => {
    const half = Math.max(1, (headSize - 1) / 2);
    const z = ((c % headSize) - (headSize - 1) / 2) / half;
    return z * Math.abs(z);
  };
  switch (part) {
    case "emb.weight":
      return byChannel(() => (2 * random.uniform() - 1) * 1e-4);
    case "att.x_r":
    case "att.x_g":
      return byChannel((c) => 1 - (c / size.width) ** (0.2 * shallow));
    case "att.x_w":
    case "att.x_a":
      return byChannel((c) => 1 - (c / size.width) ** (0.9 * shallow));
    case "att.x_k":
    case "att.x_v":
      return byChannel((c) => 1 - (c / size.width) ** (0.7 * shallow));
    case "ffn.x_k":
      return byChannel((c) => 1 - (c / size.width) ** (shallow ** 4));
    case "att.w0":
      return byChannel((c) => -6 + 6 * (c / last) ** (1 + depth ** 0.3) + 0.5 + 2.5 * zigzag(c));
    case "att.a0":
      return byChannel((c) => -0.19 + 0.3 * zigzag(c) + 0.4 * slope(c));
    case "att.v0":
      return byChannel((c) => 0.73 - 0.4 * slope(c));
    case "att.k_k":
      return byChannel((c) => 0.71 - 0.1 * slope(c));
    case "att.k_a":
      return values.fill(1.02);
    case "att.r_k":
      return values.fill(-0.04);
    case "att.ln_x.weight":
      return values.fill(((1 + layer) / size.layers) ** 0.7);
    case "att.w2":
    case "att.a2":
    case "att.v2":
    case "att.g2":
      // As RWKV-LM stores it, [rank, width], the gain grows with rows over columns.
      return yield* orthogonal(rows, columns, 0.1 * Math.sqrt(Math.max(1, columns / rows)), random);
    case "att.key.weight":
      return yield* orthogonal(rows, columns, 0.1, random);
    case "att.receptance.weight":
    case "att.value.weight":
    case "ffn.key.weight":
      return yield* orthogonal(rows, columns, 1, random);
    case "head.weight":
      return yield* orthogonal(rows, columns, 0.5 * Math.sqrt(Math.max(1, rows / columns)), random);
    default:
      // Norms begin as nothing but a norm; what a layer adds, and the first of two small matrices, as zeros.
      return /(^|\.)ln\w*\.weight$/.test(part) ? values.fill(1) : values;
  }
}

export const rwkv7: ModelDefinition<Rwkv7Size> = {
  version: "7",

  matches: (names) => [...names].some((name) => /^blocks\.\d+\.att\.(r_k|x_[rx])$/.test(name)),

  // Architectures that RWKV-LM made of it (RWKV-v7/rwkv_v7a_demo.py, rwkv_v7b_demo.py, rwkv_v8_rc00_demo.py; RWKV-v8). RWKV-8 comes
  // before 7b, whose attention its hybrid has as well.
  unsupportedParts: [
    ["a memory by a suffix automaton (ROSA of RWKV-8)", /^blocks\.\d+\.(\w+\.)*rosa\w*\./],
    ["an embedding of the token after each channel mixing (RWKV-8)", /^blocks\.\d+\.ffn\.enn\./],
    ["attention over embeddings of all tokens before (RWKV-7b, deep embedding attention)", /^blocks\.\d+\.qkv\./],
    ["an embedding of the token in each channel mixing (RWKV-7a, deep embeddings)", /^blocks\.\d+\.ffn\.s_emb/],
    ["a first state of its token shift (full state tuning)", /^blocks\.\d+\.(att|ffn)\.ts_state$/],
    ["low-rank additions (LoRA) that are not merged into its weights", /\.(lora_[AB]|base_layer)\b/],
  ],

  canonicalName(name) {
    return otherNames.reduce((result, [pattern, replacement]) => result.replace(pattern, replacement), name);
  },

  // The first layer has no value to mix with; some files carry the weights for it, unused.
  ignored: [/^blocks\.0\.att\.(v[012]|v_lora\..*)$/],

  settings: [groupNormEpsilon],

  sizeSource: `emb.weight, blocks.0.ffn.key.weight, blocks.0.att.r_k (heads of at most ${mostChannels} channels), w1, a1 and g1, and blocks.1.att.v1`,

  sizeOf(tensors) {
    const [vocabulary, width] = tensors.get("emb.weight")?.shape ?? [];
    const [hidden] = tensors.get("blocks.0.ffn.key.weight")?.shape ?? [];
    const [heads] = tensors.get("blocks.0.att.r_k")?.shape ?? [];
    const decayRank = rankOf(tensors, "blocks.0.att.w1");
    const learningRateRank = rankOf(tensors, "blocks.0.att.a1");
    const gateRank = rankOf(tensors, "blocks.0.att.g1");
    const layers = countLayers(tensors);
    const valueRank = layers > 1 ? rankOf(tensors, "blocks.1.att.v1") : 0;
    if (!vocabulary || !width || !hidden || !heads || width % heads !== 0 || width / heads > mostChannels)
      return undefined;
    if (!decayRank || !learningRateRank || !gateRank || valueRank === undefined || layers === 0) return undefined;
    const ranks = { decayRank, learningRateRank, valueRank, gateRank };
    return withStoredStates({ layers, width, hidden, vocabulary, heads, ...ranks }, tensors);
  },

  withInitialStates,

  newSize({ layers, width, vocabulary, hidden = 4 * width }) {
    const root = Math.sqrt(width);
    return {
      layers,
      width,
      hidden,
      vocabulary,
      heads: width / headSizeOf(width),
      decayRank: roundedRank(2.5 * root),
      learningRateRank: roundedRank(2.5 * root),
      valueRank: layers > 1 ? roundedRank(1.7 * root) : 0,
      gateRank: roundedRank(5 * root),
    };
  },

  locate,

  build,

  training: {
    firstValues,
    adamEpsilon: 1e-18, // train_temp/train.py
    // RWKV-LM, RWKV-v7/train_temp/src/model.py, configure_optimizers.
    learning: ({ name, op }) => ({
      rateFactor: name.endsWith(".att.w0") ? 2 : 1,
      decays: op === "matrix" && name.endsWith(".weight"),
    }),
    adapted: ["att.key", "att.value", "att.receptance", "att.output", "ffn.key", "ffn.value"],
  },
};
