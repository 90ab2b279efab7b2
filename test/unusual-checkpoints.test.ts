// Checkpoints as training programs, other libraries and downloads leave them: loaded, or named with what to do.

import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { load, openCheckpoint } from "rwkv";
import { describe, expect, test } from "vitest";
import { describeForeignFile } from "#rwkv/foreign-file";
import { fixture, temporaryFolder } from "./fixture-files.js";
import { op, pickle, tensor } from "./pickle-builder.js";
import { floats, renamed, rewrite } from "./rewritten-checkpoints.js";
import { buildZip } from "./zip-builder.js";

const odd = fixture("odd.pth");

async function errorOf(path: string): Promise<string> {
  return load(path).then(
    async (model) => {
      await model.dispose();
      return expect.fail(`${path} was loaded`);
    },
    (error: Error) => error.message,
  );
}

describe("names with the prefixes of wrappers", () => {
  test.each([
    ["DeepSpeed", (name: string) => `_forward_module.${name}`],
    ["DataParallel", (name: string) => `module.${name}`],
    ["torch.compile", (name: string) => `_orig_mod.${name}`],
    ["Lightning", (name: string) => `model.${name}`],
    ["PEFT", (name: string) => `base_model.model.${name}`],
    ["one in the other", (name: string) => `module._orig_mod.model.${name}`],
    ["FSDP", (name: string) => name.replace(/^blocks\.(\d+)\./, "blocks.$1._fsdp_wrapped_module._orig_mod.")],
  ])("%s", async (_, rename) => {
    const path = await rewrite(odd, join(await temporaryFolder(), "wrapped.safetensors"), renamed(rename));
    const model = await load(path);
    expect(model.info).toMatchObject({ version: "4", layers: 2, width: 31, vocabulary: 33 });
    await model.dispose();
  });

  test("two tensors for one weight are an error", async () => {
    const path = await rewrite(odd, join(await temporaryFolder(), "twice.pth"), (tensors) => [
      ...tensors,
      ...renamed((name) => `module.${name}`)(tensors),
    ]);
    expect(await errorOf(path)).toContain("two tensors stand for emb.weight");
  });
});

/** A .pth whose root is built by these opcodes, with one storage "0" of four floats. */
async function pth(...parts: readonly (readonly number[])[]): Promise<string> {
  const path = join(await temporaryFolder(), "file.pth");
  await buildZip(path, [
    { name: "m/data.pkl", bytes: pickle(op.proto(), ...parts, op.stop()) },
    { name: "m/data/0", bytes: new Uint8Array(new Float32Array([1, 2, 3, 4]).buffer) },
  ]);
  return path;
}

const dict = (...items: readonly (readonly [key: string, value: readonly number[]])[]) => [
  ...op.emptyDict(),
  ...items.flatMap(([key, value]) => [...op.text(key), ...value, ...op.setItem()]),
];
const call = (module: string, name: string, ...args: readonly (readonly number[])[]) => [
  ...op.global(module, name),
  ...op.mark(),
  ...args.flat(),
  ...op.tuple(),
  ...op.reduce(),
];
const newObject = (module: string, name: string, state: readonly number[]) => [
  ...op.global(module, name),
  ...op.emptyTuple(),
  ...op.newObject(),
  ...state,
  ...op.build(),
];
const weights = dict(["w", tensor("0")], ["v", tensor("0")]);

async function tensorsOf(path: string): Promise<string[]> {
  const checkpoint = await openCheckpoint(path);
  await checkpoint.close();
  return [...checkpoint.tensors.keys()];
}

describe("a state dict inside a training program's dict", () => {
  test.each(["state_dict", "model_state_dict", "model", "module"])("under %s", async (key) => {
    expect(await tensorsOf(await pth(dict(["epoch", op.int(3)], [key, weights])))).toEqual(["w", "v"]);
  });

  test("deeper, and beside a lone tensor and an optimizer's state", async () => {
    const optimizer = dict(["state", dict(["exp_avg", tensor("0")])], ["param_groups", op.emptyList()]);
    const root = dict(["loss", tensor("0")], ["model", dict(["module", weights])], ["optimizer", optimizer]);
    expect(await tensorsOf(await pth(root))).toEqual(["w", "v"]);
  });

  test("beside values that are of no use here", async () => {
    const scalar = call(
      "numpy.core.multiarray",
      "scalar",
      [...call("numpy", "dtype", op.text("f8"), op.false(), op.none()), ...op.none(), ...op.build()],
      call("_codecs", "encode", op.text("x"), op.text("latin1")),
    );
    const root = dict(
      ["hyper_parameters", newObject("argparse", "Namespace", dict(["lr", op.int(1)]))],
      ["lr", scalar],
      ["dtype", op.global("torch", "bfloat16")],
      ["device", call("torch", "device", op.text("cuda"), op.int(0))],
      [
        "logs",
        [...call("collections", "defaultdict", op.global("__builtin__", "list")), ...dict(["a", op.none()]).slice(1)],
      ],
      ["state_dict", weights],
    );
    expect(await tensorsOf(await pth(root))).toEqual(["w", "v"]);
  });

  test("of parameters, also with attributes of their own", async () => {
    const hooks = [...op.global("collections", "OrderedDict"), ...op.emptyTuple(), ...op.reduce()];
    const parameter = call("torch._utils", "_rebuild_parameter", tensor("0"), op.false(), hooks);
    const attributes = call("torch._utils", "_rebuild_parameter_with_state", tensor("0"), op.false(), hooks, op.none());
    const [rebuild, args] = [op.global("torch._utils", "_rebuild_parameter"), [tensor("0"), op.false(), hooks].flat()];
    const subclass = call(
      "torch._tensor",
      "_rebuild_from_type_v2",
      rebuild,
      op.global("torch.nn.parameter", "Parameter"),
      [...op.mark(), ...args, ...op.tuple()],
      op.none(),
    );
    const path = await pth(dict(["w", parameter], ["v", attributes], ["u", subclass]));
    expect(await tensorsOf(path)).toEqual(["w", "v", "u"]);
  });

  test("texts and numbers in it are its metadata", async () => {
    const path = await pth(dict(["w", tensor("0")], ["_version", op.text("0.7")], ["step", op.int(12)]));
    const checkpoint = await openCheckpoint(path);
    expect(checkpoint.metadata).toEqual({ _version: "0.7", step: "12" });
    await checkpoint.close();
  });
});

describe("pickles that hold no weights that can be read", () => {
  test("are told apart", async () => {
    const cases: readonly [root: readonly number[], message: string][] = [
      [dict(["state", op.emptyDict()], ["param_groups", op.emptyList()]), "found the state of an optimizer"],
      [dict(["epoch", op.int(1)], ["args", op.none()]), "found a dict with the keys epoch, args"],
      [tensor("0"), "found a single unnamed tensor"],
      [[...op.emptyList(), ...tensor("0"), ...op.append()], "found a list of 1"],
      [op.none(), "found None"],
    ];
    for (const [root, message] of cases) expect(await errorOf(await pth(root))).toContain(message);
  });

  test("a whole module is refused by its class, with the remedy", async () => {
    const error = await errorOf(await pth(newObject("src.model", "RWKV", op.emptyDict())));
    expect(error).toContain("the pickle asks for src.model.RWKV");
    expect(error).toContain("nothing was executed");
    expect(error).toContain("torch.save(model.state_dict(), path)");
  });

  test("tensors of kinds that are not read are named", async () => {
    const storage = [
      ...op.mark(),
      ...op.text("storage"),
      ...op.global("torch.storage", "UntypedStorage"),
      ...op.text("0"),
      ...op.text("cuda:0"),
      ...op.int(16),
      ...op.tuple(),
      ...op.persistentId(),
    ];
    const one = [...op.int(16), ...op.tuple1()];
    const float8 = call(
      "torch._utils",
      "_rebuild_tensor_v3",
      storage,
      op.int(0),
      one,
      one,
      op.false(),
      op.none(),
      op.global("torch", "float8_e4m3fn"),
      op.none(),
    );
    expect(await errorOf(await pth(dict(["emb.weight", float8])))).toContain(
      "tensor emb.weight cannot be read: its elements are float8_e4m3fn",
    );
    const meta = call("torch._utils", "_rebuild_meta_tensor_no_storage", op.none());
    expect(await errorOf(await pth(dict(["w", meta])))).toContain(
      "tensor w cannot be read: it was saved from the meta",
    );
  });

  test("a call that rebuilds itself ends", async () => {
    const rebuild = op.global("torch._tensor", "_rebuild_from_type_v2");
    const path = await pth(
      op.emptyList(),
      op.put(0),
      op.mark(),
      rebuild,
      op.none(),
      op.get(0),
      op.appends(),
      op.pop(),
      rebuild,
      op.get(0),
      op.reduce(),
    );
    expect(await errorOf(path)).toContain("a tensor that is not built by a call");
  });
});

describe("models with parts that are not run are named by them", () => {
  const withTensor = async (name: string) =>
    errorOf(
      await rewrite(odd, join(await temporaryFolder(), "part.pth"), (tensors) => [...tensors, floats(name, [1], [0])]),
    );

  test("RWKV-4", async () => {
    expect(await withTensor("blocks.1.tiny_q.weight")).toContain(
      "an RWKV-4 model with tiny attention (RWKV-4a and 4b)",
    );
    expect(await withTensor("head_q.weight")).toContain("an RWKV-4 model with attention in the head (head_qk)");
    expect(await withTensor("blocks.0.pos_emb_x")).toContain("an RWKV-4 model with position embeddings");
    expect(await withTensor("blocks.0.att.key.lora_A")).toContain("not merged into its weights");
    const path = join(await temporaryFolder(), "pre.pth");
    const rename = (name: string) => name.replace("blocks.0.att.", "blocks.0.ffnPre.");
    expect(await errorOf(await rewrite(odd, path, renamed(rename)))).toContain("(pre_ffn)");
  });

  test("other versions, also under wrappers and Hugging Face's names", async () => {
    const only = async (...names: string[]) =>
      errorOf(
        await rewrite(odd, join(await temporaryFolder(), "other.pth"), () =>
          names.map((name) => floats(name, [1], [0])),
        ),
      );
    expect(await only("module.blocks.0.att.x_r")).toContain("RWKV-7: expected matrices emb.weight");
    expect(await only("model.layers.0.attn.r_k")).toContain("RWKV-7: expected matrices emb.weight");
    const decay = ["rwkv.blocks.0.attention.ln_x.weight", "rwkv.blocks.0.attention.time_decay"];
    expect(await only(...decay, "rwkv.blocks.0.attention.time_maa_x")).toContain(
      "RWKV-6: expected matrices emb.weight",
    );
    expect(await only(...decay, "rwkv.blocks.0.attention.time_mix_key")).toContain(
      "RWKV-5.0: expected matrices emb.weight",
    );
    expect(await only("blocks.0.att.key.lora_A")).toContain(
      "an adapter (LoRA) without the model that it belongs to; open that model, and give this with --lora",
    );
    expect(await only("blocks.0.att.time_state")).toContain("a tuned state, which belongs to a model");
    expect(await only("weight/emb.weight", "first/emb.weight")).toContain("model.safetensors in the same folder");
  });

  test("weights that ChatRWKV converted are never run", async () => {
    const path = join(await temporaryFolder(), "converted.safetensors");
    const strategy = "cuda fp16i8 *10 -> cuda fp16";
    expect(await errorOf(await rewrite(odd, path, undefined, { metadata: { _strategy: strategy } }))).toContain(
      `made for its strategy "${strategy}", which are folded, scaled and transposed; use the original .pth`,
    );
    expect(await withTensor("blocks.0.att.key.weight_mx")).toContain("ChatRWKV's convert_model.py");
  });

  test("a shard alone", async () => {
    const error = await errorOf(fixture("odd-hugging-face/model-00001-of-00002.safetensors"));
    expect(error).toContain("the file is shard 1 of 2; open the index of all");
  });

  test("all shards in a folder need no index", async () => {
    const folder = await temporaryFolder();
    const names = ["part-00001-of-00002.safetensors", "part-00002-of-00002.safetensors"] as const;
    await rewrite(odd, join(folder, names[0]), (tensors) => tensors.slice(0, 20));
    await expect(load(folder)).rejects.toThrow("the file is shard 1 of 2");
    await rewrite(odd, join(folder, names[1]), (tensors) => tensors.slice(20));
    const model = await load(folder);
    expect(model.info.layers).toBe(2);
    await model.dispose();
    await rewrite(odd, join(folder, "another.pth"));
    await expect(load(folder)).rejects.toThrow(
      "several checkpoints in this folder; name one of them: another.pth, part-00001",
    );
  });

  test("a model without a head", async () => {
    const path = join(await temporaryFolder(), "headless.pth");
    const error = await errorOf(
      await rewrite(odd, path, (tensors) => tensors.filter(({ name }) => name !== "head.weight")),
    );
    expect(error).toContain("missing head.weight [33, 31] (where it is the same as emb.weight, ");
    expect(error).toContain('"tie_word_embeddings": true');
  });
});

describe("files that are something else", () => {
  const cases: readonly [name: string, start: string, description: string][] = [
    ["a Git LFS pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git lfs pull"],
    ["a web page", "\n <!DOCTYPE html><html>", "/resolve/ rather than /blob/"],
    ["an error of a server", '<?xml version="1.0"?><Error><Code>AccessDenied', "an error message from a server"],
    ["JSON", '{ "model_type": "rwkv" }', "JSON text"],
    ["ggmf", "fmgg\x01\0\0\0", "a ggml file"],
    ["ggjt", "tjgg\x01\0\0\0", "a ggml file"],
    ["7z", "7z\xbc\xaf\x27\x1c\0\x04", "a 7z archive; unpack it"],
    ["gzip", "\x1f\x8b\x08\0\0\0\0\0\x00\x03", "a gzip file"],
    ["zeros", "\0".repeat(600), "like an unfinished download"],
  ];
  test.each(cases)("%s", async (_, start, description) => {
    const path = join(await temporaryFolder(), "model.pth");
    await writeFile(path, Buffer.from(start, "latin1"));
    expect(await errorOf(path)).toContain(description);
    expect(describeForeignFile(Buffer.from(start, "latin1"))).toContain(description);
  });

  test("a checkpoint inside a zip archive", async () => {
    const path = join(await temporaryFolder(), "model.zip");
    await buildZip(path, [{ name: "RWKV-4-World.pth", bytes: new Uint8Array(9), method: 8 }]);
    expect(await errorOf(path)).toContain("a zip archive that contains RWKV-4-World.pth; unpack it");
  });

  test("a TorchScript program", async () => {
    const path = join(await temporaryFolder(), "script.pt");
    await buildZip(path, [
      { name: "m/data.pkl", bytes: pickle(op.proto(), op.none(), op.stop()) },
      { name: "m/constants.pkl", bytes: pickle(op.proto(), op.none(), op.stop()) },
    ]);
    expect(await errorOf(path)).toContain("a TorchScript program");
  });
});
