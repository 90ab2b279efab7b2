// RWKV-5 in its three forms, as graphs. Most checkpoints are of the last, which is called Eagle.
//
// Paper: "Eagle and Finch: RWKV with Matrix-Valued States and Dynamic Recurrence", arXiv 2404.05892, section 4.1. The
// forms before are in no paper; https://github.com/BlinkDL/ChatRWKV runs them (rwkv_pip_package/src/rwkv/model.py).
// Names are those of RWKV-LM's checkpoints. Try it: npx rwkv generate --model RWKV-5-World-0.4B-v2-20231113-ctx4096.pth
//
//        gate   decay               bonus
// 5.0    no     one for each head   exp(time_first), one for each head
// 5.1    yes    one for each head   exp(time_first) or time_faaaa, one for each head
// 5.2    yes    of each channel     time_faaaa, of each channel

import { elementCount } from "../dtypes.js";
import { OptionError } from "../errors.js";
import type { Graph, RowNode, WeightNode } from "../graph/graph.js";
import { GraphBuilder } from "../graph/graph-builder.js";
import { add, multiply } from "../graph/operations/elementwise.js";
import { constant, vectorRow } from "../graph/operations/leaves.js";
import { orthogonal } from "./initial-values.js";
import { type Location, stored } from "./location.js";
import { type MatrixStateSize, matrixState, withInitialStates, withStoredStates } from "./matrix-states.js";
import {
  type BuildOptions,
  countLayers,
  type FirstValuesOptions,
  type ModelDefinition,
  type NamedShapes,
  type NewModelSize,
  type WeightLearning,
} from "./model-definition.js";
import { decayOf, gatedChannelMixing, groupNorm, layerNorm, linear, silu } from "./parts.js";
import { groupNormEpsilon, settingIn } from "./settings.js";
import { fromHuggingFace } from "./tensor-names.js";

/** What distinguishes the forms. */
interface Form {
  readonly version: string;
  readonly gate: boolean;
  /** Whether decay and bonus are of each channel rather than of each head. */
  readonly byChannel: boolean;
}

/** Channels of a head in new models. */
export const newHeadSize = 64;

function build(form: Form, size: MatrixStateSize, { layerNormEpsilon, settings, dropout = 0 }: BuildOptions): Graph {
  const { layers, width, hidden, vocabulary, heads } = size;
  const g = new GraphBuilder();
  const norm = (name: string, x: RowNode) => layerNorm(g, name, x, layerNormEpsilon);
  const mixed = (name: string, x: RowNode, parts: readonly string[]) => {
    const factors = parts.map((part) => g.vector(`${name}.time_mix_${part}`, width));
    return g.tokenShift(x, g.state(width, 0), factors);
  };

  /** One row for all tokens: what each channel has, or its head. */
  const decaysAndBonuses = (name: string): { decay: RowNode; bonus: RowNode } => {
    const length = form.byChannel ? width : heads;
    const decay = decayOf(g, g.vector(`${name}.time_decay`, length));
    const isRaw = form.byChannel || size["rawBonus"] === 1;
    const bonus = isRaw
      ? g.vector(`${name}.time_faaaa`, length)
      : g.vectorFunction("exp", g.vector(`${name}.time_first`, length));
    if (form.byChannel) return { decay: vectorRow(decay), bonus: vectorRow(bonus) };
    const spread = constant(0, width);
    return { decay: add(vectorRow(decay), spread), bonus: add(vectorRow(bonus), spread) };
  };

  function timeMixing(name: string, x: RowNode): RowNode {
    const [xk, xv, xr, xg] = mixed(name, x, form.gate ? ["k", "v", "r", "g"] : ["k", "v", "r"]) as [
      RowNode,
      RowNode,
      RowNode,
      RowNode?,
    ];
    const average = g.wkv6(
      {
        ...decaysAndBonuses(name),
        receptance: linear(g, `${name}.receptance`, width, xr),
        key: linear(g, `${name}.key`, width, xk),
        value: linear(g, `${name}.value`, width, xv),
      },
      matrixState(g, name, size),
    );
    const y = groupNorm(g, `${name}.ln_x`, average, heads, settingIn(groupNormEpsilon, settings));
    return linear(g, `${name}.output`, width, xg ? multiply(y, silu(linear(g, `${name}.gate`, width, xg))) : y);
  }

  function channelMixing(name: string, x: RowNode): RowNode {
    const [xk, xr] = mixed(name, x, ["k", "r"]) as [RowNode, RowNode];
    return gatedChannelMixing(g, name, hidden, xk, xr);
  }

  let x = norm("blocks.0.ln0", g.embedding(g.matrix("emb.weight", vocabulary, width)));
  for (let i = 0; i < layers; i++) {
    x = g.checkpoint(x);
    x = add(x, g.dropout(timeMixing(`blocks.${i}.att`, norm(`blocks.${i}.ln1`, x)), dropout));
    x = add(x, g.dropout(channelMixing(`blocks.${i}.ffn`, norm(`blocks.${i}.ln2`, x)), dropout));
  }
  return g.finish(linear(g, "head", vocabulary, norm("ln_out", g.selectRows(x)), { fewestBits: 8 }));
}

/** Where weights lie that all versions with keys as the rows of their states have. */
export function locateShared({ name, shape }: WeightNode, { width, heads }: MatrixStateSize): Location | undefined {
  if (/\.time_(mix|maa)_[a-z]$/.test(name)) return stored(name).reshaped([1, 1, width], [width]);
  // Training has rows of values.
  if (name.endsWith(".att.time_state")) return stored(name).transposed();
  const isOfHeads = name.endsWith(".time_faaaa") || name.endsWith(".time_decay");
  return isOfHeads && shape[0] === width ? stored(name).reshaped([heads, width / heads], [width]) : undefined;
}

/** Layers, widths and vocabulary by the matrices; heads as given. Undefined where tensors are missing, or heads do not divide the width. */
export function sizeWithHeads(tensors: NamedShapes, heads: number | undefined): MatrixStateSize | undefined {
  const embedding = tensors.get("emb.weight")?.shape;
  const key = tensors.get("blocks.0.ffn.key.weight")?.shape;
  const layers = countLayers(tensors);
  if (embedding?.length !== 2 || key?.length !== 2 || layers === 0) return undefined;
  const [vocabulary, width] = embedding as [number, number];
  if (!heads || width % heads !== 0) return undefined;
  return withStoredStates({ layers, width, hidden: key[0] as number, vocabulary, heads }, tensors);
}

/** The sizes of a new model, with heads of 64 channels. */
export function newSizeWithHeads(size: NewModelSize, usualHidden: number): MatrixStateSize {
  const { layers, width, vocabulary, hidden = usualHidden } = size;
  if (width % newHeadSize !== 0)
    throw new OptionError("width", width, `a multiple of ${newHeadSize}, the width of a head`);
  return { layers, width, hidden, vocabulary, heads: width / newHeadSize };
}

/** 3.5 times the width, in multiples of 32. */
export function usualHidden(width: number): number {
  return Math.floor((3.5 * width) / 32) * 32;
}

/**
 * First values as in RWKV-LM v5 (https://github.com/BlinkDL/RWKV-LM, RWKV-v5/src/model.py: RWKV_Tmix_x052, RWKV_CMix_x052,
 * generate_init_weight). What attention and channel mixing add begins as nothing; decays are spread so that channels remember
 * for different times. Of 5.0 and 5.1, which train no more, decay and bonus are those of RWKV-v4neo/src/model.py.
 */
export function* firstValues(
  { name, shape }: WeightNode,
  { size, random }: Pick<FirstValuesOptions<MatrixStateSize>, "size" | "random">,
): Generator<void, Float32Array, void> {
  const values = new Float32Array(elementCount(shape));
  const [, layerText, part = name] = /^blocks\.(\d+)\.(.*)$/.exec(name) ?? [];
  const layer = Number(layerText ?? 0);
  const depth = size.layers > 1 ? layer / (size.layers - 1) : 0; // 0 in the first layer, 1 in the last
  const shallow = 1 - layer / size.layers; // 1 in the first layer, nearly 0 in the last
  const last = Math.max(1, values.length - 1);
  const byChannel = (value: (channel: number) => number) => values.map((_, c) => value(c));
  switch (part) {
    case "emb.weight":
      return byChannel(() => (2 * random.uniform() - 1) * 1e-4);
    case "att.time_decay":
      return byChannel((c) => -6 + 5 * (c / last) ** (0.7 + 1.3 * depth));
    case "att.time_first":
      return values.fill(-3);
    case "att.time_faaaa": {
      const zigzag = values.length === size.width ? 0.1 : 0;
      return byChannel((c) => depth * (1 - c / last) + zigzag * (((c + 1) % 3) - 1));
    }
    case "att.time_mix_k":
    case "ffn.time_mix_k":
    case "ffn.time_mix_r":
      return byChannel((c) => (c / size.width) ** shallow);
    case "att.time_mix_v":
      return byChannel((c) => (c / size.width) ** shallow + 0.3 * depth);
    case "att.time_mix_r":
    case "att.time_mix_g":
      return byChannel((c) => (c / size.width) ** (shallow / 2));
    case "att.ln_x.weight":
      return values.fill(((1 + layer) / size.layers) ** 0.7);
    case "att.output.weight":
    case "ffn.value.weight":
    case "ffn.receptance.weight":
      return values;
    case "head.weight": {
      const [rows, columns] = shape as [number, number];
      return yield* orthogonal(rows, columns, 0.5 * Math.sqrt(Math.max(1, rows / columns)), random);
    }
    case "att.receptance.weight":
    case "att.key.weight":
    case "att.value.weight":
    case "att.gate.weight":
    case "ffn.key.weight": {
      const [rows, columns] = shape as [number, number];
      return yield* orthogonal(
        rows,
        columns,
        /\.(key|gate)\.weight$/.test(name) && part !== "ffn.key.weight" ? 0.1 : 1,
        random,
      );
    }
    default:
      return part.endsWith(".weight") ? values.fill(1) : values; // norms
  }
}

/** What the learning rate of some weights is multiplied by, as in RWKV-LM v5 (src/model.py, configure_optimizers). */
export function learning({ name, op }: WeightNode): WeightLearning {
  const rateFactor = name.endsWith(".time_decay") ? 2 : name.endsWith(".time_first") ? 3 : 1;
  return { rateFactor, decays: op === "matrix" && name.endsWith(".weight") };
}

export const unsupportedParts = [
  ["low-rank additions (LoRA) that are not merged into its weights", /\.(lora_[AB]|base_layer)\b/],
] as const;

function definitionOf(form: Form): ModelDefinition<MatrixStateSize> {
  const { version, gate, byChannel } = form;
  return {
    version,

    matches(names, tensors) {
      const has = (part: string) => names.has(`blocks.0.att.${part}`);
      const countOf = (part: string) => elementCount(tensors.get(`blocks.0.att.${part}`)?.shape ?? [0]);
      if (!has("ln_x.weight") || !has("time_mix_k") || !has("time_decay")) return false;
      if (has("gate.weight") !== gate) return false;
      return !gate || (countOf("time_decay") === countOf("ln_x.weight")) === byChannel;
    },

    canonicalName: fromHuggingFace,
    unsupportedParts,
    settings: [groupNormEpsilon],
    sizeSource: "emb.weight, blocks.0.ffn.key.weight and blocks.0.att.time_decay, with heads that divide the width",

    sizeOf(tensors) {
      const decay = tensors.get("blocks.0.att.time_decay")?.shape ?? [];
      const size = sizeWithHeads(tensors, byChannel ? (decay.length >= 2 ? decay[0] : undefined) : elementCount(decay));
      // A bonus of 5.1 that is stored as it is, and not as its logarithm.
      const isRaw = !byChannel && tensors.has("blocks.0.att.time_faaaa");
      return size && isRaw ? { ...size, rawBonus: 1 } : size;
    },

    withInitialStates,
    newSize: (size) => newSizeWithHeads(size, gate ? usualHidden(size.width) : 4 * size.width),
    locate: locateShared,
    build: (size, options) => build(form, size, options),

    training: {
      firstValues,
      learning,
      adamEpsilon: 1e-8, // RWKV-v5/train.py
      adapted: [
        ...["att.key", "att.value", "att.receptance", "att.output"],
        ...(gate ? ["att.gate"] : []),
        ...["ffn.key", "ffn.value", "ffn.receptance"],
      ],
    },
  };
}

export const rwkv50: ModelDefinition<MatrixStateSize> = definitionOf({ version: "5.0", gate: false, byChannel: false });
export const rwkv51: ModelDefinition<MatrixStateSize> = definitionOf({ version: "5.1", gate: true, byChannel: false });
export const rwkv52: ModelDefinition<MatrixStateSize> = definitionOf({ version: "5.2", gate: true, byChannel: true });
