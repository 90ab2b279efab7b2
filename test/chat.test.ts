// The conversation in a terminal or pipe: what is a command, what is a message, how turns are written.

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { load, openTokenizer, samplingPresets } from "rwkv";
import { describe, expect, test } from "vitest";
import { ChatLines } from "#rwkv/cli/chat-input";
import { writeBigramModel } from "./bigram-model.js";
import { program, rwkv } from "./command.js";
import { temporaryFolder } from "./fixture-files.js";

/** What lines become, in a few letters. */
function read(lines: readonly (string | { pasted: string })[]): string[] {
  const reader = new ChatLines();
  const inputs = lines.map((line) => (typeof line === "string" ? reader.push(line) : reader.push(line.pasted, true)));
  return [...inputs, reader.end()].flatMap((input) => {
    if (!input) return [];
    return input.kind === "message" ? [input.text] : [`<${input.name} ${input.argument}>`];
  });
}

/** Options under which an answer does not end by itself: without new lines and the end of a text. */
async function withoutEnd(): Promise<string[]> {
  const tokenizer = await openTokenizer("embedded/");
  const ids = Array.from({ length: tokenizer.vocabularySize }, (_, id) => id);
  return ["--banned-tokens", ids.filter((id) => id === 0 || tokenizer.decode([id]).includes("\n")).join()];
}

describe("lines", () => {
  test("only what is exactly a command is one", () => {
    expect(read(["/reset", " /undo ", "/save my file.state", "/load", "/help"])).toEqual([
      "<reset >",
      "<undo >",
      "<save my file.state>",
      "<load >",
      "<help >",
    ]);
    const messages = [
      "/api/chat returns null, why?",
      "/etc/passwd is what?",
      "/undo the last change",
      "/constructor",
      "/",
      "help",
    ];
    expect(read(messages)).toEqual(messages);
    expect(read(["//reset", "//"])).toEqual(["/reset", "/"]);
    expect(read(["", "  "])).toEqual([]);
    // What was meant as a message is told from what may have been meant as a command.
    expect(new ChatLines().push("/foo")).toEqual({ kind: "message", text: "/foo", looksLikeCommand: true });
    expect(new ChatLines().push("//foo")).toEqual({ kind: "message", text: "/foo" });
  });

  test("a message of several lines is written between triple quotes", () => {
    expect(read(['"""', "a", "", "/reset", "  b \\", '"""', "c"])).toEqual(["a\n\n/reset\n  b \\", "c"]);
    expect(read(['"""one', 'two"""', '"""three"""', "four"])).toEqual(["one\ntwo", "three", "four"]);
    expect(read(['"""', '"""', '""""""', "x"])).toEqual(["x"]);
    expect(read(['a """', "b"])).toEqual(['a """', "b"]);
  });

  test("a line that ends in a backslash continues", () => {
    expect(read(["a\\", "/reset", "b\\", "c"])).toEqual(["a\n/reset", "b\nc"]);
    expect(read(["C:\\dir\\\\", "b"])).toEqual(["C:\\dir\\\\", "b"]);
  });

  test("what is pasted is one message, with what is typed after it", () => {
    expect(read([{ pasted: "Please correct:" }, { pasted: "/reset" }, { pasted: '"""' }, "He are\\"])).toEqual([
      'Please correct:\n/reset\n"""\nHe are\\',
    ]);
    expect(read(['"""', { pasted: 'a"""' }, "b", '"""', "c"])).toEqual(['a"""\nb', "c"]);
  });

  test("a command that takes a text takes several lines", () => {
    expect(read(["/ask a b", "/ask", "/asks a"])).toEqual(["<ask a b>", "<ask >", "/asks a"]);
    expect(read(['/generate """', "/reset", "", "b", '"""', "c"])).toEqual(["<generate /reset\n\nb>", "c"]);
    expect(read(["/instruct a\\", "b\\", "c", "/think hide"])).toEqual(["<instruct a\nb\nc>", "<think hide>"]);
    expect(read(['/ask """a', "b"])).toEqual(["<ask a\nb>"]);
  });

  test("the end of the input ends a message", () => {
    expect(read(['"""', "a", "b"])).toEqual(["a\nb"]);
    expect(read(["a\\"])).toEqual(["a"]);
    expect(read([{ pasted: "a" }])).toEqual(["a"]);
  });
});

describe("the command", () => {
  test("answers, forgets, saves and loads", async () => {
    const saved = join(await temporaryFolder(), "conversation.state");
    const lines = [
      "Hello",
      "/retry",
      "/undo",
      "/undo",
      `/save ${saved}`,
      "/reset",
      `/load ${saved}`,
      "Who are you?",
      "/load /nowhere",
      "/help",
      "/quit",
      "not read",
    ];
    const { code, stdout, stderr } = await rwkv(["chat", "-n", "20", "--seed", "3"], `${lines.join("\n")}\n`);
    expect(code).toBe(0);
    expect(stderr).toMatch(/^RWKV-4, .*; format pile\n/);
    expect(stdout.trim().split("\n").length).toBeGreaterThanOrEqual(3);
    for (const said of [
      "(undone)",
      "(nothing to undo)",
      "(saved to ",
      "(forgotten)",
      "(loaded ",
      "error: /nowhere: no such file",
      "forget the last message",
    ]) {
      expect(stderr).toContain(said);
    }
    expect(existsSync(saved)).toBe(true);
  });

  test("continues after a file that cannot be written or read", async () => {
    const folder = await temporaryFolder();
    await mkdir(join(folder, "a"));
    const lines = [
      "/save",
      "/load",
      `/save ${join(folder, "a")}`,
      `/save ${join(folder, "b/c")}`,
      `/load ${folder}`,
      "Hi",
    ];
    const { code, stdout, stderr } = await rwkv(["chat", "-n", "5", "--seed", "1"], lines.join("\n"));
    expect(code).toBe(0);
    expect(stderr.match(/^error: /gm)?.length).toBe(5);
    expect(stdout).not.toBe("");
  });

  test("several lines are one message, to the end of the input", async () => {
    const count = async (input: string) => {
      const { code, stdout } = await rwkv(["chat", "-n", "1", "--temperature", "0"], input);
      expect(code).toBe(0);
      return stdout.split("\n").length - 1; // an answer of one token is a line
    };
    expect(await count("a\\\nb\\\nc\n")).toBe(1);
    expect(await count('"""\na\n\nb\n')).toBe(1);
    expect(await count("a\nb\nc")).toBe(3);
  });

  test("an answer ends before the next turn, which is forgotten", async () => {
    const folder = await temporaryFolder();
    const [path, saved] = [join(folder, "model.safetensors"), join(folder, "state")];
    // After "Assistant:" the model writes " y", and after a single new line the user's next turn.
    const turn = { ":": " ", " ": "y", y: "\n", "\n": "U", U: "s", s: "e", e: "r", r: ":" };
    await writeBigramModel(path, turn);
    const options = ["chat", "--model", path, "--format", "world", "--temperature", "0", "--presence-penalty", "0"];
    const input = `Hi\nHo\n/save ${saved}\n`;
    const { code, stdout } = await rwkv([...options, "--frequency-penalty", "0", "-n", "50"], input);
    expect([code, stdout]).toEqual([0, "y\ny\n"]);
    const model = await load(path);
    const session = model.session(await readFile(saved));
    expect(session.position).toBe(2 * "User: Hi\n\nAssistant: y\n\n".length);
    await model.dispose();
  });

  test("what another turn than the user's follows is taken back", async () => {
    const folder = await temporaryFolder();
    const [path, saved] = [join(folder, "model.safetensors"), join(folder, "state")];
    // The answer " y" ends in "\n\nUser:", with which the user's next turn begins; saving it takes that back.
    await writeBigramModel(path, { ":": " ", " ": "y", y: "\n", "\n": "U", U: "s", s: "e", e: "r", r: ":" });
    const greedy = ["--temperature", "0", "--presence-penalty", "0", "--frequency-penalty", "0", "-n", "50"];
    const options = ["chat", "--model", path, "--format", "assistant", "--thinking", "auto", ...greedy];
    const { stdout } = await rwkv(options, `Hi\nHo\n/save ${saved}\n/undo\nHo\n`);
    expect(stdout).toBe("y\ny\ny\n");
    const model = await load(path);
    expect(model.session(await readFile(saved)).position).toBe(2 * "User: Hi\n\nAssistant: y\n\n".length);
    await model.dispose();
  });

  test("thoughts are dimmed or hidden, apart from the answer", async () => {
    const path = join(await temporaryFolder(), "model.safetensors");
    // After "<think": ">a</think>a</think>a..."
    await writeBigramModel(path, { k: ">", ">": "a", a: "<", "<": "/", "/": "t", t: "h", h: "i", i: "n", n: "k" });
    const greedy = ["--temperature", "0", "--presence-penalty", "0", "--frequency-penalty", "0"];
    const options = ["chat", "--model", path, "--format", "g1", ...greedy];
    const shown = await rwkv([...options, "-n", "11"], "Hi\n/think hide\nHo\n");
    expect([shown.code, shown.stdout]).toEqual([0, "a\na\n"]);
    expect(shown.stderr.match(/^a$/gm)?.length).toBe(1);
    expect(shown.stderr.match(/^\(thinking\)$/gm)?.length).toBe(1);
    const without = await rwkv(
      [...options, "-n", "2", "--thinking", "off"],
      "Hi\n/think on\n/think\n/think loud\nHi\n",
    );
    expect(without.stdout).toBe("a\n\n");
    // The answer to the last message, of which only a thought was written.
    expect(without.stderr).toMatch(/^a\n\(cut off after 2 tokens, before the answer; --max-tokens allows more\)$/m);
    expect(without.stderr.match(/cut off/g)?.length).toBe(1);
    expect(without.stderr).toContain("(thinking is on; thoughts are shown)");
    expect(without.stderr).toContain("error: /think needs a mode");
    expect(without.stderr).toContain('error: option thinking: expected on, off, short, long, auto, found "loud"');
    const plain = await rwkv([...options, "--format", "world", "--thinking", "on"], "Hi\n");
    expect([plain.code, plain.stdout]).toEqual([1, ""]);
    expect(plain.stderr).toContain("option thinking: expected a format whose models think");
  });

  test("questions, instructions and free texts leave nothing; each can be written again", async () => {
    const folder = await temporaryFolder();
    const saved = ["a", "b"].map((name) => join(folder, name));
    const lines = [
      "Hello",
      `/save ${saved[0]}`,
      "/ask Who?",
      "/retry",
      "/instruct Count.\\",
      "\\",
      "one two",
      "/generate Once",
      "/retry",
    ];
    const input = [
      ...lines,
      `/save ${saved[1]}`,
      "/ask",
      "/generate",
      "/instruct",
      "/undo",
      "/retry",
      "/reset",
      "/retry",
    ].join("\n");
    const { code, stdout, stderr } = await rwkv(["chat", "-n", "12", "--seed", "3", "--temperature", "1.3"], input);
    expect(code).toBe(0);
    for (const needed of ["/ask needs a question", "/generate needs a text", "/instruct needs an instruction"]) {
      expect(stderr).toContain(`error: ${needed}`);
    }
    expect(stderr.match(/\(nothing to answer again\)/g)?.length).toBe(1);
    expect(await readFile(saved[1]!)).toEqual(await readFile(saved[0]!));
    expect(stdout.trim()).not.toBe("");
  });

  test("a system's text stands before the conversation, and before single questions", async () => {
    const folder = await temporaryFolder();
    const [path, saved] = [join(folder, "model.safetensors"), join(folder, "state")];
    await writeBigramModel(path, { ":": " ", " ": "y", y: "\n" });
    const options = [
      "chat",
      "--model",
      path,
      "--format",
      "world",
      "--system",
      "Be\n\nbrief.",
      "--preset",
      "deterministic",
    ];
    const { stdout } = await rwkv(options, `/save ${saved}\n/ask Hi\nHi\n`);
    expect(stdout).toBe("y\ny\n");
    const model = await load(path);
    expect(model.session(await readFile(saved)).position).toBe("System: Be\nbrief.\n\n".length);
    await model.dispose();
  });

  test("a free text continues what is given, and is sampled by a preset", async () => {
    const input = "/generate Once upon a time\n";
    const chat = (...options: string[]) => rwkv(["chat", "-n", "20", ...options], input);
    const model = await load();
    const text = await model.generate("Once upon a time", { temperature: 0, maxTokens: 20 }).text();
    expect((await chat("--preset", "deterministic")).stdout).toBe(`${text}\n`);
    const creative = await chat("--preset", "creative", "--seed", "4", "--top-k", "5");
    const { creative: preset } = samplingPresets;
    const expected = model.generate("Once upon a time", { ...preset, topK: 5, seed: 4, maxTokens: 20 });
    expect(creative.stdout).toBe(`${await expected.text()}\n`);
    await model.dispose();
  });

  test("an empty answer is reported", async () => {
    const path = join(await temporaryFolder(), "model.safetensors");
    await writeBigramModel(path, { ":": "\n" });
    const options = ["--temperature", "0", "--presence-penalty", "0", "--frequency-penalty", "0"];
    const { code, stdout, stderr } = await rwkv(["chat", "--model", path, ...options], "Hi\n");
    expect([code, stdout]).toEqual([0, "\n"]);
    expect(stderr).toContain("empty answer");
    expect(stderr).toMatch(/1 layer x /);
  });

  test.each([
    [
      Buffer.from("Hello\nGr\xfc\xdfe\n", "latin1"),
      "standard input, line 2: expected UTF-8 text, found the invalid byte 0xfc at offset 2",
    ],
    [Buffer.from("\ufeffHello\n", "utf16le"), "standard input, line 1: expected UTF-8 text, found UTF-16 LE"],
  ])("%#: what is not UTF-8 ends it with an error", async (input, message) => {
    const { code, stderr } = await rwkv(["chat", "-n", "1"], input);
    expect(code).toBe(1);
    expect(stderr).toContain(`error: ${message}`);
  });

  test("Ctrl-C stops an answer, and then the program", async () => {
    const child = spawn(process.execPath, [program, "chat", "-n", "10000000", ...(await withoutEnd())]);
    const ended = new Promise<number | null>((resolve) => child.on("exit", resolve));
    const said = (text: string) =>
      new Promise<void>((resolve) => {
        let all = "";
        child.stderr.on("data", (chunk) => {
          all += chunk;
          if (all.includes(text)) resolve();
        });
      });
    await said("/help lists");
    const asked = new Promise<void>((resolve) => child.stdout.once("data", () => resolve()));
    child.stdin.write("Hello\n");
    await asked;
    child.kill("SIGINT");
    const undone = said("(undone)");
    child.stdin.write("/undo\n");
    await undone;
    child.kill("SIGINT");
    expect(await ended).toBe(130);
  });

  test("a reader that goes away ends it quietly", async () => {
    const child = spawn(process.execPath, [program, "chat", "-n", "10000000", ...(await withoutEnd())]);
    let stderr = "";
    child.stderr.on("data", (chunk) => {
      stderr += chunk;
    });
    const ended = new Promise<number | null>((resolve) => child.on("close", resolve));
    child.stdout.once("data", () => child.stdout.destroy());
    child.stdin.write(`${"Hello\n".repeat(100)}`);
    expect(await ended).toBe(0);
    expect(stderr).not.toMatch(/^\s+at /m);
  });
});
