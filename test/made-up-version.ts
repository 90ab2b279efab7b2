// A small version that nobody trained, with all that makes later versions differ from RWKV-4 in how they are stored:
// low-rank matrices that lie transposed, stacked vectors, joined and divided matrices, a vector with a dimension of
// heads, tensors that nothing is computed from, further sizes. It shows that a version is one file: this one is not
// in src/.

import { elementCount } from "#rwkv/dtypes";
import type { Graph, WeightNode } from "#rwkv/graph/graph";
import { GraphBuilder } from "#rwkv/graph/graph-builder";
import { add, multiply, reluSquared, sigmoid } from "#rwkv/graph/operations/elementwise";
import { orthogonal } from "#rwkv/models/initial-values";
import { stored } from "#rwkv/models/location";
import { type BuildOptions, countLayers, type ModelDefinition, type ModelSize } from "#rwkv/models/model-definition";
import { type Setting, settingIn } from "#rwkv/models/settings";

export interface MadeUpSize extends ModelSize {
  readonly heads: number;
  /** Of the gate, which is the product of two small matrices. */
  readonly gateRank: number;
}

/** Of the norm before channel mixing: no tensor tells it. */
const ffnEpsilon: Setting = { name: "ffn_epsilon", usual: 1e-3, above: 0, below: 1 };

function build({ layers, width, hidden, vocabulary, gateRank }: MadeUpSize, options: BuildOptions): Graph {
  const g = new GraphBuilder();
  const small = { fewestBits: 16 } as const;
  const epsilon = settingIn(ffnEpsilon, options.settings);
  const { layerNormEpsilon } = options;
  const norm = (name: string, x: Parameters<GraphBuilder["layerNorm"]>[0], epsilon = layerNormEpsilon) =>
    g.layerNorm(x, g.vector(`${name}.weight`, width), g.vector(`${name}.bias`, width), epsilon);
  let x = g.embedding(g.matrix("emb.weight", vocabulary, width));
  for (let i = 0; i < layers; i++) {
    x = g.checkpoint(x);
    const att = `blocks.${i}.att`;
    const y = norm(`blocks.${i}.ln`, x);
    const [forKey, forValue] = g.tokenShift(y, g.state(width, 0), [
      g.vector(`${att}.mix_k`, width),
      g.vector(`${att}.mix_v`, width),
    ]);
    const k = g.matmul(g.matrix(`${att}.key`, width, width), forKey);
    const v = g.matmul(g.matrix(`${att}.value`, width, width), forValue);
    const decay = g.vectorFunction("negate", g.vectorFunction("exp", g.vector(`${att}.decay`, width)));
    const sums = { numerator: g.state(width, 0), denominator: g.state(width, 0), maxExponent: g.state(width, -1e30) };
    const average = g.wkv(k, v, decay, g.vector(`${att}.bonus`, width), sums);
    const inner = g.matmul(g.matrix(`${att}.gate_1`, gateRank, width, small), y);
    const gate = sigmoid(g.matmul(g.matrix(`${att}.gate_2`, width, gateRank, small), inner));
    x = add(x, g.dropout(multiply(gate, average), options.dropout ?? 0));
    const wide = g.matmul(g.matrix(`blocks.${i}.ffn.key`, hidden, width), norm(`blocks.${i}.ln_ffn`, x, epsilon));
    const narrow = g.matmul(g.matrix(`blocks.${i}.ffn.value`, width, hidden), reluSquared(wide));
    x = add(x, narrow);
  }
  const head = g.matrix("head.weight", vocabulary, width, { fewestBits: 8 });
  return g.finish(g.matmul(head, norm("ln_out", g.selectRows(x))));
}

export const madeUp: ModelDefinition<MadeUpSize> = {
  version: "0.1",
  matches: (names) => names.has("blocks.0.att.mixes"),
  canonicalName: (name) => name.replace(/^layers\./, "blocks."),
  unsupportedParts: [],
  ignored: [/\.att\.unused$/, /^steps$/],
  settings: [ffnEpsilon],
  sizeSource: "emb.weight, blocks.0.att.gate_1, blocks.0.att.bonus and blocks.0.ffn.value",

  sizeOf(tensors) {
    const [vocabulary, width] = tensors.get("emb.weight")?.shape ?? [];
    const [, gateRank] = tensors.get("blocks.0.att.gate_1")?.shape ?? [];
    const [heads] = tensors.get("blocks.0.att.bonus")?.shape ?? [];
    const [, hidden] = tensors.get("blocks.0.ffn.value")?.shape ?? [];
    if (!vocabulary || !width || !gateRank || !heads || !hidden) return undefined;
    return { layers: countLayers(tensors), width, hidden, vocabulary, heads, gateRank };
  },

  newSize: ({ hidden, ...size }) => ({ ...size, hidden: hidden ?? 2 * size.width, heads: size.width / 4, gateRank: 3 }),

  locate({ name }, { width, heads }) {
    const [, att, part] = /^(blocks\.\d+\.(?:att|ffn))\.(\w+)$/.exec(name) ?? [];
    switch (part && `${att?.slice(-3)}.${part}`) {
      case "att.mix_k":
        return stored(`${att}.mixes`).entry(0, 2);
      case "att.mix_v":
        return stored(`${att}.mixes`).entry(1, 2);
      case "att.key":
        return stored(`${att}.key_value`).part(0, 2);
      case "att.value":
        return stored(`${att}.key_value`).part(1, 2);
      case "att.gate_1":
      case "att.gate_2":
        return stored(name).transposed();
      case "att.bonus":
        return stored(name).reshaped([heads, width / heads], [width]);
      case "ffn.key":
        return [stored(`${att}.key_a`), stored(`${att}.key_b`)];
      default:
        return undefined;
    }
  },

  build,

  training: {
    *firstValues({ name, op, shape }: WeightNode, { embeddingRange, random }) {
      const values = new Float32Array(elementCount(shape));
      if (name === "emb.weight") return values.map(() => (2 * random.uniform() - 1) * embeddingRange);
      if (op === "matrix") return yield* orthogonal(shape[0] as number, shape[1] as number, 0.5, random);
      return values.fill(/ln\w*\.weight$/.test(name) ? 1 : name.endsWith(".mix_k") ? 0.25 : 0);
    },
    adamEpsilon: 1e-8,
    learning: ({ name, op }) => ({
      rateFactor: name.endsWith(".decay") ? 2 : 1,
      decays: op === "matrix" && !/gate/.test(name),
    }),
    adapted: ["att.key", "att.value"],
  },
};
