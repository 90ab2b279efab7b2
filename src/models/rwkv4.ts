// RWKV-4, as a graph.
//
// Paper: "RWKV: Reinventing RNNs for the Transformer Era", arXiv 2305.13048v2. Section 3.1.1 token shift (equations
// 11-15), 3.1.2 wkv (16), 3.1.3 output gating (17) and channel mixing (18), appendix D the numerically safe recurrence.
// Names are those of RWKV-LM's checkpoints. Try it: npx rwkv generate --model RWKV-4-Pile-169M-20220807-8023.pth

import { elementCount } from "../dtypes.js";
import type { Graph, RowNode, WeightNode } from "../graph/graph.js";
import { GraphBuilder } from "../graph/graph-builder.js";
import { add, multiply, sigmoid } from "../graph/operations/elementwise.js";
import { orthogonal } from "./initial-values.js";
import { stored } from "./location.js";
import {
  type BuildOptions,
  countLayers,
  type FirstValuesOptions,
  type ModelDefinition,
  type ModelSize,
} from "./model-definition.js";
import { gatedChannelMixing, layerNorm, linear } from "./parts.js";
import { fromHuggingFace } from "./tensor-names.js";

/** The maximum exponent before the first token: low enough that any key replaces it. */
const noExponent = -1e30;

function build(size: ModelSize, { layerNormEpsilon, dropout = 0 }: BuildOptions): Graph {
  const { layers, width, hidden, vocabulary } = size;
  const g = new GraphBuilder();

  const norm = (name: string, x: RowNode) => layerNorm(g, name, x, layerNormEpsilon);

  function timeMixing(name: string, x: RowNode): RowNode {
    const previous = g.state(width, 0);
    const state = {
      numerator: g.state(width, 0),
      denominator: g.state(width, 0),
      maxExponent: g.state(width, noExponent),
    };
    const [xk, xv, xr] = g.tokenShift(x, previous, [
      g.vector(`${name}.time_mix_k`, width),
      g.vector(`${name}.time_mix_v`, width),
      g.vector(`${name}.time_mix_r`, width),
    ]);
    const r = sigmoid(linear(g, `${name}.receptance`, width, xr));
    const k = linear(g, `${name}.key`, width, xk);
    const v = linear(g, `${name}.value`, width, xv);
    const w = g.vectorFunction("negate", g.vectorFunction("exp", g.vector(`${name}.time_decay`, width)));
    const u = g.vector(`${name}.time_first`, width);
    return linear(g, `${name}.output`, width, multiply(r, g.wkv(k, v, w, u, state)));
  }

  function channelMixing(name: string, x: RowNode, previous: ReturnType<GraphBuilder["state"]>): RowNode {
    const [xk, xr] = g.tokenShift(x, previous, [
      g.vector(`${name}.time_mix_k`, width),
      g.vector(`${name}.time_mix_r`, width),
    ]);
    return gatedChannelMixing(g, name, hidden, xk, xr);
  }

  let x = norm("blocks.0.ln0", g.embedding(g.matrix("emb.weight", vocabulary, width)));
  for (let i = 0; i < layers; i++) {
    x = g.checkpoint(x);
    const channelPrevious = g.state(width, 0); // first of the layer's five vectors, as in ChatRWKV's states
    x = add(x, g.dropout(timeMixing(`blocks.${i}.att`, norm(`blocks.${i}.ln1`, x)), dropout));
    x = add(x, g.dropout(channelMixing(`blocks.${i}.ffn`, norm(`blocks.${i}.ln2`, x), channelPrevious), dropout));
  }
  // Every logit depends on the head, so it is not quantized to fewer than 8 bits.
  return g.finish(linear(g, "head", vocabulary, norm("ln_out", g.selectRows(x)), { fewestBits: 8 }));
}

/**
 * First values as in RWKV-LM v4 (https://github.com/BlinkDL/RWKV-LM, RWKV-v4/src/model.py: RWKV_Init, RWKV_TimeMix,
 * RWKV_ChannelMix). Attention and gates begin as nothing, so that a layer first passes its input on; decays are
 * spread so that channels remember for different times.
 */
function* firstValues(
  { name, shape }: WeightNode,
  { size, embeddingRange, random }: FirstValuesOptions,
): Generator<void, Float32Array, void> {
  const values = new Float32Array(elementCount(shape));
  const [, layerText, part = name] = /^blocks\.(\d+)\.(.*)$/.exec(name) ?? [];
  const layer = Number(layerText ?? 0);
  const depth = size.layers > 1 ? layer / (size.layers - 1) : 0; // 0 in the first layer, 1 in the last
  const shallow = 1 - layer / size.layers; // 1 in the first layer, nearly 0 in the last
  const width = shape[0] as number;
  const byChannel = (value: (channel: number) => number) => values.map((_, c) => value(c));
  switch (part) {
    case "emb.weight":
      return byChannel(() => (2 * random.uniform() - 1) * embeddingRange);
    case "att.time_decay":
      return byChannel((c) => -5 + 8 * (c / Math.max(1, width - 1)) ** (0.7 + 1.3 * depth));
    case "att.time_first":
      return byChannel((c) => Math.log(0.3) + 0.5 * (((c + 1) % 3) - 1));
    case "att.time_mix_k":
    case "ffn.time_mix_k":
    case "ffn.time_mix_r":
      return byChannel((c) => (c / width) ** shallow);
    case "att.time_mix_v":
      return byChannel((c) => (c / width) ** shallow + 0.3 * depth);
    case "att.time_mix_r":
      return byChannel((c) => (c / width) ** (shallow / 2));
    case "att.key.weight":
    case "att.receptance.weight":
    case "att.output.weight":
    case "ffn.value.weight":
    case "ffn.receptance.weight":
      return values;
    case "att.value.weight":
    case "ffn.key.weight":
    case "head.weight": {
      const [rows, columns] = shape as [number, number];
      const gain = Math.sqrt(Math.max(1, rows / columns)) * (part === "head.weight" ? 0.5 : 1);
      return yield* orthogonal(rows, columns, gain, random);
    }
    default:
      return part.endsWith(".weight") ? values.fill(1) : values; // norms
  }
}

/** What the learning rate of some weights is multiplied by, as in RWKV-LM v4 (src/model.py, configure_optimizers). */
const rateFactors: readonly (readonly [ending: string, factor: number])[] = [
  [".time_decay", 2],
  [".time_first", 3],
];

export const rwkv4: ModelDefinition = {
  version: "4",

  matches(names) {
    const has = (mark: RegExp) => [...names].some((name) => mark.test(name));
    return (
      has(/^blocks\.\d+\.att\.time_first$/) &&
      has(/^blocks\.\d+\.att\.time_mix_k$/) &&
      !has(/^blocks\.\d+\.att\.ln_x\.weight$/)
    );
  },

  // RWKV-LM's model.py has them behind options (pre_ffn, tiny_att_dim, head_qk, my_pos_emb).
  unsupportedParts: [
    ["channel mixing in place of the first time mixing (pre_ffn)", /^blocks\.\d+\.ffnPre\./],
    ["tiny attention (RWKV-4a and 4b)", /^blocks\.\d+\.tiny_\w+/],
    ["attention in the head (head_qk)", /^(head_[qk]\.weight|copy_mask)$/],
    ["position embeddings (my_pos_emb)", /(^|\.)pos_emb_[xy]$/],
    ["low-rank additions (LoRA) that are not merged into its weights", /\.(lora_[AB]|base_layer)\b/],
  ],

  canonicalName: fromHuggingFace,

  sizeSource: "emb.weight and blocks.0.ffn.key.weight",

  sizeOf(tensors) {
    const embedding = tensors.get("emb.weight")?.shape;
    const key = tensors.get("blocks.0.ffn.key.weight")?.shape;
    const layers = countLayers(tensors);
    if (embedding?.length !== 2 || key?.length !== 2 || layers === 0) return undefined;
    return {
      layers,
      width: embedding[1] as number,
      hidden: key[0] as number,
      vocabulary: embedding[0] as number,
    };
  },

  newSize({ layers, width, vocabulary, hidden = 4 * width }) {
    return { layers, width, hidden, vocabulary };
  },

  locate({ name }, { width }) {
    return /\.time_mix_\w+$/.test(name) ? stored(name).reshaped([1, 1, width], [width]) : undefined;
  },

  build,

  // It is the first of a layer's five vectors.
  lastRowOffset: ({ layers, width }) => (layers - 1) * 5 * width,

  training: {
    firstValues,
    adamEpsilon: 1e-8,
    learning({ name, op }) {
      const rateFactor = rateFactors.find(([ending]) => name.endsWith(ending))?.[1] ?? 1;
      return { rateFactor, decays: op === "matrix" };
    },
    adapted: ["att.key", "att.value", "att.receptance", "att.output", "ffn.key", "ffn.value", "ffn.receptance"],
  },
};
