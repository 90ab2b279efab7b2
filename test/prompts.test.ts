// Texts that the command line reads: prompts, texts to measure, texts to tokenize.

import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { load } from "rwkv";
import { describe, expect, test } from "vitest";
import { readEscapes } from "#rwkv/cli/escapes";
import { rwkv } from "./command.js";
import { temporaryFolder } from "./fixture-files.js";

const short = ["--trials", "1", "-n", "12", "--temperature", "0"];

async function written(content: string | Uint8Array): Promise<string> {
  const path = join(await temporaryFolder(), "text.txt");
  await writeFile(path, content);
  return path;
}

/** The text that the prompt is followed by, by the API. */
async function expected(prompt: string, stop?: string): Promise<string> {
  const model = await load();
  try {
    const text = await model.generate(prompt, { maxTokens: 12, temperature: 0, ...(stop && { stop }) }).text();
    return `${text}\n`;
  } finally {
    await model.dispose();
  }
}

describe("prompts", () => {
  test.each([
    ["one line end at the end is dropped", "The king had a\n", "The king had a"],
    ["and only one", "The king had a\n\n", "The king had a\n"],
    ["line ends of Windows are new lines", "Bob: hi\r\n\r\nAlice:\r\n", "Bob: hi\n\nAlice:"],
    ["a byte order mark is no text", "\ufeffOnce upon a time", "Once upon a time"],
  ])("of a file and of stdin: %s", async (_, content, prompt) => {
    const wanted = await expected(prompt);
    const file = await rwkv(["generate", "--file", await written(content), ...short]);
    const stdin = await rwkv(["generate", "-", ...short], content);
    expect([file.stdout, stdin.stdout]).toEqual([wanted, wanted]);
  });

  test("an argument is taken as it is, or with its escapes", async () => {
    const plain = await rwkv(["generate", "The king\r\n\\n", ...short]);
    expect(plain.stdout).toBe(await expected("The king\r\n\\n"));
    const escaped = await rwkv(["generate", "-e", "Bob: hi\\n\\nAlice:", ...short]);
    expect(escaped.stdout).toBe(await expected("Bob: hi\n\nAlice:"));
  });

  test("a stop string may be a new line", async () => {
    const args = ["generate", "Once", "--trials", "1", "-n", "200", "--seed", "1", "--stop"];
    const { stdout } = await rwkv([...args, "\\n", "--escape"]);
    expect(stdout.trimEnd()).not.toContain("\n");
    expect(stdout.endsWith("\n")).toBe(true);
    expect((await rwkv([...args, "\\n"])).stderr).toContain("with --escape, \\n in it is a new line");
  });

  test("escapes", () => {
    expect(readEscapes("a\\nb\\tc\\r\\\\n\\'\\\"\\x41\\xe9")).toBe("a\nb\tc\r\\n'\"Aé");
    expect(readEscapes("C:\\dir \\x4 \\")).toBe("C:\\dir \\x4 \\");
  });
});

describe("a byte order mark", () => {
  test("changes neither perplexity nor tokens", async () => {
    const text = "Once upon a time there was a king.";
    const plain = await rwkv(["perplexity", await written(text), "--json"]);
    const marked = await rwkv(["perplexity", await written(`\ufeff${text}`), "--json"]);
    expect(plain.code).toBe(0);
    expect(marked.stdout).toBe(plain.stdout);
    expect((await rwkv(["tokenize"], `\ufeff${text}`)).stdout).toBe((await rwkv(["tokenize"], text)).stdout);
  });
});

describe("what is not UTF-8", () => {
  const latin1 = Buffer.from("Gr\xfc\xdfe", "latin1");
  const invalid = "expected UTF-8 text, found the invalid byte 0xfc at offset 2";

  test("is refused in files, with the file's name", async () => {
    const path = await written(latin1);
    for (const args of [
      ["generate", "-f", path],
      ["perplexity", path],
    ]) {
      const { code, stdout, stderr } = await rwkv(args);
      expect([code, stdout]).toEqual([1, ""]);
      expect(stderr).toContain(`error: ${path}: ${invalid}`);
    }
  });

  test("is refused on stdin", async () => {
    for (const args of [["generate", "-"], ["tokenize"]]) {
      const { code, stdout, stderr } = await rwkv(args, latin1);
      expect([code, stdout]).toEqual([1, ""]);
      expect(stderr).toContain(`error: standard input: ${invalid}`);
    }
  });

  test("is named where it is UTF-16", async () => {
    const { code, stderr } = await rwkv(["generate", "-f", await written(Buffer.from("\ufeffOnce", "utf16le"))]);
    expect(code).toBe(1);
    expect(stderr).toContain("found UTF-16 LE");
  });
});

describe("mistakes are one line and a failure", () => {
  test.each([
    [["logits", "--tokens", "", "--out", "x"], "option '--tokens <ids>' argument '' is invalid"],
    [["logits", "--tokens", "1,,2", "--out", "x"], "option '--tokens <ids>' argument '1,,2' is invalid"],
    [["logits", "--tokens", "57119", "--out", "/nowhere/x"], "error: /nowhere/x: cannot be written (ENOENT)"],
    [["logits", "--tokens", "1", "--out", "/nowhere/x"], "error: /nowhere/x: cannot be written (ENOENT)"],
    [["generate", "--state", "/nowhere"], "error: /nowhere: no such file"],
    [["generate", "--stop", ""], "error: option stop: expected non-empty strings"],
    [["generate", "--stop-tokens", "1,x"], "option '--stop-tokens <ids>' argument '1,x' is invalid"],
    [["generate", "--logit-bias", "5"], "option '--logit-bias <id:bias,...>' argument '5' is invalid"],
    [["generate", "a", "b"], "too many arguments"],
    [["generate", "-f", "src", "x"], "error: src: cannot be read (EISDIR)"],
    [["generate", "--tokenizer", "bytes"], "error: bytes: this tokenizer has 256 tokens, the model 2048"],
    [["generate", "--tokenizer", "src"], "error: src: no tokenizer file in this folder"],
    [["chat", "--format", "x"], "Allowed choices are pile, raven, world"],
    [["chat", "--model", "/nowhere"], "error: /nowhere: no such file"],
    [["tokenize", "--model", "/nowhere"], "error: /nowhere: no such file"],
    [["perplexity", "src"], "error: src: cannot be read (EISDIR)"],
    [["perplexity"], "missing required argument 'file'"],
  ])("%j", async (args, message) => {
    const { code, stdout, stderr } = await rwkv(args);
    expect([code, stdout]).toEqual([1, ""]);
    expect(stderr).toContain(message);
    expect(stderr).not.toMatch(/^\s+at /m);
  });

  test("a folder is a tokenizer where it holds one", async () => {
    for (const args of [["generate", "--trials", "1", "-n", "3"], ["tokenize"]]) {
      expect((await rwkv([...args, "--tokenizer", "embedded"], "Once")).code).toBe(0);
    }
    const folder = join(await temporaryFolder(), "测试 Željko 100%");
    await mkdir(folder);
    await writeFile(join(folder, "tokenizer.json"), "version https://git-lfs.github.com/spec/v1\noid sha256:00\n");
    const { code, stderr } = await rwkv(["tokenize", "--tokenizer", folder], "Once");
    expect(code).toBe(1);
    expect(stderr).toContain(
      `error: ${join(folder, "tokenizer.json")}: expected a tokenizer.json or a World vocabulary, found a Git LFS pointer`,
    );
  });
});
