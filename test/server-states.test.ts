// States that the server keeps: what was read before is not read again, and no answer differs for it.

import fc from "fast-check";
import { load, type Model, type Snapshot } from "rwkv";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { StateCache } from "#rwkv/server/state-cache";
import { TokenChain } from "#rwkv/server/token-chain";
import { type Served, served } from "./served.js";

const never = new AbortController().signal;
const sampling = { temperature: 1, top_p: 0.9, presence_penalty: 0, frequency_penalty: 0, seed: 3, max_tokens: 12 };
type Message = { role: "system" | "user" | "assistant"; content: string };
const say = (role: Message["role"], content: string): Message => ({ role, content });

describe("over HTTP", () => {
  let keeping: Served;
  let forgetting: Served;
  beforeAll(async () => {
    keeping = await served();
    forgetting = await served({ stateCacheBytes: 0 });
  });
  afterAll(() => Promise.all([keeping.close(), forgetting.close()]));

  const ask = async ({ client }: Served, messages: Message[], more = {}) => {
    const answer = await client.chat.completions.create({ model: "tales", messages, ...sampling, ...more });
    const { usage, choices } = answer;
    return {
      texts: choices.map(({ message }) => message.content ?? ""),
      reasons: choices.map(({ finish_reason: reason }) => reason),
      prompt: usage!.prompt_tokens,
      cached: usage!.prompt_tokens_details!.cached_tokens!,
    };
  };
  const rows = ({ model }: Served) => model.scheduler.rows;

  test("the same prompt costs no pass, and answers are equal to the bit", async () => {
    const messages = [say("user", "Who lives in the forest?")];
    const first = await ask(keeping, messages, { logprobs: true });
    const before = rows(keeping);
    const second = await ask(keeping, messages, { logprobs: true, max_tokens: 1 });
    expect([first.cached, second.cached]).toEqual([0, first.prompt]);
    expect(rows(keeping) - before).toBe(0); // the only token was sampled from logits that were kept
    expect((await ask(keeping, messages)).texts).toEqual(first.texts);
    expect((await ask(forgetting, messages)).texts).toEqual(first.texts);
    expect((await ask(forgetting, messages)).cached).toBe(0);
  });

  test("a conversation is read from where it was left", async () => {
    const messages: Message[] = [
      say("system", "A story about animals of the forest and their king."),
      say("user", "Tell me"),
    ];
    for (let turn = 0; turn < 4; turn++) {
      const [kept, plain] = await Promise.all([ask(keeping, messages), ask(forgetting, messages)]);
      expect(kept.texts).toEqual(plain.texts);
      // Of a later turn, no more is read than the last answer and what follows it.
      if (turn > 0) expect(kept.prompt - kept.cached).toBeLessThan(60);
      messages.push(
        say("assistant", kept.texts[0] || "Yes."),
        say("user", `And what did number ${turn} do after that?`),
      );
    }
  });

  test("identical prompts that arrive together are read once", async () => {
    const messages = [say("user", "What did the miller's daughter say to the king, and what did he answer her?")];
    const before = rows(keeping);
    const answers = await Promise.all(
      Array.from({ length: 6 }, (_, i) => ask(keeping, messages, { seed: i, max_tokens: 5, n: 2 })),
    );
    const { prompt } = answers[0]!;
    // Each text has at most four passes of its own beside the one that is sampled without.
    expect(rows(keeping) - before).toBeLessThanOrEqual(prompt + 12 * 4);
    expect(answers.filter(({ cached }) => cached === prompt).length).toBe(5);
    for (const [i, { texts }] of answers.entries()) {
      expect(texts).toEqual((await ask(forgetting, messages, { seed: i, max_tokens: 5, n: 2 })).texts);
    }
  });

  test("prompts share what they begin with, once two have shown where they part", async () => {
    const shared =
      "There was once a poor woodcutter who lived at the edge of a great forest with his wife and two children. ";
    const complete = async (prompt: string) => {
      const { usage } = await keeping.client.completions.create({ model: "tales", prompt, ...sampling, max_tokens: 1 });
      return usage!.prompt_tokens_details!.cached_tokens!;
    };
    expect(await complete(`${shared}He was kind.`)).toBe(0);
    expect(await complete(`${shared}She was clever.`)).toBe(0); // sees where it leaves the first, and keeps a state there
    const common = await complete(`${shared}They were hungry.`);
    expect(common).toBeGreaterThan(20);
  });

  test("a client that leaves does not take the prompt from those who wait for it", async () => {
    const prompt = "The old queen looked into the mirror and asked it who was the fairest in the land. ".repeat(60);
    const leaving = new AbortController();
    const left = keeping
      .post("/v1/completions", { prompt, ...sampling }, { signal: leaving.signal })
      .catch(() => "left");
    await new Promise((resolve) => setTimeout(resolve, 20));
    const staying = keeping.client.completions.create({ model: "tales", prompt, ...sampling });
    await new Promise((resolve) => setTimeout(resolve, 5));
    leaving.abort();
    const { choices } = await staying;
    expect(await left).toBe("left");
    const plain = await forgetting.client.completions.create({ model: "tales", prompt, ...sampling });
    expect(choices[0]!.text).toBe(plain.choices[0]!.text);
  });
});

describe("the cache", () => {
  let model: Model;
  let snapshot: Snapshot;
  beforeAll(async () => {
    model = await load(undefined, { threads: 1 });
    const session = model.session();
    await session.read("x", { keepLogits: true });
    snapshot = await session.snapshot();
  });
  afterAll(() => model.dispose());
  const chain = (tokens: number[], root = "") => new TokenChain(root, Int32Array.from(tokens));
  /** Looks a text up, and does not read it. */
  const find = async (cache: StateCache, wanted: TokenChain, signal: AbortSignal) => {
    const { prefix, reading } = await cache.lookUp(wanted, signal);
    reading?.abandon();
    return prefix;
  };

  test("finds the longest beginning that is there, and none of another root", async () => {
    const sequences = fc.array(fc.integer({ min: 0, max: 2 }), { minLength: 1, maxLength: 8 });
    await fc.assert(
      fc.asyncProperty(fc.array(sequences, { maxLength: 12 }), sequences, async (stored, wanted) => {
        const cache = new StateCache(2 ** 30);
        for (const tokens of stored) cache.add(chain(tokens), tokens.length, snapshot);
        const lengths = stored
          .filter((one) => one.every((token, i) => wanted[i] === token))
          .map(({ length }) => length);
        const expected = lengths.length > 0 ? Math.max(...lengths) : undefined;
        expect((await find(cache, chain(wanted), never))?.length).toBe(expected);
        expect(await find(cache, chain(wanted, "other"), never)).toBeUndefined();
      }),
      { numRuns: 200 },
    );
  });

  test("keeps to its budget, and lets the least recently used go", async () => {
    const size = snapshot.bytes + 12;
    const cache = new StateCache(3 * size);
    for (const token of [1, 2, 3]) cache.add(chain([token]), 1, snapshot);
    await find(cache, chain([1]), never);
    cache.add(chain([4]), 1, snapshot);
    const found = await Promise.all([1, 2, 3, 4].map((token) => find(cache, chain([token]), never)));
    expect(found.map((one) => one !== undefined)).toEqual([true, false, true, true]);
    expect(cache.statistics).toMatchObject({ entries: 3, bytes: 3 * size, evictions: 1 });
    const small = new StateCache(size - 1);
    small.add(chain([1]), 1, snapshot);
    expect(small.statistics).toMatchObject({ entries: 0, bytes: 0 });
  });

  test("gives what is being read to all who wait for it, also where it is too large to keep", async () => {
    const cache = new StateCache(0);
    const reading = cache.begin(chain([1, 2]), 2);
    const waiting = [1, 2, 3].map(() => find(cache, chain([1, 2, 3]), never));
    reading.finish(snapshot);
    expect((await Promise.all(waiting)).map((one) => one?.length)).toEqual([2, 2, 2]);
    expect(await find(cache, chain([1, 2, 3]), never)).toBeUndefined();
  });

  test("lets those who wait look again when a reading is abandoned, and leave", async () => {
    const cache = new StateCache(2 ** 30);
    cache.add(chain([1]), 1, snapshot);
    const reading = cache.begin(chain([1, 2]), 2);
    const leaving = new AbortController();
    const waiting = find(cache, chain([1, 2]), never);
    const left = find(cache, chain([1, 2]), leaving.signal);
    leaving.abort(new Error("left"));
    await expect(left).rejects.toThrow("left");
    reading.abandon();
    expect((await waiting)?.length).toBe(1);
    reading.abandon(); // does nothing
    expect(cache.statistics.entries).toBe(1);
  });

  test("asks its second level for what it does not have", async () => {
    const stored: [number[], number][] = [];
    const cache = new StateCache(2 ** 30, {
      find: async (wanted, longerThan) => (wanted.length > 2 && longerThan < 3 ? { length: 3, snapshot } : undefined),
      store: ({ tokens }, length) => void stored.push([[...tokens], length]),
      close: async () => {},
    });
    cache.add(chain([1, 2, 3, 4]), 2, snapshot);
    expect((await find(cache, chain([1, 2, 3, 5]), never))?.length).toBe(3);
    expect((await find(cache, chain([1, 2]), never))?.length).toBe(2);
    expect(stored).toEqual([[[1, 2, 3, 4], 2]]);
  });
});
