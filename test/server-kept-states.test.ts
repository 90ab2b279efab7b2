// /v1/states and /v1/choose: what clients make of the model's states.

import { crc32 } from "node:zlib";
import { load, type Model } from "rwkv";
import { type App, createApp } from "rwkv/server";
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from "vitest";

let model: Model;
beforeAll(async () => {
  model = await load(undefined, { threads: 1 });
});
afterAll(() => model.dispose());

type Options = NonNullable<Parameters<typeof createApp>[1]>;
const sampling = { temperature: 1, top_p: 0.9, presence_penalty: 0, frequency_penalty: 0, seed: 5, max_tokens: 12 };
const say = (content: string) => [{ role: "user", content }];

/** An application without a server, and ways to ask it. */
function made(options: Options = {}) {
  const app: App = createApp(model, { name: "tales", ...options });
  onTestFinished(() => app.close());
  const ask = async (method: string, path: string, body?: unknown, key = "none") => {
    const isBytes = body instanceof Uint8Array;
    const response = await app.fetch(
      new Request(`http://x${path}`, {
        method,
        headers: {
          "Content-Type": isBytes ? "application/octet-stream" : "application/json",
          Authorization: `Bearer ${key}`,
        },
        ...(body !== undefined && { body: isBytes ? (body as Uint8Array<ArrayBuffer>) : JSON.stringify(body) }),
      }),
    );
    const isJson = response.headers.get("content-type")?.includes("json");
    const answer = isJson ? await response.json() : new Uint8Array(await response.arrayBuffer());
    return { status: response.status, answer };
  };
  return {
    app,
    ask,
    post: (path: string, body: unknown, key?: string) => ask("POST", path, body, key),
    get: (path: string, key?: string) => ask("GET", path, undefined, key),
    async state(body: object, key?: string): Promise<string> {
      const { status, answer } = await ask("POST", "/v1/states", body, key);
      expect([status, answer.object]).toEqual([200, "state"]);
      return answer.id;
    },
    async text(body: object): Promise<string> {
      const { answer } = await ask("POST", "/v1/completions", { ...sampling, ...body });
      return answer.choices[0].text;
    },
  };
}

describe("a request that begins with a state", () => {
  const [first, second] = ["There was once a miller who had three", " sons. The youngest of them"];

  test("of a text writes what it would after all of it, and reads only what is new", async () => {
    const one = made();
    const state = await one.state({ prompt: first });
    const tokens = [first, second].map((text) => model.tokenizer.encode(text));
    const expected = await one.text({ prompt: tokens.flat() });
    const before = model.scheduler.rows;
    const { answer } = await one.post("/v1/completions", { ...sampling, prompt: second, state, max_tokens: 1 });
    expect(model.scheduler.rows - before).toBe(tokens[1]!.length);
    expect(answer.usage).toMatchObject({
      prompt_tokens: tokens.flat().length,
      prompt_tokens_details: { cached_tokens: tokens[0]!.length },
    });
    expect(await one.text({ prompt: second, state })).toBe(expected);
    const longer = await one.state({ prompt: tokens[1], state });
    expect(await one.text({ prompt: "", state: longer })).toBe(expected);
    const { answer: echoed } = await one.post("/v1/completions", { prompt: second, state, echo: true, max_tokens: 0 });
    expect(echoed.choices[0].text).toBe(second);
  });

  test("of a conversation goes on with it", async () => {
    const one = made({ stateCacheBytes: 0 });
    const told = [{ role: "system", content: "A tale of a fox." }, ...say("Who is it?")];
    const answered = { role: "assistant", content: "A fox." };
    const state = await one.state({ messages: [...told, answered] });
    const chat = async (body: object) => {
      const { answer } = await one.post("/v1/chat/completions", { ...sampling, ...body });
      return [answer.choices[0].message.content, answer.usage.prompt_tokens];
    };
    expect(await chat({ messages: say("And then?"), state })).toEqual(
      await chat({ messages: [...told, answered, ...say("And then?")] }),
    );
    const message = async (path: string, body: object) => (await one.post(path, { ...sampling, ...body })).answer;
    const whole = { system: told[0]!.content, messages: [told[1], answered, ...say("And then?")] };
    const { input_tokens: all } = await message("/v1/messages/count_tokens", whole);
    const further = { messages: say("And then?"), state };
    expect(await message("/v1/messages/count_tokens", further)).toEqual({ input_tokens: all });
    const { content, usage } = await message("/v1/messages", further);
    expect(content).toEqual((await message("/v1/messages", whole)).content);
    const { tokens } = (await one.get(`/v1/states/${state}`)).answer;
    expect([usage.input_tokens, usage.cache_read_input_tokens]).toEqual([all - tokens, tokens]);
  });

  test("of a text has the vectors of what follows it", async () => {
    const one = made();
    const session = model.session();
    await session.read(first); // its last token is kept back
    const saved = await session.save();
    await session.dispose();
    const { answer: uploaded } = await one.post("/v1/states/upload", saved);
    const vectors = async (app: ReturnType<typeof made>, body: object) =>
      (await app.post("/v1/embeddings", { input: [second, first], ...body })).answer.data;
    const expected = await vectors(made({ state: saved }), {});
    expect(await vectors(one, { state: uploaded.id })).toEqual(expected);
    expect(await vectors(one, { state: await one.state({ prompt: first }) })).toEqual(expected);
    expect(await vectors(one, {})).not.toEqual(expected);
  });
});

describe("states", () => {
  test("are made, told, listed, copied and deleted", async () => {
    const one = made();
    const id = await one.state({ prompt: "Once upon a time", name: "beginning" });
    const { answer: told } = await one.get(`/v1/states/${id}`);
    expect(told).toMatchObject({ id, name: "beginning", expires_at: null, model: "tales" });
    expect(told.tokens).toBe(model.tokenizer.encode("Once upon a time").length);
    const { answer: copy } = await one.post(`/v1/states/${id}/fork`, { name: "copy", ttl_seconds: 100 });
    expect(copy).toMatchObject({ name: "copy", tokens: told.tokens, expires_at: copy.created_at + 100 });
    const names = async () => (await one.get("/v1/states")).answer.data.map(({ name }: { name: string }) => name);
    expect(await names()).toEqual(["beginning", "copy"]);
    expect(await one.ask("DELETE", `/v1/states/${id}`)).toMatchObject({ status: 200, answer: { id, deleted: true } });
    expect(await names()).toEqual(["copy"]);
    expect((await one.get(`/v1/states/${id}`)).status).toBe(404);
    expect(await one.text({ prompt: " there", state: copy.id })).toBe(
      await one.text({ prompt: ["Once upon a time", " there"].flatMap((text) => model.tokenizer.encode(text)) }),
    );
  });

  test("go out and come back as the library saves them", async () => {
    const one = made();
    const id = await one.state({ prompt: "The wolf said" });
    const { answer: bytes } = await one.get(`/v1/states/${id}/content`);
    const generation = { maxTokens: 12, seed: 5, temperature: 1, topP: 0.9, presencePenalty: 0, frequencyPenalty: 0 };
    const session = model.session(bytes);
    const expected = await session.generate(generation).text();
    expect(await one.text({ prompt: "", state: id })).toBe(expected);
    const saved = model.session();
    await saved.read("The wolf said"); // its last token is kept back
    const { answer: uploaded } = await one.post("/v1/states/upload?name=mine&ttl_seconds=60", await saved.save());
    expect(uploaded).toMatchObject({ name: "mine", tokens: saved.position });
    expect(await one.text({ prompt: "", state: uploaded.id })).toBe(expected);
    await Promise.all([session.dispose(), saved.dispose()]);
  });

  test("belong to the key that made them", async () => {
    const one = made({ apiKeys: ["mine", "yours"] });
    const id = await one.state({ prompt: "A secret" }, "mine");
    expect((await one.get(`/v1/states/${id}`, "mine")).status).toBe(200);
    for (const [method, path, body] of [
      ["GET", `/v1/states/${id}`],
      ["GET", `/v1/states/${id}/content`],
      ["DELETE", `/v1/states/${id}`],
      ["POST", `/v1/states/${id}/fork`, {}],
      ["POST", "/v1/completions", { prompt: "x", state: id }],
      ["POST", "/v1/chat/completions", { messages: say("x"), state: id }],
      ["POST", "/v1/choose", { choices: ["x"], state: id }],
      ["POST", "/v1/responses", { input: "x", state: id }],
      ["POST", "/v1/embeddings", { input: "x", state: id }],
    ] as const) {
      const { status, answer } = await one.ask(method, path, body, "yours");
      expect([path, status, answer.error.code]).toEqual([path, 404, "state_not_found"]);
    }
    for (const path of ["/v1/messages", "/v1/messages/count_tokens"]) {
      const { status, answer } = await one.post(path, { max_tokens: 1, messages: say("x"), state: id }, "yours");
      expect([path, status, answer.error.type]).toEqual([path, 404, "not_found_error"]);
    }
    expect((await one.get("/v1/states", "yours")).answer.data).toEqual([]);
    expect((await one.get(`/v1/states/${id}`, "mine")).status).toBe(200);
  });

  test("of prompts are known to the key that they were read with alone", async () => {
    const one = made({ apiKeys: ["mine", "yours"] });
    const body = { ...sampling, prompt: "Once upon a time there was a secret in a box under the bed of the king" };
    const cached = async (key: string) => {
      const { answer } = await one.post("/v1/completions", body, key);
      return answer.usage.prompt_tokens_details.cached_tokens;
    };
    expect([await cached("mine"), await cached("yours")]).toEqual([0, 0]);
    const all = model.tokenizer.encode(body.prompt).length;
    expect([await cached("mine"), await cached("yours")]).toEqual([all, all]);
  });

  test("are limited in number and bytes, and end when they were to", async () => {
    const few = made({ limits: { keptStates: 2 }, apiKeys: ["a", "b"] });
    const { status } = await few.post("/v1/states", { prompt: "1", ttl_seconds: 1 }, "a");
    expect(status).toBe(200);
    await few.state({ prompt: "2" }, "a");
    const refused = await few.post("/v1/states", { prompt: "3" }, "a");
    expect(refused).toMatchObject({ status: 403, answer: { error: { code: "state_limit_exceeded" } } });
    await few.state({ prompt: "3" }, "b");
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 1001 });
    onTestFinished(() => void vi.useRealTimers());
    await few.state({ prompt: "3" }, "a"); // the first is over
    const small = made({ limits: { keptStateBytes: model.info.stateBytes } });
    expect((await small.post("/v1/states", { prompt: "1" })).answer.error.message).toContain("bytes");
  });

  test("that were uploaded must be of this model", async () => {
    const one = made();
    const session = model.session();
    await session.read("x");
    const bytes = await session.save();
    await session.dispose();
    const changed = bytes.slice();
    changed[100]! ^= 1;
    const wrong: [Uint8Array, number, string][] = [
      [new Uint8Array(), 400, "not a saved RWKV state"],
      [changed, 400, "damaged"],
      [bytes.subarray(0, -8), 400, "damaged"],
      [new Uint8Array(40).fill(255), 400, "not a saved RWKV state"],
      [new Uint8Array(100_000), 413, "longer than"],
    ];
    for (const [body, status, message] of wrong) {
      const found = await one.post("/v1/states/upload", body);
      expect([found.status, found.answer.error.message]).toEqual([status, expect.stringContaining(message)]);
    }
    expect((await one.post("/v1/states/upload", {})).status).toBe(415);
    expect((await one.post("/v1/states/upload?ttl_seconds=x", bytes)).answer.error.param).toBe("ttl_seconds");
  });

  test("that were made up do no harm", async () => {
    const one = made();
    const session = model.session();
    await session.read("x");
    const saved = await session.save();
    await session.dispose();
    for (const value of [Number.NaN, 1e38, Number.POSITIVE_INFINITY]) {
      const view = new DataView(saved.slice().buffer);
      for (let at = 36; at < saved.length - 4; at += 4) view.setFloat32(at, value, true);
      const bytes = new Uint8Array(view.buffer);
      view.setUint32(bytes.length - 4, crc32(bytes.subarray(0, -4)), true);
      const { answer } = await one.post("/v1/states/upload", bytes);
      for (const [path, body] of [
        ["/v1/completions", { prompt: "" }],
        ["/v1/completions", { prompt: "a fox", stream: true }],
        ["/v1/choose", { choices: ["a fox"] }],
        ["/v1/responses", { input: "a fox" }],
        ["/v1/embeddings", { input: "a fox" }],
      ] as const) {
        const found = await one.post(path, { ...body, state: answer.id });
        expect([found.status, found.answer.error.param]).toEqual([400, "state"]);
      }
    }
    const view = new DataView(saved.slice().buffer);
    view.setBigUint64(28, 2n ** 63n, true);
    view.setUint32(saved.length - 4, crc32(new Uint8Array(view.buffer).subarray(0, -4)), true);
    const { answer } = await one.post("/v1/states/upload", new Uint8Array(view.buffer));
    expect(answer.error.message).toContain("more than there can be");
  });

  test.each([
    [{}, "prompt", "expected a prompt or messages"],
    [{ prompt: "a", messages: say("b") }, "prompt", "either"],
    [{ prompt: [5000] }, "prompt", "token ids below"],
    [{ prompt: "a", ttl_seconds: 0 }, "ttl_seconds", "expected"],
    [{ prompt: "a", name: "" }, "name", "expected"],
    [{ prompt: "a", state: 5 }, "state", "expected"],
  ])("are not made of %j", async (body, param, message) => {
    const { status, answer } = await made().post("/v1/states", body);
    expect([status, answer.error.param, answer.error.message]).toEqual([400, param, expect.stringContaining(message)]);
  });

  test("are not found under any other id", async () => {
    const one = made();
    for (const id of ["x", "state_", `state_${"0".repeat(32)}`, "..%2F..%2Fetc%2Fpasswd", "%00"]) {
      expect((await one.get(`/v1/states/${id}`)).status).toBe(404);
    }
  });
});

describe("choices", () => {
  const prompt = "Once upon a time there was a";
  const choices = [" xylophone", " king", " king who had a daughter", " table"];

  /** The log-probability of a text after another, token by token. */
  async function scored(before: readonly number[], after: readonly number[]): Promise<number> {
    const state = model.createState();
    let [logits] = await model.forward([{ state, tokens: before }]);
    let sum = 0;
    for (const token of after) {
      const total = Math.log(logits!.reduce((all, logit) => all + Math.exp(logit), 0));
      sum += logits![token]! - total;
      [logits] = await model.forward([{ state, tokens: [token] }]);
    }
    await state.dispose();
    return sum;
  }

  test("are ranked by their log-probabilities, and read together", async () => {
    const one = made();
    const ids = model.tokenizer.encode(prompt);
    const before = model.scheduler.passes;
    const { answer } = await one.post("/v1/choose", { prompt, choices });
    expect(model.scheduler.passes - before).toBeLessThanOrEqual(2); // the prompt, and all choices
    const expected = await Promise.all(choices.map((choice) => scored(ids, model.tokenizer.encode(choice))));
    for (const { index, text, logprob, mean_logprob: mean, tokens } of answer.choices) {
      expect(text).toBe(choices[index]);
      expect(logprob).toBeCloseTo(expected[index]!, 3);
      expect(mean).toBeCloseTo(logprob / tokens, 10);
    }
    const values = answer.choices.map(({ logprob }: { logprob: number }) => logprob);
    expect(values).toEqual([...values].sort((a: number, b: number) => b - a));
    const sum = answer.choices.reduce((all: number, { probability }: { probability: number }) => all + probability, 0);
    expect(sum).toBeCloseTo(1, 10);
    expect((await made({ limits: { concurrent: 1 } }).post("/v1/choose", { prompt, choices })).answer.choices).toEqual(
      answer.choices,
    );
  });

  test("follow a state, or a conversation", async () => {
    const one = made();
    const { answer: plain } = await one.post("/v1/choose", { prompt, choices });
    const state = await one.state({ prompt });
    expect((await one.post("/v1/choose", { state, choices })).answer.choices).toEqual(plain.choices);
    const messages = say("Who is it?");
    const { answer: asked } = await one.post("/v1/choose", { messages, choices: ["A king.", "A fox."] });
    const conversation = await one.state({ messages });
    const { answer: same } = await one.post("/v1/choose", {
      state: conversation,
      prompt: "",
      choices: ["Bot: A king.", "Bot: A fox."],
    });
    expect(asked.choices.map(({ index }: { index: number }) => index)).toEqual(
      same.choices.map(({ index }: { index: number }) => index),
    );
  });

  test("are compared with what they are without the prompt", async () => {
    const { answer } = await made().post("/v1/choose", { prompt, choices, calibrate: true });
    const end = model.tokenizer.endOfText!;
    for (const { index, logprob, calibrated_logprob: calibrated } of answer.choices) {
      const without = await scored([end], model.tokenizer.encode(choices[index]!));
      expect(calibrated).toBeCloseTo(logprob - without, 3);
    }
    const values = answer.choices.map((one: { calibrated_logprob: number }) => one.calibrated_logprob);
    expect(values).toEqual([...values].sort((a: number, b: number) => b - a));
  });

  test.each([
    [{ prompt, choices: [] }, "choices", "expected"],
    [{ prompt, choices: [""] }, "choices[0]", "expected"],
    [{ choices: ["a"] }, "prompt", "a prompt, messages or a state"],
    [{ messages: say("a"), choices: ["  "] }, "choices[0]", "some text"],
    [{ prompt, choices: Array(129).fill("a") }, "choices", "expected"],
    [{ prompt, choices: ["a b c d e f ".repeat(10)] }, null, "reads at most 20"],
  ])("that cannot be ranked are refused: %j", async (body, param, message) => {
    const { status, answer } = await made({ limits: { promptTokens: 20 } }).post("/v1/choose", body);
    expect([status, answer.error.param, answer.error.message]).toEqual([400, param, expect.stringContaining(message)]);
  });
});
