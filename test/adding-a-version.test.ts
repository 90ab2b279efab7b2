// A version is one file: recognised, bound, run, trained and written with nothing else knowing of it.

import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import {
  CheckpointError,
  openCheckpoint,
  readFloat32,
  type StoredTensor,
  type WritableTensor,
  writePth,
  writeSafetensors,
} from "rwkv";
import { describe, expect, test } from "vitest";
import { nativeBackend } from "#rwkv/backends/native/native";
import { countPlacements, matrixTypes, placementsOf } from "#rwkv/backends/placement";
import { referenceBackend } from "#rwkv/backends/reference/reference";
import { openReferenceTraining } from "#rwkv/backends/reference/reference-training";
import { elementCount } from "#rwkv/dtypes";
import { stored } from "#rwkv/models/location";
import { describeSize } from "#rwkv/models/model-definition";
import { type BoundModel, bindModel, type RecognisedModel } from "#rwkv/models/versions";
import { writtenTensors } from "#rwkv/models/written-tensors";
import { byteTokenizer } from "#rwkv/tokenizers/bytes";
import { storedTensor } from "#rwkv/training/initialize";
import { type ModelSetup, setUpModel } from "#rwkv/training/model-setup";
import type { TrainOptions } from "#rwkv/training/options";
import { type Recipe, recipeOf } from "#rwkv/training/recipe";
import { temporaryFolder } from "./fixture-files.js";
import { type MadeUpSize, madeUp } from "./made-up-version.js";
import { floats, renamed, writable } from "./rewritten-checkpoints.js";

const size: MadeUpSize = { layers: 2, width: 8, hidden: 6, vocabulary: 256, heads: 2, gateRank: 3 };
const graph = madeUp.build(size, { layerNormEpsilon: 1e-5 });
const definitions = [madeUp];

/** Values of every weight, each another. */
const values = new Map(
  graph.weights.map(({ name, shape }, w) => [
    name,
    Float32Array.from({ length: elementCount(shape) }, (_, i) => Math.sin(1 + i * 0.7 + w * 13) / 2),
  ]),
);
const valuesOf = (name: string) => [...(values.get(name) as Float32Array)];

function transposedValues(rows: number, columns: number, from: number[]): number[] {
  return Array.from({ length: rows * columns }, (_, i) => from[(i % rows) * columns + Math.floor(i / rows)] as number);
}

/** The tensors of a file, put together by hand. */
function fileTensors(): WritableTensor[] {
  const { width, hidden, vocabulary, heads, gateRank } = size;
  const plain = (name: string, shape: number[]) => floats(name, shape, valuesOf(name));
  const layers = [0, 1].flatMap((i) => {
    const att = `blocks.${i}.att`;
    const key = valuesOf(`blocks.${i}.ffn.key`);
    return [
      plain(`blocks.${i}.ln.weight`, [width]),
      plain(`blocks.${i}.ln.bias`, [width]),
      floats(`${att}.mixes`, [2, 1, 1, width], [...valuesOf(`${att}.mix_k`), ...valuesOf(`${att}.mix_v`)]),
      floats(`${att}.key_value`, [2 * width, width], [...valuesOf(`${att}.key`), ...valuesOf(`${att}.value`)]),
      plain(`${att}.decay`, [1, 1, width]),
      plain(`${att}.bonus`, [heads, width / heads]),
      floats(`${att}.gate_1`, [width, gateRank], transposedValues(gateRank, width, valuesOf(`${att}.gate_1`))),
      floats(`${att}.gate_2`, [gateRank, width], transposedValues(width, gateRank, valuesOf(`${att}.gate_2`))),
      plain(`blocks.${i}.ln_ffn.weight`, [width]),
      plain(`blocks.${i}.ln_ffn.bias`, [width]),
      floats(`blocks.${i}.ffn.key_a`, [hidden / 2, width], key.slice(0, (hidden / 2) * width)),
      floats(`blocks.${i}.ffn.key_b`, [hidden / 2, width], key.slice((hidden / 2) * width)),
      plain(`blocks.${i}.ffn.value`, [width, hidden]),
    ];
  });
  return [
    plain("emb.weight", [vocabulary, width]),
    ...layers,
    floats("blocks.0.att.unused", [3], [7, 8, 9]),
    { name: "steps", dtype: "i64", shape: [1], bytes: () => [new Uint8Array([5, 0, 0, 0, 0, 0, 0, 0])] },
    plain("ln_out.weight", [width]),
    plain("ln_out.bias", [width]),
    plain("head.weight", [vocabulary, width]),
  ];
}

async function written(tensors: WritableTensor[] = fileTensors(), name = "model.pth"): Promise<string> {
  const path = join(await temporaryFolder(), name);
  await (name.endsWith(".pth") ? writePth : writeSafetensors)(path, tensors);
  return path;
}

/** Binds the model in a file for as long as `use` takes. */
async function withModel<Result>(path: string, use: (model: RecognisedModel) => Promise<Result>): Promise<Result> {
  const checkpoint = await openCheckpoint(path);
  try {
    return await use(bindModel(checkpoint, { definitions }));
  } finally {
    await checkpoint.close();
  }
}

/** All of a file: names, types, shapes and bytes. */
async function contentOf(path: string) {
  const checkpoint = await openCheckpoint(path);
  const content = new Map<string, unknown>();
  for (const { name, dtype, shape, bytes } of writable(checkpoint)) {
    const pieces: number[] = [];
    for await (const piece of bytes()) pieces.push(...piece);
    content.set(name, { dtype, shape, pieces });
  }
  await checkpoint.close();
  return content;
}

async function logitsOf(model: BoundModel, backend: typeof referenceBackend): Promise<Float32Array> {
  const runtime = await backend.open(model, { threads: 2 });
  const { logits } = await runtime.run([{ state: runtime.createState(), tokens: [3, 200, 17, 3], logits: "all" }]);
  const copy = logits.slice();
  await runtime.dispose();
  return copy;
}

describe("a checkpoint of it", () => {
  test("is recognised, with the sizes that only this version has", async () => {
    await withModel(await written(), async (model) => {
      expect(model).toMatchObject({ version: "0.1", size });
      expect(describeSize(model.size)).toBe("2 layers, width 8, hidden 6, vocabulary 256, heads 2, gate rank 3");
    });
  });

  test.each(["model.pth", "model.safetensors"])("%s gives each weight its values, wherever they lie", async (name) => {
    await withModel(await written(fileTensors(), name), async ({ tensors }) => {
      expect([...tensors.keys()]).toEqual(graph.weights.map((weight) => weight.name));
      for (const { name, shape } of graph.weights) {
        const tensor = tensors.get(name) as StoredTensor;
        expect(tensor.shape, name).toEqual(shape);
        expect(await readFloat32(tensor), name).toEqual(values.get(name));
      }
    });
  });

  test.each([
    ["reference", referenceBackend],
    ["native", nativeBackend],
  ])("gives the logits of the same weights as they would lie in memory, to the bit: %s", async (_, backend) => {
    const tensors = new Map(
      graph.weights.map(({ name, shape }) => [name, storedTensor(name, shape, values.get(name) as Float32Array)]),
    );
    const expected = await logitsOf({ version: "0.1", size, graph, tensors }, backend);
    expect(new Set(expected).size).toBeGreaterThan(100);
    await withModel(await written(), async (model) => {
      expect(await logitsOf(model, backend)).toEqual(expected);
    });
  });

  test("may tell a number of its own beside its tensors, which a written file tells again", async () => {
    const usual = await written();
    const path = join(await temporaryFolder(), "other.safetensors");
    await writeSafetensors(path, fileTensors(), { metadata: { "rwkv.ffn_epsilon": "0.5" } });
    const logits = await withModel(path, async (model) => {
      expect(model.metadata).toEqual({ "rwkv.ffn_epsilon": "0.5" });
      return logitsOf(model, referenceBackend);
    });
    await withModel(usual, async (model) => {
      expect(model.metadata).toEqual({});
      expect(await logitsOf(model, referenceBackend)).not.toEqual(logits);
    });
    await writeSafetensors(path, fileTensors(), { metadata: { "rwkv.ffn_epsilon": "-1" } });
    await expect(withModel(path, async () => {})).rejects.toThrow(
      'metadata rwkv.ffn_epsilon: expected a number between 0 and 1, found "-1"',
    );
  });

  test("with everything wrong: one error, which speaks of the tensors of the file", async () => {
    const path = await written(
      fileTensors()
        .filter(({ name }) => name !== "blocks.0.ffn.key_b")
        .map((tensor) => {
          if (tensor.name === "blocks.1.att.gate_1") return { ...tensor, shape: [3, 8] };
          if (tensor.name === "blocks.1.att.mixes") return { ...tensor, shape: [1, 1, 16] };
          if (tensor.name === "blocks.1.ffn.key_a") return { ...tensor, dtype: "i32" as const };
          return tensor;
        })
        .concat(floats("blocks.0.att.extra", [1], [0])),
    );
    const error = await withModel(path, async () => {}).catch((caught: CheckpointError) => caught);
    expect(error).toBeInstanceOf(CheckpointError);
    const lines = String(error).split("\n  ");
    expect(lines[0]).toContain("this is not a complete RWKV-0.1 model; 5 tensor(s) are wrong");
    expect(lines.slice(1)).toEqual([
      "missing blocks.0.ffn.key_b [3, 8]",
      "blocks.1.att.mixes: expected shape [2, 8], found [1, 1, 16]",
      "blocks.1.att.gate_1: expected shape [8, 3], found [3, 8]",
      "blocks.1.ffn.key_a: expected floating point, found i32",
      "unexpected blocks.0.att.extra",
    ]);
  });

  test.each(["att.gate_1", "ffn.key_b"])(
    "damage in %s is found although it is looked at in another way",
    async (name) => {
      const path = await written();
      const offset = await withModel(path, async ({ layout }) => {
        return layout.find((entry) => entry.name === `blocks.1.${name}`)?.tensor?.offset as number;
      });
      const bytes = await readFile(path);
      bytes.writeUInt8(bytes.readUInt8(offset) ^ 1, offset);
      await writeFile(path, bytes);
      await withModel(path, async (model) => {
        await expect(logitsOf(model, nativeBackend)).rejects.toThrow(`tensor blocks.1.${name}: its bytes do not match`);
      });
    },
  );

  test("parts of one matrix in two types are refused", async () => {
    const path = await written(
      fileTensors().map((tensor) =>
        tensor.name === "blocks.0.ffn.key_a"
          ? { ...tensor, dtype: "f16" as const, bytes: () => [new Uint8Array(48)] }
          : tensor,
      ),
    );
    await expect(withModel(path, async () => {})).rejects.toThrow(
      "blocks.0.ffn.key_a, blocks.0.ffn.key_b: expected one type, found f16, f32",
    );
  });
});

test("its small matrices are not quantized, its head is not put into 4 bits, and what lies as it should is mapped", async () => {
  await withModel(await written(), async ({ tensors }) => {
    const types = matrixTypes(graph, tensors, "q4");
    const named = Object.fromEntries([...types].map(([{ name }, type]) => [name, type]));
    expect(named).toMatchObject({
      "emb.weight": "f32",
      "head.weight": "q8",
      "blocks.0.att.key": "q4",
      "blocks.0.att.gate_1": "f32",
      "blocks.0.att.gate_2": "f32",
    });
    expect(countPlacements(placementsOf(tensors, types, { maps: true }))).toEqual([
      { treatment: "map", stored: "f32", computed: "f32", count: 1 }, // the embedding
      { treatment: "quantize", stored: "f32", computed: "q4", count: 8 },
      { treatment: "copy", stored: "f32", computed: "f32", count: 4 }, // what is transposed
      { treatment: "quantize", stored: "f32", computed: "q8", count: 1 },
    ]);
    const asStored = placementsOf(tensors, matrixTypes(graph, tensors, undefined), { maps: true });
    const mapped = asStored.filter(({ treatment }) => treatment === "map").map(({ weight }) => weight.name);
    expect(mapped).toEqual(expect.arrayContaining(["blocks.0.att.key", "blocks.0.att.value", "blocks.1.ffn.value"]));
    expect(mapped).not.toContain("blocks.0.ffn.key"); // its halves lie apart
  });
});

describe("a model of it that is written", () => {
  test("is the file that it was read from, also under the names of others", async () => {
    for (const name of ["model.pth", "model.safetensors"]) {
      const tensors = renamed((own) => `module.${own.replace("blocks", "layers")}`)(fileTensors());
      const path = await written(tensors, name);
      const again = await withModel(path, ({ layout }) =>
        written(writtenTensors({ layout, dtype: "f32", valuesOf: () => undefined }), name),
      );
      const before = await contentOf(path);
      expect(before.size).toBe(tensors.length);
      expect(await contentOf(again)).toEqual(before);
    }
  });

  test("has the values that changed where they were read from, and all others as they were", async () => {
    const changed = /mix_v|att\.value|gate_1|bonus|ffn\.key|head/;
    const path = await written();
    const again = await withModel(path, ({ layout }) => {
      const valuesOf = ({ name }: { name: string }) =>
        changed.test(name) ? values.get(name)?.map((value) => value + 1) : undefined;
      return written(writtenTensors({ layout, dtype: "f32", valuesOf }));
    });
    await withModel(again, async ({ tensors }) => {
      for (const [name, tensor] of tensors) {
        const expected = changed.test(name) ? values.get(name)?.map((value) => value + 1) : values.get(name);
        expect(await readFloat32(tensor), name).toEqual(expected);
      }
    });
    const [before, after] = [await contentOf(path), await contentOf(again)];
    expect([...after.keys()].sort()).toEqual([...before.keys()].sort());
    for (const name of ["steps", "blocks.0.att.unused"]) expect(after.get(name)).toEqual(before.get(name));
  });
});

test("whatever view a weight is of a tensor, it is written back to where it was read from", async () => {
  const arbitraryView = fc
    .record({
      rows: fc.integer({ min: 1, max: 4 }),
      columns: fc.integer({ min: 1, max: 5 }),
      steps: fc.array(fc.constantFrom("transposed", "entry", "part", "partOfColumns"), { maxLength: 3 }),
      index: fc.nat(2),
    })
    .map(({ rows, columns, steps, index }) => {
      let location = stored("w");
      for (const step of steps) {
        if (step === "transposed") location = location.transposed();
        else if (step === "entry") location = location.entry(index, 3);
        else location = location.part(index, 3, step === "part" ? 0 : 1);
      }
      return { location, shape: [rows, columns] };
    });
  await fc.assert(
    fc.asyncProperty(arbitraryView, async ({ location, shape }) => {
      const whole = location.storedShape(shape);
      const before = Float32Array.from({ length: elementCount(whole) }, (_, i) => i);
      const after = before.slice();
      const own = Float32Array.from({ length: elementCount(shape) }, (_, i) => -1 - i);
      location.put(own, shape, after);
      expect(await readFloat32(location.viewOf(storedTensor("w", whole, after)))).toEqual(own);
      expect(after.filter((value, i) => value === before[i]).length).toBe(before.length - own.length);
    }),
  );
});

describe("training", () => {
  const options = { data: "x", out: "x", layers: 2, width: 8, context: 4, batch: 2, steps: 2, learningRate: 1e-2 };
  const recipe = (more: Partial<TrainOptions> = {}): Recipe => ({
    ...recipeOf({ ...options, ...more }),
    version: "0.1",
    hidden: 6,
  });

  /** Trains two steps, writes the model, and gives what was learned. */
  async function trained(setup: ModelSetup) {
    const { model } = setup;
    const runtime = await openReferenceTraining(model, { threads: 1, maxTokens: 8, maxSegments: 2 });
    const segments = [
      { tokens: [1, 2, 3, 4], targets: [2, 3, 4, 5] },
      { tokens: [9, 8, 7, 6], targets: [8, 7, 6, 5] },
    ].map((tokens) => ({ state: runtime.createState(), nextState: runtime.createState(), ...tokens }));
    const adam = { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0.01, maxGradientNorm: 1, learningRate: 1e-2 };
    const losses: number[] = [];
    for (let step = 1; step <= 8; step++) {
      const { losses: each } = await runtime.step(segments, { ...adam, step }, step);
      losses.push(each.reduce((sum, loss) => sum + loss, 0) / each.length);
    }
    expect(losses.at(-1)).toBeLessThan(losses[0] as number);
    const path = await written(setup.weights(runtime.parameters, "f32"));
    const learned = new Map(runtime.parameters.map(({ name, values }) => [name, Float32Array.from(values)]));
    await setup.close();
    return { path, learned };
  }

  test("a new model is written as others expect it, and loads with what it learned", async () => {
    const setup = await setUpModel(recipe(), byteTokenizer(), { definitions });
    expect(setup.size).toEqual(size);
    const learning = Object.fromEntries(
      [...setup.model.learned].map(([{ name }, { rateFactor, decays }]) => [name, { rateFactor, decays }]),
    );
    expect(learning).toMatchObject({
      "blocks.1.att.decay": { rateFactor: 2, decays: false },
      "blocks.1.att.key": { rateFactor: 1, decays: true },
      "blocks.1.att.gate_1": { rateFactor: 1, decays: false },
    });
    const { path, learned } = await trained(setup);
    expect(learned.size).toBe(graph.weights.length);
    const shapes = [...(await contentOf(path))].map(([name, content]) => [
      name,
      (content as { shape: number[] }).shape,
    ]);
    expect(Object.fromEntries(shapes)).toMatchObject({
      "blocks.0.att.mixes": [2, 8],
      "blocks.0.att.gate_1": [8, 3],
      "blocks.0.att.bonus": [2, 4],
      "blocks.0.ffn.key_a": [3, 8],
    });
    await withModel(path, async ({ tensors }) => {
      for (const [name, tensor] of tensors) expect(await readFloat32(tensor), name).toEqual(learned.get(name));
    });
  });

  test("fine-tuning keeps names, shapes, and tensors that nothing is computed from", async () => {
    const from = await written();
    const setup = await setUpModel(recipe({ from }), byteTokenizer(), { definitions });
    const { path, learned } = await trained(setup);
    const shapesOf = async (file: string) =>
      [...(await contentOf(file))].map(([name, content]) => [name, (content as { shape: number[] }).shape]).sort();
    expect(await shapesOf(path)).toEqual(await shapesOf(from));
    await withModel(path, async ({ tensors }) => {
      for (const [name, tensor] of tensors) expect(await readFloat32(tensor), name).toEqual(learned.get(name));
    });
  });

  test("low-rank additions go to the matrices that the version names, wherever they lie", async () => {
    const from = await written();
    const setup = await setUpModel(recipe({ from, lora: { rank: 2 } }), byteTokenizer(), { definitions });
    const { path } = await trained(setup);
    await withModel(path, async ({ tensors }) => {
      for (const [name, tensor] of tensors) {
        const isSame = (await readFloat32(tensor)).every((value, i) => value === values.get(name)?.[i]);
        expect(isSame, name).toBe(!/att\.(key|value)$/.test(name));
      }
    });
  });

  test("matrices that the version has not are refused by name", async () => {
    const lora = { rank: 2, matrices: ["att.key", "att.gate_1"] };
    const setup = setUpModel(recipe({ from: await written(), lora }), byteTokenizer(), { definitions });
    await expect(setup).rejects.toThrow("option lora.matrices: expected some of att.key, att.value, found");
  });
});
