// RWKV-7 as other libraries store it: flash-linear-attention's names and shapes, old and new, and transformers' prefix; and its
// relatives, which are told by name.

import { load, type WritableTensor } from "rwkv";
import { describe, expect, test } from "vitest";
import { fixture } from "./fixture-files.js";
import { changed, floats, renamed, transposed, valuesOf, weightsOf } from "./rewritten-checkpoints.js";

const official = fixture("rwkv7.pth");
const width = 36;

/** The names of FLA's convert_from_rwkv7.py, part by part. */
function fla(name: string): string {
  return name
    .replace(/^emb\./, "model.embeddings.")
    .replace(/^ln_out\./, "model.norm.")
    .replace(/^head\./, "lm_head.")
    .replace(/^blocks\./, "model.layers.")
    .replace(".ln0.", ".pre_norm.")
    .replace(".ln1.", ".attn_norm.")
    .replace(".ln2.", ".ffn_norm.")
    .replace(/\.att\.(receptance|key|value|output)\./, (_, part) => `.attn.${part[0] === "r" ? "r" : part[0]}_proj.`)
    .replace(".att.ln_x.", ".attn.g_norm.")
    .replace(/\.att\.([wavg])1$/, ".attn.$1_lora.lora.0.weight")
    .replace(/\.att\.([wavg])2$/, ".attn.$1_lora.lora.2.weight")
    .replace(/\.att\.([wav])0$/, ".attn.$1_lora.lora.2.bias")
    .replace(".att.", ".attn.");
}

/** As FLA writes it: small matrices transposed, vectors flat, nothing in the first layer that is not used. */
async function asFla(tensors: WritableTensor[]): Promise<WritableTensor[]> {
  const used = tensors.filter(({ name }) => !/^blocks\.0\.att\.v[012]$/.test(name));
  const changed = await Promise.all(
    used.map((tensor) => {
      if (/\.att\.[wavg][12]$/.test(tensor.name)) return transposed(tensor);
      const isFlat = /\.(k_k|k_a|[wav]0)$|ffn\.x_k$/.test(tensor.name);
      return isFlat ? { ...tensor, shape: [width] } : tensor;
    }),
  );
  return renamed(fla)(changed);
}

/** With the vectors of token shift as one tensor, as FLA once had them. */
async function withStackedMixes(tensors: WritableTensor[]): Promise<WritableTensor[]> {
  const mixes = ["r", "w", "k", "v", "a", "g"];
  const stacks = await Promise.all(
    [0, 1].map(async (layer) => {
      const parts = mixes.map((mix) => tensors.find(({ name }) => name === `model.layers.${layer}.attn.x_${mix}`)!);
      const values = await Promise.all(parts.map(valuesOf));
      return floats(
        `model.layers.${layer}.attn.x_x`,
        [6, width],
        values.flatMap((each) => [...each]),
      );
    }),
  );
  return [...tensors.filter(({ name }) => !/attn\.x_[rwkvag]$/.test(name)), ...stacks];
}

const written = (change: (tensors: WritableTensor[]) => WritableTensor[] | Promise<WritableTensor[]>) =>
  changed(official, change);

test.each([
  ["flash-linear-attention's names", asFla],
  ["its old token shift", async (tensors: WritableTensor[]) => withStackedMixes(await asFla(tensors))],
  ["transformers' prefix", renamed((name) => (name.startsWith("head") ? name : `rwkv7.${name}`))],
  [
    "no values in the first layer",
    (tensors: WritableTensor[]) => tensors.filter((t) => !/0\.att\.v[012]$/.test(t.name)),
  ],
] as const)("%s: the same weights to the bit", async (_, change) => {
  expect(await weightsOf(await written(change))).toEqual(await weightsOf(official));
});

describe("relatives that do not run are told by what they have", () => {
  test.each([
    ["blocks.0.ffn.s_emb.weight", "RWKV-7a, deep embeddings"],
    ["blocks.0.qkv.qq.weight", "RWKV-7b, deep embedding attention"],
    ["blocks.1.ffn.enn.weight", "after each channel mixing (RWKV-8)"],
    ["blocks.0.rosa.qkv.emb", "suffix automaton (ROSA of RWKV-8)"],
    ["blocks.0.att.ts_state", "full state tuning"],
    ["blocks.0.att.key.lora_A", "low-rank additions (LoRA)"],
  ])("%s", async (name, description) => {
    const path = await written((tensors) => [...tensors, floats(name, [1], [0])]);
    await expect(load(path)).rejects.toThrow(description);
  });

  test("RWKV-8 by what only it has, where it has the attention of RWKV-7b as well", async () => {
    const more = ["blocks.0.qkv.qq.weight", "blocks.0.ffn.enn.weight"].map((name) => floats(name, [1], [0]));
    const path = await written((tensors) => [...tensors, ...more]);
    await expect(load(path)).rejects.toThrow("after each channel mixing (RWKV-8)");
  });

  test("experiments with ROSA, which are named unlike any model", async () => {
    const names = ["e.weight", "rwkv1.x_r", "rosa1.rosa_qkv.emb", "o.weight"];
    const path = await written(() => names.map((name) => floats(name, [1], [0])));
    await expect(load(path)).rejects.toThrow("an experiment with ROSA, the memory by a suffix automaton of RWKV-8");
  });
});

test("what is missing is listed with the shape that it should have", async () => {
  const missing = /^blocks\.1\.att\.(w1|x_a|r_k)$|^blocks\.1\.ffn\.key/;
  const path = await written((tensors) => tensors.filter(({ name }) => !missing.test(name)));
  const error = await load(path).catch((e: Error) => e.message);
  expect(error).toContain("this is not a complete RWKV-7 model; 4 tensor(s) are wrong:");
  expect(error).toContain("missing blocks.1.att.w1 [36, 5]");
  expect(error).toContain("missing blocks.1.att.x_a [1, 1, 36]");
  expect(error).toContain("missing blocks.1.att.r_k [3, 12]");
  expect(error).toContain("missing blocks.1.ffn.key.weight [50, 36]");
});

test.each([
  ["blocks.0.att.r_k", [5, 7]],
  ["blocks.0.att.w1", [36]],
  ["emb.weight", [37 * 36]],
])(
  "sizes that cannot be read from %s of shape %j are an error that names what they are read from",
  async (name, shape) => {
    const count = shape.reduce((product, each) => product * each, 1);
    const path = await written((tensors) =>
      tensors.map((tensor) => (tensor.name === name ? floats(name, shape, Array(count).fill(0)) : tensor)),
    );
    await expect(load(path)).rejects.toThrow(/RWKV-7: expected matrices emb\.weight/);
  },
);
