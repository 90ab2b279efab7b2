// Long texts are encoded in a thread, into the same tokens, while the server answers others.

import { readFileSync } from "node:fs";
import fc from "fast-check";
import { load, type Model, openTokenizer, type Tokenizer } from "rwkv";
import { createApp } from "rwkv/server";
import { afterAll, beforeAll, expect, test } from "vitest";
import { TextEncoding } from "#rwkv/server/text-encoding";
import { tokenizerOfTokens } from "#rwkv/tokenizers/world";

let model: Model;
beforeAll(async () => {
  model = await load(undefined, { threads: 1 });
});
afterAll(() => model.dispose());

/** Runs something with an encoding of a tokenizer. */
async function withEncoding<T>(tokenizer: Tokenizer, use: (encoding: TextEncoding) => Promise<T>): Promise<T> {
  const encoding = new TextEncoding(tokenizer);
  try {
    return await use(encoding);
  } finally {
    await encoding.close();
  }
}

test("texts of any length have the tokens that the tokenizer gives, whoever else asks", async () => {
  const tokenizer = await openTokenizer("embedded/");
  await withEncoding(tokenizer, (encoding) =>
    fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.string({ unit: "grapheme", minLength: 1 }), fc.constantFrom(1, 100, 2000)), {
          maxLength: 3,
        }),
        async (parts) => {
          const texts = parts.map(([text, times]) => text.repeat(times));
          const all = await Promise.all(texts.map((text) => encoding.encode(text)));
          expect(all.map((tokens) => [...tokens])).toEqual(texts.map((text) => tokenizer.encode(text)));
        },
      ),
      { numRuns: 8 },
    ),
  );
});

test("a vocabulary of byte strings is known in the thread, with its errors, and the thread begins anew after its end", async () => {
  const ascii = tokenizerOfTokens(
    "letters",
    Array.from({ length: 128 }, (_, id) => Uint8Array.of(id)),
  );
  await withEncoding(ascii, async (encoding) => {
    const text = "abc".repeat(5000);
    for (let i = 0; i < 2; i++) {
      expect([...(await encoding.encode(text))]).toEqual(ascii.encode(text));
      await expect(encoding.encode(`${text}é`)).rejects.toMatchObject({
        name: "TokenizerError",
        message: expect.stringContaining("no token for byte 195"),
      });
      await encoding.close();
    }
    // What is asked for when it ends is not lost.
    const asked = encoding.encode(text);
    await encoding.close();
    expect((await asked).length).toBe(text.length);
  });
});

test("a tokenizer of the caller's own needs no thread", async () => {
  const letters: Tokenizer = {
    ...tokenizerOfTokens("letters", [Uint8Array.of(97)]),
    kind: "bytes",
    encode: (text) => Array.from(text, () => 0),
  };
  await withEncoding(letters, async (encoding) =>
    expect((await encoding.encode("a".repeat(20_000))).length).toBe(20_000),
  );
});

test("the server answers others while it encodes a long text", async () => {
  const app = createApp(model, { name: "tales" });
  const content = readFileSync("docs/server.md", "utf8").replace(/\s+/g, "_").repeat(8);
  const headers = { "Content-Type": "application/json" };
  const body = JSON.stringify({ content });
  let isEncoded = false;
  const encoded = (async () => {
    const answer = await app.fetch(new Request("http://localhost/tokenize", { method: "POST", headers, body }));
    isEncoded = true;
    return answer.json();
  })();
  let answered = 0;
  while (!isEncoded) {
    const answer = await app.fetch(new Request("http://localhost/health"));
    expect(answer.status).toBe(200);
    await new Promise(setImmediate);
    answered++;
  }
  // On the event loop's own thread it would be one turn.
  expect(answered).toBeGreaterThan(20);
  expect((await encoded).tokens).toEqual(model.tokenizer.encode(content));
  await app.close();
});
