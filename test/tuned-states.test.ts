// What states begin with where files say it: in a checkpoint, and in the files of state tuning, by code and on the command line; what
// files are refused.

import { readFile, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  CheckpointError,
  load,
  type Model,
  OptionError,
  type State,
  StateError,
  type WritableTensor,
  writePth,
} from "rwkv";
import { expect, test } from "vitest";
import { rwkv } from "./command.js";
import { fixture, maxDifference, temporaryFolder } from "./fixture-files.js";
import { changed, floats, rewrite, valuesOf } from "./rewritten-checkpoints.js";

const versions = [
  { version: "5.0", width: 21, heads: 3, transposed: true },
  { version: "5.1", width: 21, heads: 3, transposed: true },
  { version: "5.2", width: 21, heads: 3, transposed: true },
  { version: "6", width: 21, heads: 3, transposed: true },
  { version: "7", width: 36, heads: 3, transposed: false },
] as const;
const [, , , version6, version7] = versions;
type Version = (typeof versions)[number];
const layers = 2;

const fileOf = ({ version }: Version): string => fixture(`rwkv${version}.pth`);
const nameOf = (layer: number): string => `blocks.${layer}.att.time_state`;

/** Tuned states of as many layers, no two elements the same, all exact in bfloat16's 8 bits up to a power of two. */
function tuned({ width, heads }: Pick<Version, "width" | "heads">, count: number = layers): WritableTensor[] {
  const size = width / heads;
  return Array.from({ length: count }, (_, layer) => {
    const values = Array.from({ length: width * size }, (_, i) => (((i * 37 + layer) % 251) - 125) / 64);
    return floats(nameOf(layer), [heads, size, size], values);
  });
}

async function stateFile(tensors: readonly WritableTensor[]): Promise<string> {
  const path = join(await temporaryFolder(), "state.pth");
  await writePth(path, tensors);
  return path;
}

const withoutStates = (tensors: WritableTensor[]) => tensors.filter(({ name }) => !name.endsWith(".time_state"));

async function logitsOf(model: Model, state: State): Promise<Float32Array> {
  return (await model.forward([{ state, tokens: [1, 5, 2, 8], logits: "all" }]))[0] as Float32Array;
}

test.each(versions)(
  "$version: tuned states are what a session begins with, in a file and in a checkpoint",
  async (one) => {
    const { width, heads, transposed } = one;
    const size = width / heads;
    const states = tuned(one);
    const model = await load(await changed(fileOf(one), withoutStates));
    const merged = await load(await changed(fileOf(one), (tensors) => [...withoutStates(tensors), ...states]));
    const file = await stateFile(states);
    const bytes = await model.readState(file);
    const [found, inside] = [model.createState(bytes), merged.createState()];

    const values = await found.values();
    expect(values).toHaveLength(layers * (2 * width + width * size));
    for (const [layer, tensor] of states.entries()) {
      const stored = await valuesOf(tensor);
      const start = layer * (2 * width + width * size);
      expect(values.slice(start, start + width)).toEqual(new Float32Array(width));
      for (let i = 0; i < width * size; i++) {
        const [head, row, column] = [Math.floor(i / size ** 2), Math.floor(i / size) % size, i % size];
        const at = transposed ? head * size ** 2 + column * size + row : i;
        expect(values[start + width + i]).toBe(stored[at]);
      }
    }
    expect(await inside.values()).toEqual(values);
    expect(found.position).toBe(0);

    const plain = await logitsOf(model, model.createState());
    const logits = await logitsOf(model, found);
    expect(await logitsOf(merged, inside)).toEqual(logits);
    expect(maxDifference(logits, plain)).toBeGreaterThan(1e-3);
    const session = model.session(bytes);
    await session.read([1, 5, 2, 8]);
    const restored = model.createState();
    await restored.restore(bytes);
    await logitsOf(model, restored);
    expect(await model.createState(await session.save()).values()).not.toEqual(values);
    expect(await restored.values()).toEqual(await found.values());
    for (const each of [model, merged]) await each.dispose();
  },
);

test("the states of a model that has read something continue it, given as tuned states", async () => {
  const model = await load(fileOf(version7));
  const { width, heads } = version7;
  const [state, length] = [model.createState(), width * (width / heads)];
  await logitsOf(model, state);
  const values = await state.values();
  const tensors = Array.from({ length: layers }, (_, layer) => {
    const start = layer * (2 * width + length) + width;
    const shape = [heads, width / heads, width / heads];
    return floats(nameOf(layer), shape, Array.from(values.subarray(start, start + length)));
  });
  const again = await model.createState(await model.readState(await stateFile(tensors))).values();
  values.fill(0, 0, width);
  values.fill(0, width + length, 2 * width + length + width);
  values.fill(0, values.length - width);
  expect(again).toEqual(values);
  await model.dispose();
});

test("names under wrappers, numbers in 16 bits, and the bytes of a file are read", async () => {
  const model = await load(fileOf(version7));
  const states = tuned(version7);
  const expected = await model.readState(await stateFile(states));
  const halves = await Promise.all(
    states.map(async (tensor): Promise<WritableTensor> => {
      const bits = new Uint32Array((await valuesOf(tensor)).buffer);
      const bytes = new Uint8Array(Uint16Array.from(bits, (word) => word >>> 16).buffer);
      return { name: `model.${tensor.name}`, dtype: "bf16", shape: tensor.shape, bytes: () => [bytes] };
    }),
  );
  const file = await readFile(await stateFile(halves));
  expect(await model.readState(file)).toEqual(expected);
  expect(await model.readState(new Blob([file]))).toEqual(expected);
  await model.dispose();
});

test("a saved state is read by the same call, and must be of the model", async () => {
  const model = await load(fileOf(version7));
  const session = model.session();
  await session.read([1, 2, 3]);
  const saved = await session.save();
  const path = join(await temporaryFolder(), "named.pth");
  await writeFile(path, saved);
  expect(await model.readState(path)).toEqual(saved);
  expect(model.session(await model.readState(path)).position).toBe(3);

  const damaged = saved.slice();
  damaged[100]! ^= 1;
  await expect(model.readState(damaged)).rejects.toThrow("its checksum differs");
  await truncate(path, saved.length - 1);
  await expect(model.readState(path)).rejects.toThrow(
    new StateError(
      `${path}: a saved state of another model, or one that is damaged: ` +
        `expected ${saved.length} bytes, found ${saved.length - 1}`,
    ),
  );
  await truncate(path, 2 ** 40); // a sparse file, of which no more than the beginning is read
  await expect(model.readState(path)).rejects.toThrow(`expected ${saved.length} bytes, found ${2 ** 40}`);
  await model.dispose();
  await expect(model.readState(saved)).rejects.toThrow("disposed");
});

test("files that are no states of the model are refused with what is wrong", async () => {
  const model = await load(fileOf(version7));
  const [first, second] = tuned(version7) as [WritableTensor, WritableTensor];
  const errorOf = async (input: Parameters<Model["readState"]>[0], of: Model = model) => {
    const error = await of.readState(input).then(
      () => undefined,
      (cause: unknown) => cause,
    );
    expect(error).toBeInstanceOf(CheckpointError);
    return (error as Error).message;
  };
  const refusal = async (...tensors: WritableTensor[]) => errorOf(await stateFile(tensors));

  const another = "tuned states of another model than this RWKV-7 model of 2 layers, width 36,";
  expect(await refusal(first)).toMatch(
    new RegExp(`state\\.pth: ${another}.*1 tensor.*\n  missing blocks\\.1\\.att\\.time_state \\[3, 12, 12\\]$`),
  );
  expect(await refusal(...tuned(version7, 4))).toMatch(
    /unexpected blocks\.2\.att\.time_state\n {2}unexpected blocks\.3\./,
  );
  expect(await refusal(...tuned(version6))).toContain(
    "blocks.0.att.time_state: expected shape [3, 12, 12], found [3, 7, 7]",
  );
  expect(await refusal(first, { ...second, dtype: "i32" })).toContain(
    "blocks.1.att.time_state: expected floating point, found i32",
  );
  expect(await refusal(first, { ...second, name: "blocks.1.ffn.time_state" })).toContain(
    "unexpected blocks.1.ffn.time_state",
  );
  expect(await refusal(first, second, { ...second, name: `model.${nameOf(1)}` })).toContain(
    `two tensors stand for ${nameOf(1)}`,
  );
  const infinite = floats(nameOf(1), second.shape, [...(await valuesOf(second))].with(7, Number.NEGATIVE_INFINITY));
  expect(await refusal(first, infinite)).toContain(`tensor ${nameOf(1)}: a value is NaN or infinite`);
  expect(await refusal(first, second, floats("blocks.0.att.ts_state", [36], Array(36).fill(0)))).toContain(
    "found tensor blocks.0.att.ts_state, of full state tuning, which this version of the package does not run",
  );
  expect(await errorOf(fileOf(version7))).toContain(
    "expected a saved state, or tuned states (a .pth with blocks.N.att.time_state",
  );
  expect(await errorOf(new TextEncoder().encode('{"a": 1}'))).toContain("this is JSON text");
  expect(await errorOf(new Uint8Array(0))).toContain("the file is empty");
  const path = await stateFile([first, second]);
  expect(await errorOf((await readFile(path)).subarray(0, -300))).toMatch(/bytes: /);
  const safetensors = await rewrite(path, join(await temporaryFolder(), "state.safetensors"));
  expect(await errorOf(safetensors)).toContain("tuned states in safetensors: use the .pth");
  await expect(model.readState(7 as never)).rejects.toThrow(OptionError);
  expect(() => model.session(new Uint8Array([0x50, 0x4b, 3, 4]))).toThrow("become one by model.readState");

  const older = await load(fixture("odd.pth"));
  expect(await errorOf(path, older)).toContain(
    "tuned states (time_state) are of RWKV-5, 6 and 7; expected a state of this RWKV-4 model",
  );
  for (const each of [model, older]) await each.dispose();
});

test("generate and chat begin with tuned states", async () => {
  // The fixture's tokens again and again, so that there is one for each byte.
  const path = await changed(fileOf(version7), (tensors) =>
    Promise.all(
      tensors.map(async (tensor) => {
        if (!/^(emb|head)\.weight$/.test(tensor.name)) return tensor;
        const values = await valuesOf(tensor);
        return floats(
          tensor.name,
          [256, 36],
          Array.from({ length: 256 * 36 }, (_, i) => values[i % values.length]!),
        );
      }),
    ),
  );
  const state = await stateFile(tuned(version7));
  const model = ["--model", path, "--tokenizer", "bytes", "--seed", "1", "-n", "30"];
  const generated = async (...options: string[]) => {
    const { code, stdout, stderr } = await rwkv(["generate", "Once", "--trials", "1", ...model, ...options]);
    expect(code, stderr).toBe(0);
    return stdout;
  };
  const plain = await generated();
  expect(await generated("--state", state)).not.toBe(plain);

  const chat = async (input: string, ...options: string[]) => {
    const { code, stdout, stderr } = await rwkv(["chat", "--format", "world", ...model, ...options], input);
    expect(code, stderr).toBe(0);
    return stdout;
  };
  const [usual, begun] = [await chat("Hi\n"), await chat("Hi\n", "--state", state)];
  expect(begun).not.toBe(usual);
  expect(await chat(`/load ${state}\nHi\n`)).toBe(begun);
  const wrong = await rwkv(["generate", "--state", await stateFile(tuned(version7, 1)), ...model]);
  expect([wrong.code, wrong.stdout]).toEqual([1, ""]);
  expect(wrong.stderr).toContain("missing blocks.1.att.time_state [3, 12, 12]");
}, 60_000);

test("a model with tuned states is not written as GGUF, which would lose them", async () => {
  const path = await changed(fileOf(version7), (tensors) => [...tensors, ...tuned(version7)]);
  const { code, stderr } = await rwkv(["convert", path, join(await temporaryFolder(), "model.gguf")]);
  expect(code).toBe(1);
  expect(stderr).toContain("GGUF has no place for blocks.0.att.time_state");
});

test("inspect tells the memory of a session", async () => {
  const model = await load(fileOf(version7));
  const { stdout } = await rwkv(["inspect", fileOf(version7), "--json"]);
  expect(JSON.parse(stdout).stateBytes).toBe(model.info.stateBytes);
  await model.dispose();
});

test("the epsilon of the norm of heads is 64e-5, or what a file of RWKV-7 says", async () => {
  const written = async (value?: string) => {
    const metadata = value === undefined ? {} : { "rwkv.ln_x_epsilon": value };
    const path = join(await temporaryFolder(), "model.safetensors");
    const model = await load(await rewrite(fileOf(version7), path, undefined, { metadata }));
    const logits = await logitsOf(model, model.createState());
    await model.dispose();
    return logits;
  };
  const usual = await written();
  expect(await written("0.00064")).toEqual(usual);
  expect(maxDifference(await written("1e-2"), usual)).toBeGreaterThan(1e-4);
  await expect(written("2")).rejects.toThrow("metadata rwkv.ln_x_epsilon: expected a number between 0 and 1");
});
