// Tokenizers: every text survives, streams never cut a character, vocabularies are data.

import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { openTokenizer, type Tokenizer, TokenizerError } from "rwkv";
import { describe, expect, test } from "vitest";
import { huggingFaceTokenizer } from "#rwkv/tokenizers/hugging-face";
import { pythonLiteralBytes } from "#rwkv/tokenizers/python-literal";
import { worldTokenizer } from "#rwkv/tokenizers/world";
import { hasSharedData, sharedData, temporaryFolder } from "./fixture-files.js";

/** A World vocabulary: all bytes, and some longer tokens, one of them half a character. */
function worldVocabulary(): string {
  const lines = Array.from({ length: 256 }, (_, byte) => {
    const literal =
      byte < 128
        ? JSON.stringify(String.fromCharCode(byte)).replace(/\\u00(..)/, "\\x$1")
        : `b'\\x${byte.toString(16)}'`;
    return `${byte + 1} ${literal} 1`;
  });
  return `${[...lines, "257 'the' 3", "258 ' the' 4", "259 '\\n\\n' 2", "260 b'\\xf0\\x9f' 2", "261 '世界' 6", '262 "it\'s" 4'].join("\n")}\n`;
}

/** A byte-level BPE tokenizer.json with a few merges and an added token. */
function bytePairJson(): object {
  const printable = (byte: number) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte !== 173);
  let next = 256;
  const letters = Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(printable(byte) ? byte : next++));
  const vocab: Record<string, number> = {};
  letters.forEach((letter, byte) => {
    vocab[letter] = byte + 1;
  });
  Object.assign(vocab, { th: 257, the: 258, Ġthe: 259 });
  return {
    version: "1.0",
    added_tokens: [
      {
        id: 0,
        content: "<|endoftext|>",
        special: true,
        normalized: false,
        single_word: false,
        lstrip: false,
        rstrip: false,
      },
    ],
    normalizer: null,
    pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: null,
    decoder: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
    model: {
      type: "BPE",
      vocab,
      merges: ["t h", "th e", "Ġ the"],
      unk_token: null,
      dropout: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
    },
  };
}

/** A word-piece tokenizer, whose tokens are not byte strings. */
const wordPieceJson = {
  version: "1.0",
  added_tokens: [],
  normalizer: null,
  pre_tokenizer: { type: "Whitespace" },
  post_processor: null,
  decoder: { type: "WordPiece", prefix: "##", cleanup: false },
  model: {
    type: "WordPiece",
    unk_token: "[UNK]",
    continuing_subword_prefix: "##",
    max_input_chars_per_word: 100,
    vocab: { "[UNK]": 0, play: 1, "##ing": 2, "##ed": 3, chess: 4 },
  },
};

const tokenizers: Record<string, () => Promise<Tokenizer> | Tokenizer> = {
  bytes: () => openTokenizer("bytes"),
  world: () => worldTokenizer("vocabulary.txt", worldVocabulary()),
  "byte-pair": () => huggingFaceTokenizer("tokenizer.json", bytePairJson()),
};
if (hasSharedData) tokenizers["RWKV World"] = () => openTokenizer(sharedData("tokenizers/rwkv_vocab_v20230424.txt"));

function streamed(tokenizer: Tokenizer, ids: readonly number[]): string[] {
  const stream = tokenizer.stream();
  return [...ids.map((id) => stream.push(id)), stream.end()];
}

describe.each(Object.keys(tokenizers))("%s tokenizer", (name) => {
  test("any text comes back, at once and streamed", async () => {
    const tokenizer = await tokenizers[name]!();
    const text = fc.oneof(
      fc.string({ unit: "binary" }),
      fc.string({ unit: "grapheme" }),
      fc.constantFrom("\ufeffbom", "", "\r\n\0", "é👩‍👩‍👧‍👦", "<|endoftext|>", "the the  the"),
    );
    fc.assert(
      fc.property(text, (value) => {
        const ids = tokenizer.encode(value);
        expect(tokenizer.decode(ids)).toBe(value);
        expect(streamed(tokenizer, ids).join("")).toBe(value);
        for (const id of ids) expect(id).toBeLessThan(tokenizer.vocabularySize);
      }),
      { numRuns: 500 },
    );
  });

  test("a stream gives whole characters as soon as their last byte is there", async () => {
    const tokenizer = await tokenizers[name]!();
    const shift = tokenizer.kind === "bytes" ? 0 : 1;
    const bytes = (text: string) => [...Buffer.from(text)].map((byte) => byte + shift);
    expect(streamed(tokenizer, bytes("aé世👍b"))).toEqual(["a", "", "é", "", "", "世", "", "", "", "👍", "b", ""]);
  });

  test("bytes that end in the middle of a character come out as one U+FFFD", async () => {
    const tokenizer = await tokenizers[name]!();
    const shift = tokenizer.kind === "bytes" ? 0 : 1;
    const ids = [0x61, 0xf0, 0x9f, 0x91].map((byte) => byte + shift);
    expect(streamed(tokenizer, ids)).toEqual(["a", "", "", "", "\ufffd"]);
    expect(tokenizer.decode(ids)).toBe("a\ufffd");
  });

  test("what is no id is refused; ids without text have none", async () => {
    const tokenizer = await tokenizers[name]!();
    expect(() => tokenizer.decode([-1])).toThrow(TokenizerError);
    expect(() => tokenizer.decode([0.5])).toThrow(TokenizerError);
    expect(tokenizer.decode([1_000_000])).toBe("");
  });
});

test("byte-pair merges and added tokens", () => {
  const tokenizer = huggingFaceTokenizer("tokenizer.json", bytePairJson());
  expect(tokenizer.encode("the the<|endoftext|>")).toEqual([258, 259, 0]);
  expect(tokenizer.endOfText).toBe(0);
  expect(tokenizer.vocabularySize).toBe(260);
});

test("tokens that are not byte strings stream through a window", () => {
  const tokenizer = huggingFaceTokenizer("tokenizer.json", wordPieceJson);
  const ids = tokenizer.encode("playing chess played");
  expect(ids).toEqual([1, 2, 4, 1, 3]);
  expect(tokenizer.decode(ids)).toBe("playing chess played");
  expect(streamed(tokenizer, ids)).toEqual(["play", "ing", " chess", " play", "ed", ""]);
});

test("World: the longest token wins, across characters and inside them", () => {
  const tokenizer = worldTokenizer("vocabulary.txt", worldVocabulary());
  expect(tokenizer.encode("the the")).toEqual([257, 258]);
  expect(tokenizer.encode("it's\n\n世界")).toEqual([262, 259, 261]);
  expect(tokenizer.encode("👍")).toEqual([260, 0x91 + 1, 0x8d + 1]);
});

describe("Python literals", () => {
  test.each([
    ["'abc'", "abc"],
    ['"it\'s"', "it's"],
    ["'\\n\\t\\\\\\''", "\n\t\\'"],
    ["'\\x41\\u00e9\\U0001f44d'", "Aé👍"],
    ["'\\101\\0'", "A\0"],
    ["'世界'", "世界"],
  ])("%s", (literal, text) => expect(pythonLiteralBytes(literal)).toEqual(Uint8Array.from(Buffer.from(text))));

  test("bytes literals hold any byte", () => {
    expect(pythonLiteralBytes("b'\\xff\\x00a\\\\'")).toEqual(Uint8Array.of(255, 0, 97, 92));
  });

  test.each([
    "abc",
    "'abc",
    "'",
    "b'",
    "'a'b'",
    "'\\x4'",
    "b'\\u1234'",
    "b'é'",
    "'\\q'",
    "__import__('os')",
    "'a' + 'b'",
    "'\\U00110000'",
  ])("%s is no literal", (text) => expect(pythonLiteralBytes(text)).toBeUndefined());
});

describe("files", () => {
  test("the kind is told by content", async () => {
    const folder = await temporaryFolder();
    const path = join(folder, "some.file");
    await writeFile(path, worldVocabulary());
    expect((await openTokenizer(path)).kind).toBe("world");
    await writeFile(path, JSON.stringify(bytePairJson()));
    expect((await openTokenizer(path)).kind).toBe("huggingface");
    await expect(openTokenizer(folder)).rejects.toThrow("no tokenizer file");
    await writeFile(join(folder, "tokenizer.json"), JSON.stringify(bytePairJson()));
    expect((await openTokenizer(folder)).kind).toBe("huggingface");
  });

  test.each([
    ["not JSON at all", "neither a tokenizer.json nor a World vocabulary"],
    ["{}", "with a model and its vocab"],
    ["null", "with a model and its vocab"],
    ['{"model":{"type":"Nonsense","vocab":{}}}', "not a usable tokenizer.json"],
    ["1 'a' 1\n2 'bc' 1\n", "line 2: expected a new id"],
    ["1 'a' 1\n1 'b' 1\n", "line 2: expected a new id"],
    ["1 'a' 1\n2 __import__('os').system('true') 1\n", "line 2"],
    ["1 'a' 1\n99999999 'b' 1\n", "line 2"],
  ])("%s: an error", async (content, message) => {
    const path = join(await temporaryFolder(), "tokenizer");
    await writeFile(path, content);
    await expect(openTokenizer(path)).rejects.toThrow(message);
  });

  test("missing", async () => {
    await expect(openTokenizer("/nowhere/tokenizer.json")).rejects.toThrow("no such file");
  });
});

test.skipIf(!hasSharedData)(
  "20B: any text comes back in Unicode normal form C, which is this tokenizer's first step",
  async () => {
    const tokenizer = await openTokenizer(sharedData("tokenizers/20B_tokenizer.json"));
    fc.assert(
      fc.property(fc.string({ unit: "grapheme" }), (value) => {
        const ids = tokenizer.encode(value);
        expect(tokenizer.decode(ids)).toBe(value.normalize("NFC"));
        expect(streamed(tokenizer, ids).join("")).toBe(tokenizer.decode(ids));
      }),
      { numRuns: 300 },
    );
  },
);
