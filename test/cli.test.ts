// The command line, run as a program.

import { execFile, spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { load, openCheckpoint } from "rwkv";
import { describe, expect, test } from "vitest";
import { type Outcome, program, rwkv } from "./command.js";
import { fixture, maxDifference, readFloats, readJson, temporaryFolder } from "./fixture-files.js";
import { sparseModel } from "./sparse-model.js";

describe("generate", () => {
  test("without arguments tells three tales with the model in the package", async () => {
    const { code, stdout, stderr } = await rwkv(["generate", "--seed", "1"]);
    expect(code).toBe(0);
    expect(stderr).toContain("RWKV-4, 4 layers x 192");
    expect(stderr).toContain("2.7 M parameters in bf16");
    expect(stderr.match(/Once upon a time/g)?.length).toBe(3);
    expect(stderr).toContain("--- 3 of 3 ---");
    expect(stdout.length).toBeGreaterThan(1000);
  });

  test("gives the API's text on stdout, and everything else on stderr", async () => {
    const args = [
      "generate",
      "The king",
      "--trials",
      "1",
      "-n",
      "50",
      "--seed",
      "7",
      "--temperature",
      "0.8",
      "--top-p",
      "0.9",
    ];
    const { code, stdout } = await rwkv(args);
    const model = await load();
    const text = await model.generate("The king", { maxTokens: 50, seed: 7, temperature: 0.8, topP: 0.9 }).text();
    expect([code, stdout]).toEqual([0, `${text}\n`]);
    await model.dispose();
  });

  test("reads the prompt from a file and from stdin", async () => {
    const path = join(await temporaryFolder(), "prompt.txt");
    await writeFile(path, "The queen");
    const options = ["--trials", "1", "-n", "20", "--temperature", "0"];
    const [argument, file, stdin] = await Promise.all([
      rwkv(["generate", "The queen", ...options]),
      rwkv(["generate", "--file", path, ...options]),
      rwkv(["generate", "-", ...options], "The queen"),
    ]);
    expect(argument.stdout).not.toBe("");
    expect(file.stdout).toBe(argument.stdout);
    expect(stdin.stdout).toBe(argument.stdout);
  });

  test("Ctrl-C ends the text", async () => {
    const child = spawn(process.execPath, [program, "generate", "--max-tokens", "10000000"]);
    const outcome = new Promise<number | null>((resolve) => child.on("exit", resolve));
    child.stdout.once("data", () => child.kill("SIGINT"));
    expect(await outcome).toBe(130);
  });
});

describe("inspect", () => {
  test("shows sizes and tensors, as text and as JSON", async () => {
    const text = await rwkv(["inspect", fixture("odd-bf16.pth")]);
    expect(text.stdout).toContain("RWKV-4");
    expect(text.stdout).toContain("2 layers, width 31, hidden 65, vocabulary 33");
    expect(text.stdout).toContain("session     1.24 kB for its state\n");
    expect(text.stdout).toContain("loading     matrices: map 16 (bf16)\n");
    const { stdout, code } = await rwkv(["inspect", fixture("odd-hugging-face"), "--json"]);
    expect(code).toBe(0);
    const parsed = JSON.parse(stdout);
    expect(parsed).toMatchObject({
      version: "4",
      layers: 2,
      width: 31,
      hidden: 65,
      vocabulary: 33,
      format: "safetensors",
      stateBytes: 2 * 5 * 31 * 4,
      // Its data do not begin at a multiple of four.
      placement: [{ treatment: "copy", stored: "f32", computed: "f32", count: 16 }],
      warnings: [],
    });
    expect(parsed.tensors.length).toBe(42);
    expect(parsed.parameters).toBe(parsed.bytes / 4);
  });

  test("warns of values that are not numbers", async () => {
    const path = join(await temporaryFolder(), "nan.pth");
    const bytes = readFileSync(fixture("odd.pth"));
    const checkpoint = await openCheckpoint(fixture("odd.pth"));
    bytes.writeFloatLE(Number.NaN, checkpoint.tensors.get("emb.weight")!.offset);
    await checkpoint.close();
    await writeFile(path, bytes);
    // The edit shows in the checksum, too, and is no reason not to look at the values.
    const { stdout, stderr, code } = await rwkv(["inspect", path]);
    expect(stdout).toContain("checksums   do not match");
    expect([code, stderr.split("\n")]).toEqual([
      1,
      [
        "warning: tensor emb.weight: the bytes do not match their checksum; the file is damaged",
        "warning: tensor emb.weight has 1 value that is NaN or infinite, the first in row 0",
        "",
      ],
    ]);
  });

  test("of a model past 4 GiB it says how WebAssembly divides it", async () => {
    const path = await sparseModel("7:32x2560x65536");
    const [text, json] = await Promise.all([rwkv(["inspect", path]), rwkv(["inspect", path, "--json"])]);
    expect(text.stdout).toContain("\nin a page   wasm *16 -> wasm *16, in memories of 4 GiB\n");
    expect(JSON.parse(json.stdout).strategy).toBe("wasm *16 -> wasm *16");
    expect((await rwkv(["inspect", fixture("odd.pth")])).stdout).not.toContain("in a page");
  });

  test("a checkpoint that is not a model is shown as well", async () => {
    const { stdout, stderr, code } = await rwkv([
      "inspect",
      fixture("odd-hugging-face/model-00001-of-00002.safetensors"),
    ]);
    expect(stdout).toContain("rwkv.embeddings.weight");
    expect(stderr).toContain("missing head.weight");
    expect(code).toBe(1);
  });
});

describe("logits", () => {
  const { tokens } = readJson<{ tokens: number[] }>(fixture("tokens.json"));
  const expected = readFloats(fixture("odd.logits.f32"));

  test.each(["reference", "native", "wasm"])(
    "%s: after the last token, after all, serially and at once",
    async (backend) => {
      const out = join(await temporaryFolder(), "logits.f32");
      const args = [
        "logits",
        "--model",
        fixture("odd.pth"),
        "--tokens",
        tokens.join(),
        "--backend",
        backend,
        "--out",
        out,
      ];
      expect((await rwkv([...args, "--threads", "1", "--skip-zeros"])).code).toBe(0);
      expect(maxDifference(readFloats(out), expected.slice(-33))).toBeLessThan(2e-5);
      for (const mode of ["serial", "sequence"]) {
        expect((await rwkv([...args, "--all", "--mode", mode])).code).toBe(0);
        expect(maxDifference(readFloats(out), expected)).toBeLessThan(2e-5);
      }
    },
  );

  test("a failure leaves no file", async () => {
    const out = join(await temporaryFolder(), "logits.f32");
    const { code, stderr } = await rwkv(["logits", "--model", fixture("odd.pth"), "--tokens", "1,99", "--out", out]);
    expect([code, stderr]).toEqual([1, "error: option tokens: expected token ids from 0 to 32, found 99\n"]);
    expect(existsSync(out)).toBe(false);
  });
});

test("tokenize turns stdin into ids", async () => {
  expect((await rwkv(["tokenize", "--tokenizer", "bytes"], "é!")).stdout).toBe("195 169 33\n");
  expect((await rwkv(["tokenize", "--json", "--tokenizer", "bytes"], "é!")).stdout).toBe("[195,169,33]\n");
  expect((await rwkv(["tokenize"], "the king")).stdout).toMatch(/^\d+ \d+\n$/);
});

test("perplexity sums the loss of each token", async () => {
  const path = join(await temporaryFolder(), "text.txt");
  const text = "Once upon a time there was a king who had three daughters. ".repeat(5);
  await writeFile(path, text);
  const { stdout } = await rwkv(["perplexity", path, "--json"]);
  const found = JSON.parse(stdout);

  const model = await load(undefined, { backend: "reference" });
  const ids = model.tokenizer.encode(text);
  const [logits] = await model.forward([{ state: model.createState(), tokens: ids.slice(0, -1), logits: "all" }]);
  const { vocabulary } = model.info;
  let nats = 0;
  for (let t = 0; t + 1 < ids.length; t++) {
    const row = [...logits!.subarray(t * vocabulary, (t + 1) * vocabulary)];
    nats += Math.log(row.reduce((sum, x) => sum + Math.exp(x), 0)) - row[ids[t + 1]!]!;
  }
  await model.dispose();
  expect(found.tokens).toBe(ids.length - 1);
  expect(found.bytes).toBe(text.length);
  expect(found.nats_per_token).toBeCloseTo(nats / (ids.length - 1), 4);
  expect(found.bits_per_byte).toBeCloseTo(nats / Math.LN2 / text.length, 4);
  expect((await rwkv(["perplexity", path])).stdout).toContain("bits per byte");
});

describe("convert", () => {
  test("there and back gives the same logits", async () => {
    const folder = await temporaryFolder();
    const steps = [
      fixture("odd-views.pth"),
      join(folder, "a.safetensors"),
      join(folder, "b.pth"),
      join(folder, "c.safetensors"),
    ];
    for (let i = 1; i < steps.length; i++) {
      const type = i === 3 ? ["--dtype", "f32"] : [];
      expect(await rwkv(["convert", steps[i - 1]!, steps[i]!, ...type])).toMatchObject({ code: 0, stdout: "" });
    }
    const { tokens } = readJson<{ tokens: number[] }>(fixture("tokens.json"));
    const model = await load(steps[3]!);
    const [logits] = await model.forward([{ state: model.createState(), tokens, logits: "all" }]);
    expect(maxDifference(logits!, readFloats(fixture("odd.logits.f32")))).toBeLessThan(2e-5);
    await model.dispose();
  });

  test.each(["bf16", "f16"])("to %s gives PyTorch's values", async (dtype) => {
    const out = join(await temporaryFolder(), "out.pth");
    await rwkv(["convert", fixture("odd.pth"), out, "--dtype", dtype]);
    const { tokens } = readJson<{ tokens: number[] }>(fixture("tokens.json"));
    const model = await load(out);
    const [logits] = await model.forward([{ state: model.createState(), tokens, logits: "all" }]);
    expect(maxDifference(logits!, readFloats(fixture(`odd-${dtype}.logits.f32`)))).toBeLessThan(2e-5);
    await model.dispose();
  });

  test("the tokenizer goes along, and never over another one", async () => {
    const folder = await temporaryFolder();
    const [out, tokenizer] = [join(folder, "out.pth"), join(folder, "tokenizer.json")];
    const own = fileURLToPath(new URL("../embedded/", import.meta.url));
    expect((await rwkv(["convert", own, out])).stderr).toContain(`${tokenizer}: its tokenizer\n`);
    const generate = ["generate", "Once", "--trials", "1", "-n", "10", "--seed", "1"];
    const { stdout } = await rwkv([...generate, "--model", out]);
    expect(stdout).toBe((await rwkv(generate)).stdout);
    expect((await rwkv(["convert", own, out])).stderr).not.toContain("tokenizer");
    await writeFile(tokenizer, "{}");
    const again = await rwkv(["convert", own, out]);
    expect(again.stderr).toContain(
      `${tokenizer} is another tokenizer; use ${out} with --tokenizer ${own}tokenizer.json`,
    );
    expect(readFileSync(tokenizer, "utf8")).toBe("{}");
  });

  test("an unknown ending is refused", async () => {
    const { code, stderr } = await rwkv(["convert", fixture("odd.pth"), "out.onnx"]);
    expect([code, stderr]).toEqual([
      1,
      "error: out.onnx: expected a file name that ends in .pth, .safetensors or .gguf\n",
    ]);
  });
});

describe("mistakes", () => {
  test.each([
    [["generate", "--model", "/nowhere.pth"], "error: /nowhere.pth: no such file\n"],
    [
      ["generate", "--temperature", "-1"],
      "error: option '--temperature <t>' argument '-1' is invalid. expected a number from 0 to 100",
    ],
    [["generate", "--threads", "x"], "expected a whole number from 1 to 256"],
    [["generate", "--backend", "cuda"], "Allowed choices are native, wasm, webgpu, auto, reference"],
    [["generate", "--file", "/nowhere.txt"], "error: /nowhere.txt: cannot be read (ENOENT)\n"],
    [["inspect", "package.json"], "error: package.json: this is JSON text, such as a configuration"],
    [["perplexity", "/nowhere.txt"], "error: /nowhere.txt: cannot be read (ENOENT)\n"],
    [["tokenize", "--tokenizer", "/nowhere.json"], "error: /nowhere.json: no such file"],
    [["nonsense"], "unknown command 'nonsense'"],
  ])("%j", async (args, message) => {
    const { code, stdout, stderr } = await rwkv(args);
    expect([code, stdout]).toEqual([1, ""]);
    expect(stderr).toContain(message);
    expect(stderr).not.toMatch(/^\s+at /m);
  });

  test("--verbose shows where", async () => {
    expect((await rwkv(["inspect", "/nowhere.pth", "--verbose"])).stderr).toMatch(/^\s+at /m);
  });

  test("every command explains itself with examples", async () => {
    for (const command of [
      "generate",
      "chat",
      "inspect",
      "logits",
      "tokenize",
      "perplexity",
      "eval",
      "convert",
      "train",
      "bench",
    ]) {
      const { code, stdout } = await rwkv([command, "--help"]);
      expect(code).toBe(0);
      expect(stdout).toContain("Examples:");
    }
  });

  test("the help of the lab names architectures", async () => {
    const { stdout } = await rwkv(["lab", "parallel", "--help"]);
    expect(stdout.replace(/\s+/g, " ")).toContain("names separated by commas (default: rwkv4, rwkv6, rwkv7)");
  });
});

test("a backend that was asked for and cannot run is an error of one line", async () => {
  const empty = await temporaryFolder();
  const json = readFileSync("embedded/tokenizer.json", "utf8");
  const tokenizer = join(empty, "tokenizer.json");
  await writeFile(tokenizer, json + " ".repeat(2 ** 25)); // slow to read, so that the backend fails first
  const env = { ...process.env, CC: "/nowhere/cc", XDG_CACHE_HOME: empty, RWKV_PREBUILT: "" };
  const args = [program, "generate", "--backend", "native", "--tokenizer", tokenizer];
  const stderr = await new Promise<string>((resolve) => {
    execFile(process.execPath, args, { env }, (error, _, text) => resolve(`${error?.code} ${text}`));
  });
  expect(stderr).toBe(
    "1 error: native kernels cannot be compiled with /nowhere/cc: no such compiler on this machine\n",
  );
});

test("without a compiler WebAssembly is used, with one line that says so", async () => {
  const empty = await temporaryFolder();
  const outcome = await new Promise<Outcome>((resolve) => {
    const env = { ...process.env, CC: "/nowhere/cc", XDG_CACHE_HOME: empty, RWKV_PREBUILT: "" };
    execFile(process.execPath, [program, "generate", "--trials", "1", "-n", "5"], { env }, (error, stdout, stderr) =>
      resolve({ code: error ? 1 : 0, stdout, stderr }),
    );
  });
  expect(outcome.code).toBe(0);
  const lines = outcome.stderr.split("\n");
  expect(lines[0]).toBe(
    "native kernels cannot be compiled with /nowhere/cc: no such compiler on this machine; using WebAssembly",
  );
  expect(lines[1]).toContain("wasm on");
});

test("instructions that the processor has not are refused, with those that it has", async () => {
  const stderr = await new Promise<string>((resolve) => {
    const env = { ...process.env, RWKV_INSTRUCTIONS: "abacus" };
    const args = [program, "generate", "--backend", "native", "-n", "5"];
    execFile(process.execPath, args, { env }, (_error, _stdout, text) => resolve(text));
  });
  expect(stderr).toMatch(
    /^error: native backend: expected instructions \w+(, \w+)* on this processor, found "abacus"\n$/,
  );
});
