// Tokenizers: every text survives, streams never cut a character, vocabularies are data.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { copyFile, mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { load, openTokenizer, type Tokenizer, TokenizerError, writePth } from "rwkv";
import { describe, expect, test } from "vitest";
import { tensorPieces } from "#rwkv/checkpoints/read-tensor";
import { bytePairMerges } from "#rwkv/tokenizers/byte-pair-merges";
import { huggingFaceTokenizer } from "#rwkv/tokenizers/hugging-face";
import { tokenizerFor } from "#rwkv/tokenizers/open-tokenizer";
import { pythonLiteralBytes } from "#rwkv/tokenizers/python-literal";
import { worldVocabularyText } from "#rwkv/tokenizers/stored-tokenizer";
import { type WorldTokenizer, worldTokenizer } from "#rwkv/tokenizers/world";
import { fixture, hasSharedData, sharedData, temporaryFolder } from "./fixture-files.js";
import { syntheticRwkv4 } from "./synthetic-rwkv4.js";
import { rounds } from "./thorough.js";

/** A World vocabulary: all bytes, and some longer tokens, one of them half a character. */
function worldVocabulary(): string {
  const lines = Array.from({ length: 256 }, (_, byte) => {
    const literal =
      byte < 128
        ? JSON.stringify(String.fromCharCode(byte)).replace(/\\u00(..)/, "\\x$1")
        : `b'\\x${byte.toString(16)}'`;
    return `${byte + 1} ${literal} 1`;
  });
  const further = [
    "257 'the' 3",
    "258 ' the' 4",
    "259 '\\n\\n' 2",
    "260 b'\\xf0\\x9f' 2",
    "261 '世界' 6",
    '262 "it\'s" 4',
  ];
  return `${[...lines, ...further].join("\n")}\n`;
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
      { numRuns: rounds(100) },
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

  test("spaces before quotes and marks, broken halves and line ends stay", async () => {
    const tokenizer = await tokenizers[name]!();
    const texts = [
      " there is this someone 'you' who has the ability of 'sensing things",
      " n't 's . , ? ! 've",
      "\0",
      "\r\n\r\n",
      "\u2028",
      " \n\n",
      "안녕하세요",
      "😀😀👨‍👩‍👧",
      "🇩🇪",
    ];
    for (const text of texts) {
      const ids = tokenizer.encode(text);
      expect(tokenizer.decode(ids)).toBe(text);
      expect(streamed(tokenizer, ids).join("")).toBe(text);
    }
    expect(tokenizer.decode(tokenizer.encode("a\ud800b"))).toBe("a\ufffdb");
  });

  test("an unfinished character before another is one U+FFFD, and so is a byte that begins none", async () => {
    const tokenizer = await tokenizers[name]!();
    const shift = tokenizer.kind === "bytes" ? 0 : 1;
    const ids = (bytes: number[]) => bytes.map((byte) => byte + shift);
    expect(streamed(tokenizer, ids([0xf0, 0x9f, 0x98, 0x41]))).toEqual(["", "", "", "\ufffdA", ""]);
    expect(streamed(tokenizer, ids([0xff, 0x41]))).toEqual(["\ufffd", "A", ""]);
  });

  test("every byte has a token", async () => {
    const tokenizer = await tokenizers[name]!();
    const shift = tokenizer.kind === "bytes" ? 0 : 1;
    for (let byte = 0; byte < 128; byte++) {
      expect(tokenizer.encode(String.fromCharCode(byte))).toEqual([byte + shift]);
    }
  });

  test("a long text without spaces", async () => {
    const tokenizer = await tokenizers[name]!();
    for (const text of ["a".repeat(200_000), "世".repeat(100_000), " ".repeat(200_000), "\n".repeat(200_000)]) {
      expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
    }
  });

  test("invalid ids are refused; ids without text give none", async () => {
    const tokenizer = await tokenizers[name]!();
    expect(() => tokenizer.decode([-1])).toThrow(TokenizerError);
    expect(() => tokenizer.decode([0.5])).toThrow(TokenizerError);
    expect(tokenizer.decode([1_000_000])).toBe("");
    expect(() => tokenizer.encode(undefined as unknown as string)).toThrow(TokenizerError);
    expect(tokenizer.decode(Int32Array.from(tokenizer.encode("any")))).toBe("any");
  });
});

test("byte-pair merges and added tokens", () => {
  const tokenizer = huggingFaceTokenizer("tokenizer.json", bytePairJson());
  expect(tokenizer.encode("the the<|endoftext|>")).toEqual([258, 259, 0]);
  expect(tokenizer.endOfText).toBe(0);
  expect(tokenizer.vocabularySize).toBe(260);
});

test("merges: the pair of the lowest rank first, of equals the leftmost", () => {
  /** As the algorithm is told: look for the best pair, merge it, begin anew. */
  const plain = (merges: string[][], piece: string) => {
    const word = Array.from(piece);
    for (;;) {
      let best = { rank: merges.length, at: -1 };
      for (let at = 0; at + 1 < word.length; at++) {
        const rank = merges.findLastIndex(([left, right]) => left === word[at] && right === word[at + 1]);
        if (rank >= 0 && rank < best.rank) best = { rank, at };
      }
      if (best.at < 0) return word;
      word.splice(best.at, 2, word.slice(best.at, best.at + 2).join(""));
    }
  };
  const text = fc.string({ unit: fc.constantFrom("a", "b", "c", "😀"), maxLength: 40 });
  const part = fc.string({ unit: fc.constantFrom("a", "b", "c"), minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(fc.array(fc.tuple(part, part), { maxLength: 40 }), text, (merges, piece) => {
      const merge = bytePairMerges(merges);
      expect(merge(piece)).toEqual(plain(merges, piece));
      expect(merge(piece)).toEqual(plain(merges, piece)); // as remembered
    }),
    { numRuns: rounds(200) },
  );
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

describe("the World vocabulary in the package", () => {
  test("is RWKV's own, to the byte", async () => {
    const tokenizer = (await openTokenizer("world")) as WorldTokenizer;
    expect(tokenizer).toMatchObject({ kind: "world", vocabularySize: 65_530, endOfText: 0, unusedIds: [] });
    // The sum is that of rwkv_vocab_v20230424.txt in BlinkDL/ChatRWKV, which the text is compared with below, too, where it is.
    const text = worldVocabularyText(tokenizer);
    expect(createHash("sha256").update(text).digest("hex")).toBe(
      "e6dee3d4e31b4d5c40ac99508ac6c701ceef4bed681bf2167ce9a908552bca89",
    );
    if (hasSharedData) expect(text).toBe(readFileSync(sharedData("tokenizers/rwkv_vocab_v20230424.txt"), "utf8"));
  });

  test("is that of a lone model of its size, and beside a tokenizer of another; not where the model's own is damaged", async () => {
    const folder = await temporaryFolder();
    const model = join(folder, "lone.pth");
    await writeSynthetic(model, 65_536);
    expect(await tokensOf(model)).toEqual([33155, 45, 40213]);
    await writeFile(join(folder, "20B_tokenizer.json"), JSON.stringify(bytePairJson()));
    expect(await tokensOf(model)).toEqual([33155, 45, 40213]);
    await writeFile(join(folder, "tokenizer.json"), '{"model":');
    await expect(tokensOf(model)).rejects.toThrow(
      "tokenizer.json: expected a tokenizer.json or a World vocabulary, found JSON that is damaged",
    );
    await rm(join(folder, "tokenizer.json"));
    await writeSynthetic(model, 65_529);
    await expect(tokensOf(model)).rejects.toThrow("no tokenizer beside it that fits");
  });
});

/** Writes a model with a vocabulary of this size. */
async function writeSynthetic(path: string, vocabulary: number): Promise<void> {
  const { tensors } = syntheticRwkv4({ layers: 1, width: 16, hidden: 16, vocabulary }, "bf16");
  await writePth(
    path,
    [...tensors.values()].map((tensor) => ({
      name: tensor.name,
      dtype: "bf16" as const,
      shape: tensor.shape,
      bytes: () => tensorPieces(tensor, "bf16"),
    })),
  );
}

async function tokensOf(path: string): Promise<number[]> {
  const model = await load(path, { backend: "reference" });
  try {
    return model.tokenizer.encode("Hello, world");
  } finally {
    await model.dispose();
  }
}

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
  test("the content determines the kind", async () => {
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
    ["not JSON at all", "expected a tokenizer.json or a World vocabulary, found neither"],
    ["version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git lfs pull"],
    ["\ufeff\n<HTML lang=en>", "/resolve/ rather than /blob/"],
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

  test.each([
    [{ th: 2 ** 32 - 1 }, "expected an id from 0 to 1048576, found 4294967295"],
    [{ th: -1 }, "expected an id"],
    [{ th: "257" }, "expected an id"],
  ])("impossible ids %j are refused, whatever memory they claim", (vocab, message) => {
    const json = bytePairJson() as { model: { vocab: object }; added_tokens: object[] };
    const added = { ...json, added_tokens: [{ ...json.added_tokens[0], id: vocab.th }] };
    const model = { ...json, model: { ...json.model, vocab: { ...json.model.vocab, ...vocab } } };
    for (const one of [model, added]) expect(() => huggingFaceTokenizer("t.json", one)).toThrow(message);
  });

  test("a byte order mark, CRLF or a missing last newline change nothing", async () => {
    const folder = await temporaryFolder();
    const path = join(folder, "vocabulary");
    const plain = worldTokenizer("plain", worldVocabulary()).encode("the the it's\n\n世界");
    for (const text of [
      `\ufeff${worldVocabulary()}`,
      worldVocabulary().replaceAll("\n", "\r\n"),
      worldVocabulary().trimEnd(),
    ]) {
      await writeFile(path, text);
      expect((await openTokenizer(path)).encode("the the it's\n\n世界")).toEqual(plain);
    }
    await writeFile(path, `\ufeff${JSON.stringify(bytePairJson())}`);
    expect((await openTokenizer(path)).encode("the the")).toEqual([258, 259]);
  });

  test("a vocabulary that was cut off is an error", async () => {
    const path = join(await temporaryFolder(), "vocabulary");
    await writeFile(path, worldVocabulary().slice(0, -4));
    await expect(openTokenizer(path)).rejects.toThrow("line 262: expected a new id");
  });

  test.each([
    [
      "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
      "expected a tokenizer.json or a World vocabulary, found a Git LFS pointer",
    ],
    ["<!DOCTYPE html><html></html>", "found a web page"],
    [Buffer.from("GGUF\x03\0\0\0\xff", "latin1"), "found a GGUF file"],
    ['{"model":{"type":"BPE","vocab":{"a', "found JSON that is damaged or cut off"],
    [Buffer.from("{}", "utf16le"), "found UTF-16 LE"],
    [Buffer.from("1 'a' 1\n2 '\xff' 1\n", "latin1"), "found the invalid byte 0xff at offset 11"],
  ])("%#: what is no tokenizer is named", async (content, message) => {
    const path = join(await temporaryFolder(), "tokenizer.json");
    await writeFile(path, content);
    const error = await openTokenizer(path).catch((e: Error) => e);
    expect(error).toBeInstanceOf(TokenizerError);
    expect((error as Error).message).toContain(`${path}: `);
    expect((error as Error).message).toContain(message);
  });

  test("missing", async () => {
    await expect(openTokenizer("/nowhere/tokenizer.json")).rejects.toThrow("no such file");
  });
});

test("a vocabulary in the model's file that is not one of RWKV's is named where no tokenizer lies beside it", async () => {
  const checkpoint = { name: join(await temporaryFolder(), "model.gguf"), vocabulary: { kind: "gpt2", tokens: ["a"] } };
  await expect(tokenizerFor(checkpoint, 33)).rejects.toThrow(
    "or rwkv_vocab_*.txt), and the vocabulary in it, of the kind gpt2, is not used; put the model's there, or name one",
  );
});

describe("a tokenizer that cannot be the model's", () => {
  // The model has 33 tokens; bytes are 256, and a vocabulary of 3 might be padded to 33.
  test("named and too large: an error with both sizes", async () => {
    await expect(load(fixture("odd.pth"), { tokenizer: "bytes" })).rejects.toThrow(
      "bytes: this tokenizer has 256 tokens, the model 33: they do not belong together",
    );
  });

  test("named and much too small: an error, unless it was made in code", async () => {
    const tokenizer = load(undefined, { tokenizer: "bytes" });
    await expect(tokenizer).rejects.toThrow("bytes: this tokenizer has 256 tokens, the model 2048");
    const model = await load(undefined, { tokenizer: await openTokenizer("bytes") });
    expect(model.tokenizer.kind).toBe("bytes");
    await model.dispose();
  });

  test("beside the model: not used, and the reason told when a tokenizer is needed", async () => {
    const folder = await temporaryFolder();
    await copyFile(fixture("odd.pth"), join(folder, "model.pth"));
    await writeFile(join(folder, "20B_tokenizer.json"), JSON.stringify(bytePairJson()));
    const model = await load(join(folder, "model.pth"));
    expect(() => model.tokenizer).toThrow("20B_tokenizer.json: this tokenizer has 260 tokens, the model 33");
    await model.dispose();
    // Another one that fits is found beside it, or in a folder that is named.
    const small = { ...wordPieceJson, added_tokens: [] };
    await writeFile(join(folder, "small-tokenizer.json"), JSON.stringify(small));
    const fitting = await load(join(folder, "model.pth"));
    expect(fitting.tokenizer.vocabularySize).toBe(5);
    await fitting.dispose();
    const named = await load(fixture("odd.pth"), { tokenizer: folder });
    expect(named.tokenizer.vocabularySize).toBe(5);
    await named.dispose();
    await mkdir(join(folder, "empty"));
    await expect(load(fixture("odd.pth"), { tokenizer: join(folder, "empty") })).rejects.toThrow("no tokenizer file");
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
      { numRuns: rounds(100) },
    );
  },
);
