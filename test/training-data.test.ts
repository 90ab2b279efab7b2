// What training makes of the files that people have: texts, records in JSON under any name, folders with all sorts of things in
// them.

import { mkdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { TrainingError } from "rwkv";
import { beforeEach, describe, expect, test } from "vitest";
import type { Document } from "#rwkv/training/document";
import { readDocuments } from "#rwkv/training/documents";
import { temporaryFolder } from "./fixture-files.js";

let folder = "";
const path = (name: string) => join(folder, name);
beforeEach(async () => {
  folder = await temporaryFolder();
});

const textsOf = (documents: readonly Document[]) => documents.map(({ parts }) => parts.join(""));

/** The texts that a file with this content gives. */
async function read(name: string, content: string | Uint8Array): Promise<string[]> {
  await writeFile(path(name), content);
  return textsOf(await readDocuments(path(name)));
}

const lines = '{"text": "one"}\n{"text": "two"}\n';

describe("records", () => {
  test.each(["chats.jsonl", "chats.ndjson", "chats.json", "chats.jsonl.txt", "chats.txt", "chats"])(
    "in lines are known by their content: %s",
    async (name) => {
      expect(await read(name, lines)).toEqual(["one", "two"]);
      expect(await read(name, '{"text": "only"}')).toEqual(["only"]);
    },
  );

  test.each(["array.json", "array.txt"])("in an array: %s", async (name) => {
    expect(await read(name, '\ufeff [\n  {"text": "one"},\n  {"text": "two"}\n]\n')).toEqual(["one", "two"]);
  });

  test("one, printed over several lines", async () => {
    expect(await read("one.json", '{\n  "text": "a\\nb"\n}\n')).toEqual(["a\nb"]);
  });

  test("between blank lines, with CRLF, a BOM, odd characters, no newline at the end", async () => {
    const content =
      '\ufeff\r\n{"text": "a"}\r\n\r\n  {"text": "b\u2028c"}\r\n\n{"text": "\\ud800 d"}\n{"meta": 1, "text": "e"}';
    for (const name of ["odd.jsonl", "odd.txt"])
      expect(await read(name, content)).toEqual(["a", "b\u2028c", "\ufffd d", "e"]);
  });

  test("longer than what is read at once", async () => {
    const long = ["é🦊 ".repeat(100_000), "x".repeat(300_000)];
    const content = long.map((text) => JSON.stringify({ text })).join("\n");
    for (const name of ["long.jsonl", "long.txt"]) expect(await read(name, content)).toEqual(long);
    expect(await read("long.json", JSON.stringify(long.map((text) => ({ text }))))).toEqual(long);
  });

  test("with messages become conversations as World models know them", async () => {
    const messages = [
      { role: "system", content: "Be brief." },
      { role: "user", content: "Hello\r\n\r\n \n\nthere " },
      {
        role: "assistant",
        content: [
          { type: "text", text: "Hi" },
          { type: "text", text: "!" },
        ],
      },
      { role: "human", content: "Bye" },
    ];
    expect(await read("chat.jsonl", JSON.stringify({ messages, id: 7 }))).toEqual([
      "System: Be brief.\n\nUser: Hello\nthere\n\nAssistant: Hi!\n\nUser: Bye",
    ]);
  });

  test("with an instruction become a question and its answer", async () => {
    const record = { instruction: "Add.", input: "1 2", output: "3" };
    const content = [record, { ...record, input: "" }, { instruction: "Say a.", output: "a" }];
    expect(await read("alpaca.json", JSON.stringify(content))).toEqual([
      "User: Add.\n1 2\n\nAssistant: 3",
      "User: Add.\n\nAssistant: 3",
      "User: Say a.\n\nAssistant: a",
    ]);
  });

  test.each([
    ["a.jsonl", '{"text": ["a"]}', /a.jsonl, line 1: expected a string "text", found an array/],
    ["a.txt", '\n{"prompt": "a"}\n', /a.txt, line 2: expected an object with a string "text", with "messages"/],
    ["a.txt", `${lines}and so on\n`, /a.txt, line 3: expected a JSON object, found "and so on"/],
    ["a.jsonl", '{"text": "a"}\n[1]', /line 2: expected an object with a string "text"/],
    ["a.json", '[{"text": "a"}, {"text": 1}]', /a.json, record 2: expected a string "text", found a number/],
    ["a.json", '{"data": [{"text": "a"}]}', /a.json: expected an array or lines of JSON, each an object with/],
    ["a.json", "Once upon a time", /a.json: expected an array or lines of JSON/],
    ["a.json", '["a", "b"]', /a.json: expected an array or lines of JSON/],
    ["a.jsonl", '{"messages": []}', /expected "messages" to be an array of messages/],
    [
      "a.jsonl",
      '{"messages": [{"role": "wizard", "content": "x"}]}',
      /message 1 to have the role system, user.*"wizard"/,
    ],
    [
      "a.jsonl",
      '{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}',
      /message 1 to have a string "content"/,
    ],
    ["a.jsonl", '{"instruction": "a"}', /strings "instruction" and "output"/],
    ["a.json", "", /expected text to train on, found none/],
  ])("of no known form are refused, never read as braces: %s %s", async (name, content, message) => {
    const result = read(name, content);
    await expect(result).rejects.toThrow(TrainingError);
    await expect(result).rejects.toThrow(message);
  });
});

describe("texts", () => {
  test.each([
    "{curly} is how it begins.\nAnd on.",
    "[1] In the beginning",
    "[1, 2]",
    "{",
    '"quoted"',
    "[link](to)\n{}",
  ])("that only begin like JSON are texts: %s", async (content) => {
    expect(await read("text.md", content)).toEqual([content]);
  });

  test("lose their byte order mark and nothing else", async () => {
    expect(await read("bom.txt", "\ufeffa\r\nb\ufeff\n")).toEqual(["a\r\nb\ufeff\n"]);
  });

  test("longer than what is read at once are whole, whatever characters lie there", async () => {
    for (const unit of ["x", "é", "東", "🦊", "🦊 x\n"]) {
      const text = `a${unit.repeat(150_000)}`;
      expect((await read("long.txt", text))[0] === text, unit).toBe(true);
    }
  });

  test("that are none are refused, with the place", async () => {
    const long = Buffer.from("é ".repeat(100_000));
    const cases: [Uint8Array, RegExp][] = [
      [
        Buffer.concat([long, Uint8Array.of(0xe9, 32)]),
        /expected UTF-8 text, found the invalid byte 0xe9 at offset 300000/,
      ],
      [Buffer.concat([long, Uint8Array.of(0xf0, 0x9f)]), /expected UTF-8 text, .* 0xf0 at offset 300000/],
      [Buffer.concat([long, Uint8Array.of(65, 0)]), /binary file \(a zero byte at offset 300001\)/],
      [Buffer.from("\ufeffhello", "utf16le"), /expected UTF-8 text, found UTF-16 LE/],
    ];
    for (const [bytes, message] of cases) await expect(read("bad.txt", bytes)).rejects.toThrow(message);
  });
});

describe("a folder", () => {
  test("gives texts and records, in the order of their names, and passes over what systems leave in it", async () => {
    await mkdir(path("x.txt/below"), { recursive: true });
    await mkdir(path(".git"));
    const files = {
      "b.txt": "text b",
      "a.jsonl": lines,
      "c.json": '[{"text": "three"}]',
      "x.txt/below/d.md": "text d",
      "._b.txt": Uint8Array.of(0, 5, 22, 7),
      ".DS_Store": Uint8Array.of(0, 0, 0, 1),
      ".git/notes.txt": "hidden",
      "empty.txt": "",
      "blank.md": " \n",
      "package.json": '{"name": "books"}',
      "tokenizer.json": '{\n  "model": {}\n}',
      "picture.png": Uint8Array.of(1, 0, 2),
    };
    for (const [name, content] of Object.entries(files)) await writeFile(path(name), content);
    await symlink("nowhere", path("dangling.txt"));
    await symlink("b.txt", path("link.txt"));
    await symlink("x.txt", path("loop"));
    const notices: string[] = [];
    const documents = await readDocuments(folder, { onNotice: (line) => void notices.push(line) });
    expect(textsOf(documents)).toEqual(["one", "two", "text b", "three", "text b", "text d"]);
    expect(notices.length).toBe(1);
    for (const name of ["picture.png", "package.json", "tokenizer.json", "dangling.txt", "loop"]) {
      expect(notices[0]).toContain(name);
    }
  });

  test("without any is refused", async () => {
    await writeFile(path("picture.png"), "x");
    await expect(readDocuments(folder)).rejects.toThrow(
      /expected .txt, .md, .jsonl or .json files to train on in this folder/,
    );
  });

  test("with a damaged file of records is refused, not read without it", async () => {
    await writeFile(path("a.txt"), "text");
    await writeFile(path("b.json"), '{"text": "one"}\n{"text": 2}\n');
    await expect(readDocuments(folder)).rejects.toThrow(/b.json, line 2: expected a string "text"/);
  });
});

test("reading ends soon after it is interrupted", async () => {
  await writeFile(path("long.txt"), "word ".repeat(200_000));
  const reading = readDocuments(path("long.txt"), { signal: AbortSignal.abort() });
  await expect(reading).rejects.toThrow("interrupted");
});
