// RWKV-5 and 6 as other libraries store them: the names of Hugging Face's models, and flash-linear-attention's names and shapes.

import { load, type WritableTensor } from "rwkv";
import { describe, expect, test } from "vitest";
import { uninterrupted } from "#rwkv/interruptible";
import { rwkv50, rwkv52 } from "#rwkv/models/rwkv5";
import { rwkv6 } from "#rwkv/models/rwkv6";
import { randomGenerator } from "#rwkv/sampling/random";
import { fixture } from "./fixture-files.js";
import { changed, floats, renamed, transposed, valuesOf, weightsOf } from "./rewritten-checkpoints.js";

const [width, mixRank] = [21, 3];

/** The names of HFTok's conversion scripts. */
function huggingFace(name: string): string {
  if (name === "head.weight") return name;
  const own = name
    .replace(/^emb\./, "embeddings.")
    .replace(".ln0.", ".pre_ln.")
    .replace(".att.", ".attention.")
    .replace(".ffn.", ".feed_forward.")
    .replace(/time_mix_k$/, "time_mix_key")
    .replace(/time_mix_v$/, "time_mix_value")
    .replace(/time_mix_r$/, "time_mix_receptance")
    .replace(/time_mix_g$/, "time_mix_gate");
  return `rwkv.${own}`;
}

/** The names of flash-linear-attention's convert_from_rwkv6.py, for what is not joined. */
function fla(name: string): string {
  return name
    .replace(/^emb\./, "model.embeddings.")
    .replace(/^ln_out\./, "model.norm.")
    .replace(/^head\./, "lm_head.")
    .replace(/^blocks\./, "model.layers.")
    .replace(".ln0.", ".pre_norm.")
    .replace(".ln1.", ".attn_norm.")
    .replace(".ln2.", ".ffn_norm.")
    .replace(/\.att\.(receptance|key|value|gate)\./, (_, part: string) => `.attn.${part[0]}_proj.linear.`)
    .replace(".att.output.", ".attn.o_proj.")
    .replace(".att.ln_x.", ".attn.g_norm.")
    .replace(/\.att\.time_decay_w1$/, ".attn.w_proj.linear.lora.0.weight")
    .replace(/\.att\.time_decay_w2$/, ".attn.w_proj.linear.lora.2.weight")
    .replace(/\.att\.time_decay$/, ".attn.w_proj.linear.lora.2.bias")
    .replace(/\.att\.time_faaaa$/, ".attn.bonus")
    .replace(/\.att\.time_maa_x$/, ".attn.x_proj.0.mu")
    .replace(/\.ffn\.(key|receptance)\./, ".ffn.$1.linear.")
    .replace(/\.ffn\.time_maa_k$/, ".ffn.key.mu")
    .replace(/\.ffn\.time_maa_r$/, ".ffn.receptance.mu");
}

/** Five parts that are in the order w, k, v, r, g in the order r, w, k, v, g. */
const reordered = <T>([w, k, v, r, g]: readonly T[]): T[] => [r, w, k, v, g] as T[];

/** As flash-linear-attention writes RWKV-6: what belongs to the five mixes is joined, small matrices lie [outputs, inputs]. */
async function asFla(tensors: WritableTensor[]): Promise<WritableTensor[]> {
  const result: WritableTensor[] = [];
  const of = async (layer: string, part: string) =>
    valuesOf(tensors.find(({ name }) => name === `${layer}.att.time_maa_${part}`)!);
  for (const tensor of tensors) {
    const [, layer = "", part] = /^(blocks\.\d+)\.att\.time_(\w+)$/.exec(tensor.name) ?? [];
    if (part === "maa_w1") {
      const values = await valuesOf(tensor);
      const columns = 5 * mixRank;
      const rows = reordered(
        [0, 1, 2, 3, 4].map((mix) =>
          Array.from({ length: mixRank * width }, (_, i) => {
            return values[(i % width) * columns + mix * mixRank + Math.floor(i / width)]!;
          }),
        ),
      );
      result.push(floats(`${fla(layer)}.attn.x_proj.0.linear.weight`, [columns, width], rows.flat()));
    } else if (part === "maa_w2") {
      const values = await valuesOf(tensor);
      const parts = reordered(
        [0, 1, 2, 3, 4].map((mix) => values.slice(mix * mixRank * width, (mix + 1) * mixRank * width)),
      );
      const all = floats(
        `${fla(layer)}.attn.x_proj.2.weight`,
        [5 * mixRank, width],
        parts.flatMap((each) => [...each]),
      );
      result.push(await transposed(all));
    } else if (part === "maa_w") {
      const parts = reordered(await Promise.all([..."wkvrg"].map((mix) => of(layer, mix))));
      result.push(
        floats(
          `${fla(layer)}.attn.x_bias`,
          [5, width],
          parts.flatMap((each) => [...each]),
        ),
      );
    } else if (part && /^decay_w[12]$/.test(part)) {
      result.push({ ...(await transposed(tensor)), name: fla(tensor.name) });
    } else if (!part || !/^maa_[kvrg]$/.test(part)) {
      const isVector = tensor.shape[0] === 1;
      result.push({ ...tensor, name: fla(tensor.name), shape: isVector ? [width] : tensor.shape });
    }
  }
  return result.map((tensor) => ({ ...tensor, name: tensor.name.replace(/^blocks\./, "model.layers.") }));
}

test.each([
  ["5.0", "Hugging Face's names", renamed(huggingFace)],
  ["5.2", "Hugging Face's names", renamed(huggingFace)],
  ["6", "Hugging Face's names", renamed(huggingFace)],
  ["6", "flash-linear-attention's names and shapes", asFla],
] as const)("version %s, %s: the same weights to the bit", async (version, _, change) => {
  const official = fixture(`rwkv${version}.pth`);
  expect(await weightsOf(await changed(official, change))).toEqual(await weightsOf(official));
});

test("a bonus of heads that is stored as it is differs from one that is an exponent", async () => {
  const path = await changed(
    fixture("rwkv5.1.pth"),
    renamed((name) => name.replace("time_first", "time_faaaa")),
  );
  const model = await load(path);
  expect(model.info).toMatchObject({ version: "5.1", dimensions: { rawBonus: 1 } });
  const logitsOf = async (each: typeof model) =>
    (await each.forward([{ state: each.createState(), tokens: [1, 2, 3] }]))[0];
  const other = await load(fixture("rwkv5.1.pth"));
  expect(await logitsOf(model)).not.toEqual(await logitsOf(other));
  await model.dispose();
  await other.dispose();
});

test.each([
  ["5.2", "blocks.0.att.time_decay", [21]],
  ["5.0", "blocks.0.att.time_decay", [4]],
  ["6", "blocks.0.att.time_faaaa", [2, 10]],
  ["6", "blocks.0.att.time_maa_w2", [15]],
  ["6", "emb.weight", [29 * 21]],
])("version %s: sizes that cannot be read from %s of shape %j are an error", async (version, name, shape) => {
  const count = shape.reduce((product, each) => product * each, 1);
  const path = await changed(fixture(`rwkv${version}.pth`), (tensors) =>
    tensors.map((tensor) => (tensor.name === name ? floats(name, shape, Array(count).fill(0)) : tensor)),
  );
  await expect(load(path)).rejects.toThrow(`RWKV-${version}: expected matrices emb.weight`);
});

test("what is missing is listed with the shape that it should have", async () => {
  const missing = /^blocks\.1\.att\.(time_maa_w2|time_decay_w1|time_faaaa|time_maa_g)$/;
  const path = await changed(fixture("rwkv6.pth"), (tensors) => tensors.filter(({ name }) => !missing.test(name)));
  const error = await load(path).catch((e: Error) => e.message);
  expect(error).toContain("missing blocks.1.att.time_maa_w2 [5, 3, 21]");
  expect(error).toContain("missing blocks.1.att.time_decay_w1 [21, 5]");
  expect(error).toContain("missing blocks.1.att.time_faaaa [3, 7]");
  expect(error).toContain("missing blocks.1.att.time_maa_g [1, 1, 21]");
});

test("time mixing that was tried after RWKV-6 is told by name", async () => {
  const path = await changed(fixture("rwkv6.pth"), (all) => [...all, floats("blocks.0.att.gate_w1", [1], [0])]);
  await expect(load(path)).rejects.toThrow("an RWKV-6 model with time mixing as it was tried after RWKV-6");
});

describe("new models", () => {
  const size = { layers: 2, width: 128, vocabulary: 300 };

  test("have heads of 64 channels, and the ranks of RWKV-LM", () => {
    expect(rwkv50.newSize(size)).toEqual({ ...size, hidden: 512, heads: 2 });
    expect(rwkv52.newSize(size)).toEqual({ ...size, hidden: 448, heads: 2 });
    expect(rwkv6.newSize(size)).toEqual({ ...size, hidden: 448, heads: 2, mixRank: 32, decayRank: 64 });
    expect(() => rwkv6.newSize({ ...size, width: 96 })).toThrow("option width: expected a multiple of 64");
  });

  test("begin with the values of RWKV-LM", async () => {
    const whole = rwkv6.newSize(size);
    const elementOf = async (name: string, at: number) => {
      const weight = rwkv6.build(whole, { layerNormEpsilon: 1e-5 }).weights.find((each) => each.name === name)!;
      const options = { size: whole, embeddingRange: 1, random: randomGenerator(1) };
      return uninterrupted(rwkv6.training.firstValues(weight, options))[at];
    };
    // By the formulas of RWKV_Tmix_x060: the second of two layers, channel 64 of 128.
    expect(await elementOf("blocks.1.att.time_decay", 64)).toBeCloseTo(-6 + 5 * (64 / 127) ** 2, 5);
    expect(await elementOf("blocks.1.att.time_faaaa", 64)).toBeCloseTo(1 - 64 / 127 + 0.1, 5);
    expect(await elementOf("blocks.1.att.time_maa_k", 64)).toBeCloseTo(1 - 0.5 ** 0.5, 5);
    expect(await elementOf("blocks.1.att.time_maa_v", 64)).toBeCloseTo(1 - (0.5 ** 0.5 + 0.3), 5);
    expect(await elementOf("blocks.1.att.time_maa_r", 64)).toBeCloseTo(1 - 0.5 ** 0.25, 5);
    expect(await elementOf("blocks.0.att.ln_x.weight", 0)).toBeCloseTo(0.5 ** 0.7, 5);
  });
});
