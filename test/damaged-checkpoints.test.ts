// Files whose bytes are not those that were written, and values that a type cannot hold: found before anyone wonders at the text.

import { execFile } from "node:child_process";
import { readFile, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { type BackendName, load, openCheckpoint, readFloat32 } from "rwkv";
import { describe, expect, test } from "vitest";
import { convert } from "#rwkv/cli/convert";
import { fixture, temporaryFolder } from "./fixture-files.js";
import { op, pickle, tensor } from "./pickle-builder.js";
import { floats, rewrite } from "./rewritten-checkpoints.js";
import { buildZip } from "./zip-builder.js";

const odd = fixture("odd.pth");
const main = fileURLToPath(new URL("../dist/cli/main.js", import.meta.url));

async function inspect(path: string): Promise<{ code: number; intact: boolean | null; warnings: string[] }> {
  const run = promisify(execFile)(process.execPath, [main, "inspect", "--json", path]);
  const { stdout, code } = await run.then(
    ({ stdout }) => ({ stdout, code: 0 }),
    (error: { stdout: string; code: number }) => error,
  );
  const { intact, warnings } = JSON.parse(stdout) as { intact: boolean | null; warnings: string[] };
  return { code, intact, warnings };
}

/** The odd model with one bit of a tensor changed: still a number, and a model that runs. */
async function damaged(name: string): Promise<string> {
  const checkpoint = await openCheckpoint(odd);
  const at = checkpoint.tensors.get(name)!.offset + 4 * 20 + 2;
  await checkpoint.close();
  const bytes = await readFile(odd);
  bytes[at]! ^= 1;
  const path = join(await temporaryFolder(), "damaged.pth");
  await writeFile(path, bytes);
  return path;
}

describe("checksums of a .pth", () => {
  test("match in a sound file, and inspect says so", async () => {
    for (const name of ["odd.pth", "odd-views.pth", "odd-bf16.pth"]) {
      expect(await inspect(fixture(name))).toEqual({ code: 0, intact: true, warnings: [] });
    }
    const path = await rewrite(odd, join(await temporaryFolder(), "written.pth"));
    expect(await inspect(path)).toEqual({ code: 0, intact: true, warnings: [] });
  });

  test("are missing in other formats", async () => {
    const path = await rewrite(odd, join(await temporaryFolder(), "odd.safetensors"));
    expect(await inspect(path)).toEqual({ code: 0, intact: null, warnings: [] });
    expect((await inspect(fixture("odd-legacy.pth"))).intact).toBe(null);
  });

  test("tell inspect which tensor is damaged", async () => {
    expect(await inspect(await damaged("blocks.1.ffn.value.weight"))).toEqual({
      code: 1,
      intact: false,
      warnings: ["tensor blocks.1.ffn.value.weight: the bytes do not match their checksum; the file is damaged"],
    });
  });

  const message = "its bytes do not match their checksum; the file was damaged when it was copied or downloaded";

  test.each<[BackendName, string, "f16" | undefined]>([
    ["wasm", "head.weight", undefined], // copied
    ["reference", "head.weight", undefined],
    ["wasm", "head.weight", "f16"], // converted
    ["native", "ln_out.bias", undefined], // vectors are always read
  ])("are compared where load reads the bytes: %s, %s, %s", async (backend, name, dtype) => {
    const path = await damaged(name);
    await expect(load(path, { backend, threads: 1, ...(dtype && { dtype }) })).rejects.toThrow(
      `tensor ${name}: ${message}`,
    );
  });

  test("are compared by convert and readFloat32, and only for the tensor that is read", async () => {
    const path = await damaged("blocks.0.att.key.weight");
    const out = join(await temporaryFolder(), "out.safetensors");
    await expect(convert(path, out)).rejects.toThrow(`tensor blocks.0.att.key.weight: ${message}`);
    const checkpoint = await openCheckpoint(path);
    await expect(readFloat32(checkpoint.tensors.get("blocks.0.att.key.weight")!)).rejects.toThrow(message);
    expect(await readFloat32(checkpoint.tensors.get("head.weight")!)).toHaveLength(33 * 31);
    await checkpoint.close();
  });

  test("that were not computed are not compared", async () => {
    const path = join(await temporaryFolder(), "none.pth");
    const root = [op.emptyDict(), op.text("w"), tensor("0"), op.setItem(), op.stop()];
    await buildZip(path, [
      { name: "m/data.pkl", bytes: pickle(op.proto(), ...root), crc32: 0 },
      { name: "m/data/0", bytes: new Uint8Array(new Float32Array([1, 2, 3, 4]).buffer), crc32: 0 },
    ]);
    const checkpoint = await openCheckpoint(path);
    expect([...(await readFloat32(checkpoint.tensors.get("w")!))]).toEqual([1, 2, 3, 4]);
    await checkpoint.close();
  });
});

test("inspect reports the zeros of a safetensors file whose download was not finished", async () => {
  const path = await rewrite(odd, join(await temporaryFolder(), "half.safetensors"));
  const size = (await readFile(path)).length;
  await truncate(path, size / 2);
  await truncate(path, size);
  const { warnings } = await inspect(path);
  expect(warnings.join()).toMatch(/matrices hold only zeros \(.*a download that was not finished/);
});

test("a safetensors file that is cut off says so", async () => {
  const path = await rewrite(odd, join(await temporaryFolder(), "cut.safetensors"));
  await truncate(path, (await readFile(path)).length - 1);
  await expect(openCheckpoint(path)).rejects.toThrow("(the file is truncated)");
});

test("inspect names the row of a value that is not a number", async () => {
  const values = new Array<number>(33 * 31).fill(0.5);
  values[5 * 31 + 7] = Number.NaN;
  const path = await rewrite(odd, join(await temporaryFolder(), "nan.pth"), (tensors) =>
    tensors.map((t) => (t.name === "emb.weight" ? floats(t.name, t.shape, values) : t)),
  );
  expect((await inspect(path)).warnings).toEqual([
    "tensor emb.weight has 1 value that is NaN or infinite, the first in row 5",
  ]);
  // In blocks it makes its block's scale NaN.
  const head = await rewrite(odd, join(await temporaryFolder(), "head.pth"), (tensors) =>
    tensors.map((t) => (t.name === "head.weight" ? floats(t.name, t.shape, values) : t)),
  );
  const blocks = join(await temporaryFolder(), "blocks.safetensors");
  await convert(head, blocks, { dtype: "q4" });
  expect((await inspect(blocks)).warnings).toEqual([
    "tensor head.weight has 1 block that is NaN or infinite, the first in row 5",
  ]);
});

describe("values that are too large for a type", () => {
  const large = async (...values: number[]) =>
    rewrite(odd, join(await temporaryFolder(), "large.safetensors"), (tensors) =>
      tensors.map((t) => {
        if (t.name !== "head.weight") return t;
        const all = new Array<number>(33 * 31).fill(0.5);
        values.forEach((value, i) => {
          all[40 * (i + 1)] = value;
        });
        return floats(t.name, t.shape, all);
      }),
    );

  test("convert refuses to make them infinite", async () => {
    const path = await large(1e5, -7e4, 65504, 65519);
    const folder = await temporaryFolder();
    await expect(convert(path, join(folder, "f16.safetensors"), { dtype: "f16" })).rejects.toThrow(
      "tensor head.weight: 2 values up to 100000 become infinite in f16, whose largest is 65504; bf16 or f32 hold them",
    );
    await convert(path, join(folder, "bf16.safetensors"), { dtype: "bf16" });
    const infinite = await large(Number.POSITIVE_INFINITY, Number.NaN);
    await convert(infinite, join(folder, "f16.safetensors"), { dtype: "f16" }); // they were so before
  });

  test("convert refuses to clamp them in blocks", async () => {
    const path = await large(1e7);
    const folder = await temporaryFolder();
    for (const dtype of ["q8", "q4"] as const) {
      // The head has q8 under q4, too.
      await expect(convert(path, join(folder, "q.safetensors"), { dtype })).rejects.toThrow(
        "tensor head.weight: 1 block has a weight too large for the scale of q8",
      );
    }
    await convert(await large(1e5), join(folder, "q.safetensors"), { dtype: "q8" });
  });

  test.each<BackendName>(["native", "wasm", "reference"])("load warns: %s", async (backend) => {
    const warnings: string[] = [];
    const onWarning = (message: string) => void warnings.push(message);
    const model = await load(await large(1e5), { backend, dtype: "f16", threads: 1, onWarning });
    await model.dispose();
    expect(warnings).toEqual([
      "tensor head.weight: 1 value up to 100000 becomes infinite in f16, whose largest is 65504; bf16 or f32 hold them",
    ]);
  });

  test.each<BackendName>(["native", "wasm"])("what is infinite, or no number, in f16 stays so: %s", async (backend) => {
    const path = await large(
      Number.POSITIVE_INFINITY,
      Number.NaN,
      Number.NEGATIVE_INFINITY,
      65504,
      2 ** -24,
      -(2 ** -14),
    );
    const logitsOf = async (on: BackendName) => {
      const model = await load(path, { backend: on, dtype: "f16", threads: 1, onWarning() {} });
      const state = model.createState();
      const rows: number[] = [];
      // One token, and so many that their products are others.
      for (const count of [1, 20]) {
        const [logits] = await model.forward([{ state, tokens: Array(count).fill(7), logits: "all" }]);
        rows.push(...(logits as Float32Array));
      }
      await model.dispose();
      return rows;
    };
    const [found, expected] = [await logitsOf(backend), await logitsOf("reference")];
    const infinite = (logits: number[]) => logits.map((logit) => (Number.isFinite(logit) ? 0 : logit));
    expect(infinite(found)).toEqual(infinite(expected));
    expect(new Set(infinite(expected)).size).toBeGreaterThan(2);
    found.forEach((logit, i) => {
      if (Number.isFinite(logit)) expect(Math.abs(logit - expected[i]!)).toBeLessThan(1e-5 * (1 + Math.abs(logit)));
    });
  });
});
