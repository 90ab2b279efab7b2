// Adapters that are put onto a model while it is loaded: a model with one computes what a model with the product in its weights does.

import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  type LoadOptions,
  load,
  openCheckpoint,
  readFloat32,
  type WritableTensor,
  writePth,
  writeSafetensors,
} from "rwkv";
import { train } from "rwkv/training";
import { beforeAll, describe, expect, test } from "vitest";
import { loraSource } from "#rwkv/cli/option-parsers";
import { rwkv } from "./command.js";
import { loadable, maxDifference } from "./environment.js";
import { fixture, temporaryFolder } from "./fixture-files.js";

const base = fixture("odd.pth");
const tokens = [3, 14, 15, 9, 2, 6, 5, 31];

interface Weights {
  readonly shapes: ReadonlyMap<string, readonly number[]>;
  readonly values: ReadonlyMap<string, Float32Array>;
}

async function weightsOf(path: string): Promise<Weights> {
  const checkpoint = await openCheckpoint(path);
  const shapes = new Map([...checkpoint.tensors].map(([name, { shape }]) => [name, shape]));
  const values = new Map<string, Float32Array>();
  for (const [name, tensor] of checkpoint.tensors) values.set(name, await readFloat32(tensor));
  await checkpoint.close();
  return { shapes, values };
}

let odd: Weights;
let shapes: Weights["shapes"];
let values: Weights["values"];
beforeAll(async () => {
  odd = await weightsOf(base);
  ({ shapes, values } = odd);
});

/** Numbers that differ by name, so that no product is another's. */
function numbers(name: string, length: number): Float32Array {
  let seed = [...name].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) >>> 0, 7);
  return Float32Array.from({ length }, () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return (seed / 2 ** 32 - 0.5) / 2;
  });
}

function tensor(
  name: string,
  shape: readonly number[],
  content = numbers(
    name,
    shape.reduce((a, b) => a * b, 1),
  ),
): WritableTensor {
  return {
    name,
    dtype: "f32",
    shape,
    bytes: () => [new Uint8Array(content.buffer, content.byteOffset, content.byteLength)],
  };
}

interface Product {
  readonly module: string;
  readonly rank: number;
  /** So that the numbers of two products for a module differ. */
  readonly salt?: string;
}

const product = ({ module, rank, salt = "" }: Product, { shapes } = odd) => {
  const [outputs, inputs] = shapes.get(`${module}.weight`) as [number, number];
  const a = numbers(`${salt}${module}A`, rank * inputs);
  const b = numbers(`${salt}${module}B`, outputs * rank);
  return { outputs, inputs, a, b };
};

/** The tensors of an adapter; `named` says how a file calls them. */
function adapter(
  products: readonly Product[],
  named: (module: string, half: string) => string,
  of: Weights = odd,
): WritableTensor[] {
  return products.flatMap((each) => {
    const { outputs, inputs, a, b } = product(each, of);
    return [
      tensor(named(each.module, "A"), [each.rank, inputs], a),
      tensor(named(each.module, "B"), [outputs, each.rank], b),
    ];
  });
}

const oldName = (module: string, half: string) => `${module}.lora_${half}`;
const peftName = (module: string, half: string) => `base_model.model.${module}.lora_${half}.weight`;

/** The base model with products in its weights, and others in place of some. */
async function merged(
  products: readonly (Product & { readonly factor: number })[],
  replaced: Record<string, Float32Array> = {},
  of: Weights = odd,
) {
  const own = new Map(of.values);
  for (const each of products) {
    const { outputs, inputs, a, b } = product(each, of);
    const weight = Float64Array.from(own.get(`${each.module}.weight`)!);
    for (let o = 0; o < outputs; o++) {
      for (let r = 0; r < each.rank; r++) {
        for (let i = 0; i < inputs; i++)
          weight[o * inputs + i]! += each.factor * b[o * each.rank + r]! * a[r * inputs + i]!;
      }
    }
    own.set(`${each.module}.weight`, Float32Array.from(weight));
  }
  for (const [name, content] of Object.entries(replaced)) own.set(name, content);
  const path = join(await temporaryFolder(), "merged.safetensors");
  await writeSafetensors(
    path,
    [...own].map(([name, content]) => tensor(name, of.shapes.get(name)!, content)),
  );
  return path;
}

async function logits(path: string, options: LoadOptions = {}): Promise<Float32Array> {
  const model = await load(path, { onWarning() {}, ...options });
  const [row] = await model.forward([{ state: model.createState(), tokens, logits: "all" }]);
  await model.dispose();
  return row!;
}

const ffn = { module: "blocks.1.ffn.value", rank: 5 };
const products: Product[] = [
  { module: "blocks.0.att.receptance", rank: 3 },
  { module: "blocks.0.att.output", rank: 1 },
  { module: "blocks.1.att.key", rank: 4 },
  ffn,
  { module: "head", rank: 2 },
];

test.each(loadable)(
  "$backend, $threads threads: as if the products were in the weights",
  async ({ backend, threads }) => {
    const path = join(await temporaryFolder(), "lora.pth");
    await writePth(path, adapter(products, oldName));
    const expected = await logits(await merged(products.map((each) => ({ ...each, factor: 0.5 }))), {
      backend: "reference",
    });
    const found = await logits(base, { backend, threads, lora: { source: path, strength: 0.5 } });
    expect(maxDifference(found, expected)).toBeLessThan(2e-5);
    expect(maxDifference(found, await logits(base))).toBeGreaterThan(0.01);
    const nothing = await logits(base, { backend, threads, lora: { source: path, strength: 0 } });
    expect(maxDifference(nothing, await logits(base, { backend, threads }))).toBeLessThan(1e-6);
  },
);

test.each([
  ["f16", 2e-3],
  ["bf16", 2e-2],
  ["q8", 5e-2],
  ["q4", 0.3],
] as const)("beside matrices of %s", async (dtype, tolerance) => {
  const path = join(await temporaryFolder(), "lora.safetensors");
  await writeSafetensors(path, adapter([ffn], oldName));
  const lora = { source: path, strength: 2 };
  // The product is not quantized with its matrix, so it changes the logits about as much as beside float32.
  const change = async (options: LoadOptions) => {
    const [found, without] = [await logits(base, { ...options, lora }), await logits(base, options)];
    return found.map((logit, i) => logit - without[i]!);
  };
  const plain = await change({});
  expect(Math.max(...plain.map(Math.abs))).toBeGreaterThan(0.3);
  const found = await change({ dtype });
  expect(maxDifference(found, plain)).toBeLessThan(tolerance);
  expect(maxDifference(found, await change({ dtype, backend: "reference" }))).toBeLessThan(0.05);
});

test.each(["native", "wasm", "reference"] as const)("on RWKV-7: %s", async (backend) => {
  const newer = fixture("rwkv7.pth");
  const weights = await weightsOf(newer);
  const targets = [...weights.shapes.keys()].flatMap((name) => {
    const [, module] = /^(blocks\..*\.(?:receptance|key|value|output))\.weight$/.exec(name) ?? [];
    return module === undefined ? [] : [{ module, rank: 2 }];
  });
  expect(targets.length % 6).toBe(0); // four of time mixing, two of channel mixing
  const path = join(await temporaryFolder(), "lora.pth");
  await writePth(path, adapter(targets, oldName, weights));
  const expected = await merged(
    targets.map((each) => ({ ...each, factor: 0.5 })),
    {},
    weights,
  );
  const found = await logits(newer, { backend, lora: { source: path, strength: 0.5 } });
  expect(maxDifference(found, await logits(expected, { backend }))).toBeLessThan(1e-4);
  expect(maxDifference(found, await logits(newer, { backend }))).toBeGreaterThan(0.01);
});

test("a folder of Hugging Face's PEFT tells alpha; several adapters at once, some for chosen layers", async () => {
  const folder = join(await temporaryFolder(), "run-adapter");
  await mkdir(folder);
  await writeSafetensors(join(folder, "adapter_model.safetensors"), adapter(products, peftName));
  await writeFile(join(folder, "adapter_config.json"), JSON.stringify({ peft_type: "LORA", lora_alpha: 6, r: 3 }));
  const other = join(await temporaryFolder(), "other.pth");
  const more = products.map((each) => ({ ...each, rank: each.rank + 1, salt: "other" }));
  await writePth(other, adapter(more, oldName));
  const lora = [folder, { source: other, strength: -0.25, layers: [1] }];
  const expected = await merged([
    ...products.map((each) => ({ ...each, factor: 6 / each.rank })),
    ...more.filter(({ module }) => module.startsWith("blocks.1.")).map((each) => ({ ...each, factor: -0.25 })),
  ]);
  expect(maxDifference(await logits(base, { lora }), await logits(expected))).toBeLessThan(1e-4);
  const file = join(folder, "adapter_model.safetensors");
  expect(await logits(base, { lora: [file, lora[1]!] })).toEqual(await logits(base, { lora }));
  await writeFile(join(folder, "adapter_config.json"), JSON.stringify({ lora_alpha: 6, use_rslora: true }));
  const stabilized = await merged(products.map((each) => ({ ...each, factor: 6 / Math.sqrt(each.rank) })));
  expect(maxDifference(await logits(base, { lora: folder }), await logits(stabilized))).toBeLessThan(1e-4);
});

test("PiSSA: what it began with is taken away, and what it learned is put on", async () => {
  const folder = await temporaryFolder();
  const [initial, learned] = [join(folder, "init_pissa.pth"), join(folder, "rwkv-3.pth")];
  const first = products.map((each) => ({ ...each, salt: "initial" }));
  await writePth(
    initial,
    adapter(first, (module, half) => `model.${module}.init_lora_${half}`),
  );
  await writePth(learned, adapter(products, oldName));
  const expected = await merged([
    ...first.map((each) => ({ ...each, factor: -1 })),
    ...products.map((each) => ({ ...each, factor: 1 })),
  ]);
  expect(maxDifference(await logits(base, { lora: [initial, learned] }), await logits(expected))).toBeLessThan(1e-4);
});

test.each(["bone", "disha"])(
  "Bone: every block of inputs is added to, the last as far as it goes (.%s)",
  async (kind) => {
    const path = join(await temporaryFolder(), "bone.pth");
    const rank = 4; // of 31 inputs
    const modules = ["blocks.0.att.key", "blocks.1.ffn.key"];
    const shapeOf = (module: string) => shapes.get(`${module}.weight`) as [number, number];
    const tensors = modules.map((module) => tensor(`${module}.${kind}`, [rank, shapeOf(module)[0]]));
    await writePth(path, tensors);
    const changed = modules.map((module) => {
      const [outputs, inputs] = shapeOf(module);
      const added = numbers(`${module}.${kind}`, rank * outputs);
      const weight = values.get(`${module}.weight`)!;
      const sum = weight.map(
        (value, at) => value + 0.5 * added[((at % inputs) % rank) * outputs + Math.floor(at / inputs)]!,
      );
      return [`${module}.weight`, sum] as const;
    });
    const expected = await merged([], Object.fromEntries(changed));
    const warnings: string[] = [];
    const found = await logits(base, {
      lora: { source: path, strength: 0.5 },
      onWarning: (line) => warnings.push(line),
    });
    expect(maxDifference(found, await logits(expected))).toBeLessThan(2e-5);
    await logits(base, { lora: path, onWarning: (line) => warnings.push(line) });
    expect(warnings).toEqual([]);
  },
);

test("norms and decays that were trained beside them take the place of the model's", async () => {
  const path = join(await temporaryFolder(), "lora.pth");
  const decay = numbers("decay", shapes.get("blocks.0.att.time_decay")![0]!);
  await writePth(path, [...adapter([ffn], oldName), tensor("blocks.0.att.time_decay", [decay.length], decay)]);
  const warnings: string[] = [];
  const found = await logits(base, { lora: path, onWarning: (line) => warnings.push(line) });
  const expected = await merged([{ ...ffn, factor: 1 }], { "blocks.0.att.time_decay": decay });
  expect(maxDifference(found, await logits(expected))).toBeLessThan(2e-5);
  expect(warnings).toEqual([expect.stringContaining("does not tell its alpha")]);
});

test("what our own training learned is an adapter, too", async () => {
  const folder = await temporaryFolder();
  const [data, out] = [join(folder, "data.txt"), join(folder, "run")];
  await writeFile(data, "abcdefghijklmnopqrstuvwxyz".repeat(20));
  const from = fixture("letters.safetensors");
  const result = await train({
    data,
    out,
    from,
    lora: { rank: 2, alpha: 5 },
    steps: 3,
    context: 16,
    batch: 2,
    validation: 0,
    learningRate: 0.02,
  });
  const text = await logits(result.folder);
  const warnings: string[] = [];
  const onWarning = (line: string) => warnings.push(line);
  const found = await logits(from, { lora: join(out, "adapter.safetensors"), onWarning });
  expect(maxDifference(found, text)).toBeLessThan(2e-5);
  expect(maxDifference(found, await logits(from))).toBeGreaterThan(0.01);
  // The run's folder has it beside a whole model.
  expect(await logits(from, { lora: out, onWarning })).toEqual(found);
  expect(warnings).toEqual([]);
  const { shapes, values } = await weightsOf(from);
  const another = join(folder, "another.safetensors");
  await writeSafetensors(
    another,
    [...values].map(([name, content]) =>
      tensor(
        name,
        shapes.get(name)!,
        content.map((value) => value * 1.5),
      ),
    ),
  );
  await logits(another, { lora: out, onWarning });
  expect(warnings).toEqual([expect.stringContaining("adapter.safetensors: was learned beside another model")]);
});

test("the command line puts adapters on, with a strength, onto layers", async () => {
  const folder = await temporaryFolder();
  const [path, out] = [join(folder, "a:1.pth"), join(folder, "logits")];
  await writePth(path, adapter(products, oldName));
  const run = (...lora: string[]) =>
    rwkv(["logits", "--model", base, "--tokens", tokens.join(), "--out", out, ...lora]);
  const given = await run("--lora", `${path}:0.5:1`, "--lora", `${path}:0.25`);
  expect([given.code, given.stderr]).toEqual([0, expect.any(String)]);
  const expected = await logits(base, {
    lora: [
      { source: path, strength: 0.5, layers: [1] },
      { source: path, strength: 0.25 },
    ],
  });
  const written = new Float32Array((await readFile(out)).slice().buffer);
  expect(maxDifference(written, expected.subarray(-written.length))).toBeLessThan(1e-6);
  expect((await run("--lora", `${path}:0.5:0-1,7`)).stderr).toMatch(/option lora.layers: expected layers of the model/);
  expect((await run("--lora", "/nowhere.pth")).stderr).toMatch(/\/nowhere.pth: no such file/);
});

test("the command line says what is wrong behind an adapter's file", async () => {
  const file = join(await temporaryFolder(), "a:1.pth");
  await writeFile(file, "");
  const layers = "0-11,15";
  expect(loraSource(`${file}:0.5:${layers}`).layers).toEqual([...Array.from({ length: 12 }, (_, i) => i), 15]);
  expect(loraSource("https://example.org/a.pth:2")).toEqual({ source: "https://example.org/a.pth", strength: 2 });
  for (const [text, message] of [
    [`${file}:abc`, 'found "abc" after the file'],
    [`${file}:abc:0.5`, 'found "abc" after the file'],
    [`${file}:0.5:a-b`, 'found "0.5:a-b" after the file'],
    [`${file}:0.5:1-0`, "expected layers from the lower to the higher, as 0-11,15; found 1-0"],
    [`${file}:0.5:0-1-2`, "expected layers from the lower to the higher, as 0-11,15; found 0-1-2"],
  ] as const) {
    expect(() => loraSource(text), text).toThrow(message);
  }
});

describe("what cannot be put on is an error that says why", () => {
  const half = (name: string, shape: readonly number[]) => tensor(name, shape);
  const w = 31;
  test.each<[string, () => WritableTensor[], RegExp]>([
    [
      "no products",
      () => [half("blocks.0.ln1.weight", [w])],
      /expected an adapter with tensors named .lora_A and .lora_B/,
    ],
    [
      "half of one",
      () => [half("blocks.0.att.key.lora_A", [2, w])],
      /blocks.0.att.key: expected lora_A and lora_B, found only lora_A/,
    ],
    [
      "two of one",
      () => [...adapter([ffn], oldName), ...adapter([ffn], peftName)],
      /two tensors stand for blocks.1.ffn.value.lora_A/,
    ],
    [
      "another rank",
      () => [half("blocks.0.att.key.lora_A", [2, w]), half("blocks.0.att.key.lora_B", [w, 3])],
      /blocks.0.att.key.lora_B: expected shape \[31, 2\] for blocks.0.att.key \[31, 31\], found \[31, 3\]/,
    ],
    [
      "another width",
      () => [half("blocks.0.att.key.lora_A", [2, 30]), half("blocks.0.att.key.lora_B", [w, 2])],
      /expected shape \[2, 31\]/,
    ],
    [
      "no rank",
      () => [half("blocks.0.att.key.lora_A", [0, w]), half("blocks.0.att.key.lora_B", [w, 0])],
      /expected shape \[rank, 31\]/,
    ],
    [
      "a vector",
      () => [half("blocks.0.att.key.lora_A", [w]), half("blocks.0.att.key.lora_B", [w, w])],
      /expected shape \[31, 31\] for .* found \[31\]/,
    ],
    [
      "a layer that there is not",
      () => [half("blocks.9.att.key.lora_A", [2, w]), half("blocks.9.att.key.lora_B", [w, 2])],
      /blocks.9.att.key: expected a matrix of this RWKV-4 model/,
    ],
    ["the embedding", () => [half("emb.lora_A", [2, w]), half("emb.lora_B", [33, 2])], /emb: expected a matrix/],
    [
      "something else",
      () => [...adapter([ffn], oldName), half("blocks.0.att.gate", [w])],
      /unexpected blocks.0.att.gate/,
    ],
    [
      "a matrix",
      () => [...adapter([ffn], oldName), half("blocks.0.att.key.weight", [w, w])],
      /blocks.0.att.key.weight: expected a vector of shape/,
    ],
    [
      "a vector of another size",
      () => [...adapter([ffn], oldName), half("blocks.0.ln1.bias", [w + 1])],
      /expected a vector of shape \[31\], found \[32\]/,
    ],
    [
      "MiSS",
      () => [half("blocks.0.att.key.miss_block", [2, w])],
      /a MiSS adapter of Hugging Face's PEFT, which cannot be applied/,
    ],
    [
      "Bat",
      () => [half("blocks.0.att.key.bone", [2, 3, 3])],
      /expected shape \[rank, outputs\], found \[2, 3, 3\]; Bat cannot be/,
    ],
    [
      "Bone of another width",
      () => [half("blocks.0.att.key.bone", [2, 30])],
      /expected shape \[rank up to 31, 31\] .*, found \[2, 30\]/,
    ],
    ["Bone of no rank", () => [half("blocks.0.att.key.disha", [0, w])], /expected shape \[rank up to 31, 31\]/],
    ["Bone of too many ranks", () => [half("blocks.0.att.key.disha", [32, w])], /expected shape \[rank up to 31, 31\]/],
    [
      "several kinds",
      () => [...adapter([ffn], oldName), half("blocks.0.att.key.bone", [2, w])],
      /expected products of one kind, found several/,
    ],
    ["DoRA", () => [half("blocks.0.att.key.lora_magnitude_vector", [w])], /DoRA/],
  ])("%s", async (_, tensors, message) => {
    const path = join(await temporaryFolder(), "lora.safetensors");
    await writeSafetensors(path, tensors());
    await expect(load(base, { lora: path, onWarning() {} })).rejects.toThrow(message);
  });

  test.each([
    [{ rwkv_version: "7" }, /expected an adapter for RWKV-4, found one for RWKV-7/],
    [{ lora_alpha: "" }, /lora_alpha: expected a number/],
    [{ lora_alpha: " " }, /lora_alpha: expected a number/],
  ])("%#: the metadata %o", async (metadata, message) => {
    const path = join(await temporaryFolder(), "adapter.safetensors");
    await writeSafetensors(path, adapter([ffn], oldName), { metadata: metadata as Record<string, string> });
    await expect(load(base, { lora: path, onWarning() {} })).rejects.toThrow(message);
  });

  test.each([
    ['{"peft_type": "MISS"}', /adapter_config.json: expected an adapter of peft_type LORA, found MISS/],
    ['{"use_dora": true}', /use_dora is true/],
    ['{"alpha_pattern": {"key": 3}}', /alpha_pattern/],
    ['{"lora_alpha": "a lot"}', /adapter_config.json: lora_alpha: expected a number/],
    ["[]", /adapter_config.json: expected a JSON object/],
    ["{", /adapter_config.json: not valid JSON/],
  ])("%#: the configuration %s", async (config, message) => {
    const folder = await temporaryFolder();
    await writeSafetensors(join(folder, "adapter_model.safetensors"), adapter([ffn], peftName));
    await writeFile(join(folder, "adapter_config.json"), config);
    await expect(load(base, { lora: folder })).rejects.toThrow(message);
  });

  test.each([
    [{ source: base, strength: Number.NaN }, "option lora.strength: expected a finite number"],
    [{ source: base, layers: [1, 2] }, "option lora.layers: expected layers of the model, from 0 to 1, found 2"],
    [{ source: base, layers: [] }, "option lora.layers: expected one or more layers of the model, from 0 to 1"],
    [
      { source: base, stength: 2 },
      'option lora: expected adapters with source, strength, layers and nothing else, found "stength"',
    ],
    [{ file: base }, "option lora: expected adapters: paths, URLs or bytes, or objects with one of these as source"],
    [{ source: null }, "option lora: expected adapters: paths"],
    [
      [base, 5],
      "option lora: expected adapters: paths, URLs or bytes, or objects with one of these as source, found 5",
    ],
    [null, "option lora: expected adapters: paths, URLs or bytes, or objects with one of these as source, found null"],
    [base, "expected an adapter with tensors named"],
  ])("%#: options", async (lora, message) => {
    await expect(load(base, { lora: lora as never })).rejects.toThrow(message);
  });
});
