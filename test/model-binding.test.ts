// Which model a checkpoint is: sizes from tensors, and one error that lists everything that is wrong.

import { cp, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { load, openCheckpoint, type WritableTensor, writePth } from "rwkv";
import { expect, test } from "vitest";
import { tensorPieces } from "#rwkv/checkpoints/read-tensor";
import { fixture, readJson, temporaryFolder } from "./fixture-files.js";

/** Writes the odd fixture with its tensors changed. */
async function changed(change: (tensors: WritableTensor[]) => WritableTensor[]): Promise<string> {
  const path = join(await temporaryFolder(), "changed.pth");
  const checkpoint = await openCheckpoint(fixture("odd.pth"));
  const tensors = [...checkpoint.tensors.values()].map(
    (t): WritableTensor => ({ ...t, bytes: () => tensorPieces(t, t.dtype) }),
  );
  await writePth(path, change(tensors));
  await checkpoint.close();
  return path;
}

test("missing, extra and misshapen tensors are listed in one error", async () => {
  const path = await changed((tensors) => [
    ...tensors
      .filter((t) => t.name !== "blocks.1.att.key.weight" && t.name !== "ln_out.bias")
      .map((t) =>
        t.name === "head.weight"
          ? { ...t, shape: [31, 33] }
          : t.name === "blocks.0.ln1.bias"
            ? { ...t, dtype: "i32" as const }
            : t,
      ),
    { name: "blocks.0.att.extra", dtype: "f32", shape: [0], bytes: () => [] },
  ]);
  const error = await load(path).catch((e: Error) => e.message);
  expect(error).toContain("this is not a complete RWKV-4 model; 5 tensor(s) are wrong:");
  expect(error).toContain("missing blocks.1.att.key.weight [31, 31]");
  expect(error).toContain("missing ln_out.bias [31]");
  expect(error).toContain("head.weight: expected shape [33, 31], found [31, 33]");
  expect(error).toContain("blocks.0.ln1.bias: expected floating point, found i32");
  expect(error).toContain("unexpected blocks.0.att.extra");
});

test("a tensor of a thousandth layer does not make a thousand lines", async () => {
  const path = await changed((tensors) => [
    ...tensors,
    { name: "blocks.999.ln1.bias", dtype: "f32", shape: [0], bytes: () => [] },
  ]);
  const error = await load(path).catch((e: Error) => e.message);
  expect(String(error).split("\n").length).toBeLessThan(50);
  expect(error).toMatch(/and \d+ more/);
});

test("other versions and other models are named", async () => {
  const rename = (from: RegExp, to: string) =>
    changed((tensors) => tensors.map((t) => ({ ...t, name: t.name.replace(from, to) })));
  await expect(load(await rename(/time_mix_k/, "time_maa_x"))).rejects.toThrow(
    "not an RWKV model: expected tensors such as blocks.0.att.time_first",
  );
  await expect(load(await rename(/time_mix_k/, "x_r"))).rejects.toThrow("RWKV-7: expected matrices emb.weight");
  await expect(load(await rename(/blocks/, "layers"))).rejects.toThrow("not an RWKV model");
});

test("config.json beside the file: tied embeddings, and claims that disagree", async () => {
  const folder = await temporaryFolder();
  await cp(fixture("odd-hugging-face"), folder, { recursive: true });
  const config = readJson<Record<string, unknown>>(join(folder, "config.json"));
  await writeFile(join(folder, "config.json"), JSON.stringify({ ...config, hidden_size: 32, num_hidden_layers: 3 }));
  await expect(load(folder)).rejects.toThrow(
    "num_hidden_layers 3, but the tensors have 2; hidden_size 32, but the tensors have 31",
  );

  const index = readJson<{ weight_map: Record<string, string> }>(join(folder, "model.safetensors.index.json"));
  expect(index.weight_map["head.weight"]).toBe("model-00002-of-00002.safetensors");
  await writeFile(join(folder, "config.json"), JSON.stringify({ ...config, tie_word_embeddings: true }));
  const model = await load(folder);
  expect(model.info.layers).toBe(2);
  await model.dispose();
});

test("options are checked by name", async () => {
  const path = fixture("odd.pth");
  // @ts-expect-error: what a JavaScript caller may write
  await expect(load(path, { dtype: "q3" })).rejects.toThrow(
    'option dtype: expected f32, f16, bf16, q8, q4, found "q3"',
  );
  // @ts-expect-error: likewise
  await expect(load(path, { backend: "constructor" })).rejects.toThrow(
    "option backend: expected native, wasm, webgpu, reference, auto",
  );
  await expect(load(path, { threads: 0 })).rejects.toThrow(
    "option threads: expected a whole number from 1 to 256, found 0",
  );
  await expect(load(path, { threads: 1.5 })).rejects.toThrow("option threads");
});
