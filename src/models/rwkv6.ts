// RWKV-6, called Finch, as a graph: RWKV-5 with token shift and decay that depend on the token.
//
// Paper: "Eagle and Finch: RWKV with Matrix-Valued States and Dynamic Recurrence", arXiv 2404.05892, section 4.2.
// Names are those of RWKV-LM's checkpoints. Try it: npx rwkv generate --model RWKV-x060-World-1B6-v2.1-20240328-ctx4096.pth

import { elementCount } from "../dtypes.js";
import type { Graph, RowNode, WeightNode } from "../graph/graph.js";
import { GraphBuilder } from "../graph/graph-builder.js";
import { add, exp, multiply, negate, tanh } from "../graph/operations/elementwise.js";
import { vectorRow } from "../graph/operations/leaves.js";
import { type Location, stored } from "./location.js";
import { type MatrixStateSize, matrixState, withInitialStates } from "./matrix-states.js";
import type { BuildOptions, FirstValuesOptions, ModelDefinition, NamedShapes } from "./model-definition.js";
import { gatedChannelMixing, groupNorm, layerNorm, linear, silu } from "./parts.js";
import {
  firstValues as firstValuesOf5,
  learning,
  locateShared,
  newSizeWithHeads,
  sizeWithHeads,
  unsupportedParts,
  usualHidden,
} from "./rwkv5.js";
import { groupNormEpsilon, settingIn } from "./settings.js";
import { fromHuggingFace } from "./tensor-names.js";

interface Rwkv6Size extends MatrixStateSize {
  /** Of the products that token shift depends on the token by, and decay. */
  readonly mixRank: number;
  readonly decayRank: number;
}

/** What the rows of token shift are for, in the order of the parts of time_maa_w1 and w2. */
const mixes = ["w", "k", "v", "r", "g"] as const;

/** Small matrices, in which there is little to gain by quantizing them, and much to lose. */
const small = { fewestBits: 16 } as const;

function build(size: Rwkv6Size, { layerNormEpsilon, settings, dropout = 0 }: BuildOptions): Graph {
  const { layers, width, hidden, vocabulary, heads, mixRank, decayRank } = size;
  const g = new GraphBuilder();
  const norm = (name: string, x: RowNode) => layerNorm(g, name, x, layerNormEpsilon);
  const row = (name: string) => vectorRow(g.vector(name, width));
  const lowRank = (first: string, second: string, rank: number, x: RowNode) =>
    g.matmul(g.matrix(second, width, rank, small), tanh(g.matmul(g.matrix(first, rank, width, small), x)));

  function timeMixing(name: string, x: RowNode): RowNode {
    const difference = g.shiftDifference(x, g.state(width, 0));
    const base = add(x, multiply(difference, row(`${name}.time_maa_x`)));
    const [xw, xk, xv, xr, xg] = mixes.map((mix) => {
      const change = lowRank(`${name}.time_maa_w1.${mix}`, `${name}.time_maa_w2.${mix}`, mixRank, base);
      return add(x, multiply(difference, add(change, row(`${name}.time_maa_${mix}`))));
    }) as [RowNode, RowNode, RowNode, RowNode, RowNode];
    const change = lowRank(`${name}.time_decay_w1`, `${name}.time_decay_w2`, decayRank, xw);
    const average = g.wkv6(
      {
        decay: exp(negate(exp(add(change, row(`${name}.time_decay`))))),
        receptance: linear(g, `${name}.receptance`, width, xr),
        key: linear(g, `${name}.key`, width, xk),
        value: linear(g, `${name}.value`, width, xv),
        bonus: row(`${name}.time_faaaa`),
      },
      matrixState(g, name, size),
    );
    const y = groupNorm(g, `${name}.ln_x`, average, heads, settingIn(groupNormEpsilon, settings));
    return linear(g, `${name}.output`, width, multiply(y, silu(linear(g, `${name}.gate`, width, xg))));
  }

  function channelMixing(name: string, x: RowNode): RowNode {
    const difference = g.shiftDifference(x, g.state(width, 0));
    const mixed = (mix: string) => add(x, multiply(difference, row(`${name}.time_maa_${mix}`)));
    return gatedChannelMixing(g, name, hidden, mixed("k"), mixed("r"));
  }

  let x = norm("blocks.0.ln0", g.embedding(g.matrix("emb.weight", vocabulary, width)));
  for (let i = 0; i < layers; i++) {
    x = g.checkpoint(x);
    x = add(x, g.dropout(timeMixing(`blocks.${i}.att`, norm(`blocks.${i}.ln1`, x)), dropout));
    x = add(x, g.dropout(channelMixing(`blocks.${i}.ffn`, norm(`blocks.${i}.ln2`, x)), dropout));
  }
  return g.finish(linear(g, "head", vocabulary, norm("ln_out", g.selectRows(x)), { fewestBits: 8 }));
}

/** The names of flash-linear-attention (utils/convert_from_rwkv6.py), part by part, in those of RWKV-LM. */
const flashLinearAttentionParts: readonly (readonly [RegExp, string])[] = [
  [/^layers\./, "blocks."],
  [/^norm\./, "ln_out."],
  [/^lm_head\./, "head."],
  [/\.pre_norm\./, ".ln0."],
  [/\.attn_norm\./, ".ln1."],
  [/\.ffn_norm\./, ".ln2."],
  [/\.attn\./, ".att."],
  [/\.att\.g_norm\./, ".att.ln_x."],
  [/\.att\.r_proj\.linear\./, ".att.receptance."],
  [/\.att\.k_proj\.linear\./, ".att.key."],
  [/\.att\.v_proj\.linear\./, ".att.value."],
  [/\.att\.g_proj\.linear\./, ".att.gate."],
  [/\.att\.o_proj\./, ".att.output."],
  [/\.att\.bonus$/, ".att.time_faaaa"],
  [/\.att\.x_proj\.0\.mu$/, ".att.time_maa_x"],
  [/\.att\.w_proj\.linear\.lora\.2\.bias$/, ".att.time_decay"],
  [/\.ffn\.(key|receptance)\.linear\./, ".ffn.$1."],
  [/\.ffn\.key\.mu$/, ".ffn.time_maa_k"],
  [/\.ffn\.receptance\.mu$/, ".ffn.time_maa_r"],
];

/** Its tensors that lie in another way than RWKV-LM's. */
const joined = {
  mixes: "x_bias",
  mixFirst: "x_proj.0.linear.weight",
  mixSecond: "x_proj.2.weight",
  decayFirst: "w_proj.linear.lora.0.weight",
  decaySecond: "w_proj.linear.lora.2.weight",
} as const;

/** The order of its parts. */
const joinedMixes: readonly string[] = ["r", "w", "k", "v", "g"];

function canonicalName(name: string): string {
  const isOfOthers = /^layers\.|^norm\.|^lm_head\./.test(name);
  return isOfOthers
    ? flashLinearAttentionParts.reduce((result, [pattern, replacement]) => result.replace(pattern, replacement), name)
    : fromHuggingFace(name);
}

function locate(weight: WeightNode, size: Rwkv6Size, tensors: NamedShapes): Location | undefined {
  const { name } = weight;
  const [, att = "", part = "", mix = ""] = /^(blocks\.\d+\.att\.)(time_\w+?)(?:\.?([wkvrg]))?$/.exec(name) ?? [];
  if (tensors.has(`${att}${joined.mixes}`)) {
    const index = joinedMixes.indexOf(mix);
    if (part === "time_maa_w1") return stored(att + joined.mixFirst).part(index, mixes.length);
    if (part === "time_maa_w2") return stored(att + joined.mixSecond).part(index, mixes.length, 1);
    if (part === "time_maa_") return stored(att + joined.mixes).entry(index, mixes.length);
    if (part === "time_decay_w1") return stored(att + joined.decayFirst);
    if (part === "time_decay_w2") return stored(att + joined.decaySecond);
  }
  const index = (mixes as readonly string[]).indexOf(mix);
  if (part === "time_maa_w1")
    return stored(att + part)
      .transposed()
      .part(index, mixes.length);
  if (part === "time_maa_w2")
    return stored(att + part)
      .entry(index, mixes.length)
      .transposed();
  if (/^time_decay_w[12]$/.test(part)) return stored(name).transposed();
  return part === "time_decay" ? stored(name).reshaped([1, 1, size.width], [size.width]) : locateShared(weight, size);
}

/**
 * First values as in RWKV-LM v5 (https://github.com/BlinkDL/RWKV-LM, RWKV-v5/src/model.py: RWKV_Tmix_x060, RWKV_CMix_x060). Where RWKV-5 has
 * the share of the token, here is that of the token before. What depends on the token begins as nothing.
 */
function* firstValues(weight: WeightNode, options: FirstValuesOptions<Rwkv6Size>): Generator<void, Float32Array, void> {
  const { name, shape } = weight;
  const mix = /^(.*\.time_)maa_([a-z])$/.exec(name);
  if (mix) {
    const like = mix[2] === "x" || mix[2] === "w" ? "k" : mix[2];
    const shares = yield* firstValuesOf5({ ...weight, name: `${mix[1]}mix_${like}` }, options);
    return shares.map((share) => 1 - share);
  }
  const values = new Float32Array(elementCount(shape));
  if (/\.time_(maa|decay)_w1\b/.test(name)) return values;
  if (/\.time_(maa|decay)_w2\b/.test(name)) return values.map(() => (2 * options.random.uniform() - 1) * 0.01);
  return yield* firstValuesOf5(weight, options);
}

export const rwkv6: ModelDefinition<Rwkv6Size> = {
  version: "6",
  matches: (names) => names.has("blocks.0.att.time_maa_x") && names.has("blocks.0.att.ln_x.weight"),
  canonicalName,
  unsupportedParts: [
    ...unsupportedParts,
    ["time mixing as it was tried after RWKV-6 (x060a, x060b)", /\.att\.(gate_w1|time_maa_rkvw_w1)$/],
  ],
  settings: [groupNormEpsilon],
  sizeSource:
    "emb.weight, blocks.0.ffn.key.weight, and blocks.0.att.time_faaaa, time_maa_w2 and time_decay_w1, with heads that divide the width",

  sizeOf(tensors) {
    const shapeOf = (part: string) => tensors.get(`blocks.0.att.${part}`)?.shape ?? [];
    const bonus = shapeOf("time_faaaa");
    const size = sizeWithHeads(tensors, bonus.length === 2 ? bonus[0] : undefined);
    const mixRank = shapeOf("time_maa_w2")[1] ?? (shapeOf(joined.mixSecond)[1] ?? 0) / mixes.length;
    const decayRank = shapeOf("time_decay_w1")[1] ?? shapeOf(joined.decayFirst)[0];
    return size && Number.isInteger(mixRank) && mixRank && decayRank ? { ...size, mixRank, decayRank } : undefined;
  },

  withInitialStates,

  newSize(size) {
    const isWide = size.width >= 4096;
    const ranks = { mixRank: isWide ? 64 : 32, decayRank: isWide ? 128 : 64 };
    return { ...newSizeWithHeads(size, usualHidden(size.width)), ...ranks };
  },

  locate,
  build,

  training: {
    firstValues,
    learning,
    adamEpsilon: 1e-8, // RWKV-v5/train.py
    adapted: [
      ...["att.key", "att.value", "att.receptance", "att.gate", "att.output"],
      ...["ffn.key", "ffn.value", "ffn.receptance"],
    ],
  },
};
