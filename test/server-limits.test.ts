// What clients may not do to a server: wrong and hostile requests, too many at once, readers that leave or stall, and its end.

import { spawnSync } from "node:child_process";
import { setTimeout as after } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { type Served, served } from "./served.js";

const endless = { prompt: "Once upon a time", max_tokens: 16_000, temperature: 1, top_p: 0.9, logit_bias: { 0: -100 } };

async function temporary(...args: Parameters<typeof served>): Promise<Served> {
  const one = await served(...args);
  onTestFinished(() => one.close());
  return one;
}

/** Waits until something holds; the test's own time limit is the only one. */
async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await holds())) await after(5);
}
const running = async (one: Served) => (await one.metrics()).get("rwkv_texts_running");
const waiting = async (one: Served) => (await one.metrics()).get("rwkv_requests_waiting");

describe("wrong requests", () => {
  let tales: Served;
  beforeAll(async () => {
    tales = await served({ limits: { bodyBytes: 10_000, promptTokens: 50, maxTokens: 100, concurrent: 4 } });
  });
  afterAll(() => tales.close());
  const messages = [{ role: "user", content: "Hi" }];

  test.each([
    ["/v1/completions", { prompt: "a", temperature: 3 }, 400, "temperature", "expected <=2, found 3"],
    ["/v1/completions", { prompt: "a", temperature: "1" }, 400, "temperature", 'expected number, found "1"'],
    ["/v1/completions", { prompt: "a", stream: true, top_p: -1 }, 400, "top_p", "expected >=0"],
    ["/v1/completions", {}, 400, "prompt", "found undefined"],
    ["/v1/completions", { prompt: [1e9] }, 400, "prompt", "token ids below"],
    ["/v1/completions", { prompt: ["a", 1] }, 400, "prompt[0]", "expected"],
    ["/v1/completions", { prompt: "a", max_tokens: 101 }, 400, "max_tokens", "at most 100"],
    ["/v1/completions", { prompt: "a", n: 5 }, 400, "n", "at most 4"],
    ["/v1/completions", { prompt: "a", stop: [""] }, 400, "stop[0]", "expected"],
    ["/v1/completions", { prompt: "a", logit_bias: { x: 1 } }, 400, "logit_bias.x", "expected"],
    ["/v1/completions", { prompt: "a", logit_bias: { 99999999: 1 } }, 400, "logit_bias", "token ids below"],
    [
      "/v1/completions",
      { prompt: "a", logit_bias: [["x".repeat(257), 1]] },
      400,
      "logit_bias[0][0]",
      "expected <=256, found 257",
    ],
    ["/v1/completions", { prompt: "a", suffix: "b" }, 400, "suffix", "not supported"],
    ["/v1/completions", { prompt: "a", model: "gpt-4" }, 404, "model", "does not exist here; there is tales"],
    ["/v1/completions", { prompt: "a b ".repeat(60) }, 400, null, "reads at most 50"],
    ["/v1/completions", { prompt: "a b ".repeat(60), stream: true }, 400, null, "reads at most 50"],
    ["/v1/completions", { prompt: "a".repeat(9_000) }, 400, null, "9000 characters; this server reads at most 50"],
    ["/v1/completions", { prompt: "a".repeat(10_000) }, 413, null, "longer than 10000 bytes"],
    ["/v1/completions", "{", 400, null, "JSON"],
    ["/v1/completions", "[".repeat(9000), 400, null, "JSON"],
    ["/v1/chat/completions", {}, 400, "messages", "found undefined"],
    ["/v1/chat/completions", { messages: [] }, 400, "messages", "expected >=1"],
    ["/v1/chat/completions", { messages: [{ role: "king", content: "" }] }, 400, "messages[0].role", '"king"'],
    ["/v1/chat/completions", { messages: [{ role: "user", content: 5 }] }, 400, "messages[0].content", "found 5"],
    [
      "/v1/chat/completions",
      { messages: [{ role: "user", content: [{ type: "image_url" }] }] },
      400,
      "messages[0].content[0].type",
      "image_url",
    ],
    ["/v1/chat/completions", { messages, top_logprobs: 3 }, 400, "top_logprobs", "logprobs"],
    ["/detokenize", { tokens: [-1] }, 400, "tokens[0]", "expected >=0"],
    ["/tokenize", {}, 400, "content", "expected a string"],
    ["/v1/nothing", {}, 404, null, "nothing at this path"],
    ["/health", {}, 405, null, "takes GET"],
  ])("%s: %# is an error that says what is wrong", async (path, body, status, param, message) => {
    const answer = await tales.post(path, body);
    const { error } = await answer.json();
    expect([answer.status, error.param]).toEqual([status, param]);
    expect(error.message).toContain(message);
    expect(error).toEqual({
      message: expect.any(String),
      type: "invalid_request_error",
      param,
      code: expect.any(String),
    });
  });

  test("of other types, packed, of no stated length, or that are not UTF-8", async () => {
    const send = async (body: BodyInit, type = "application/json", more = {}) => {
      const headers = { "Content-Type": type };
      return (await fetch(`${tales.url}/v1/completions`, { method: "POST", body, headers, ...more })).status;
    };
    const stream = (bytes: number) => new Blob(["x".repeat(bytes)]).stream();
    expect(await send('{"prompt": "a", "max_tokens": 1}', "text/plain")).toBe(415);
    const packed = { headers: { "Content-Type": "application/json", "Content-Encoding": "gzip" } };
    expect(await send(gzipSync('{"prompt": "a", "max_tokens": 1}'), "", packed)).toBe(415);
    expect(await send(stream(20_000), "application/json", { duplex: "half" })).toBe(413);
    expect(await send(stream(2_000), "application/json", { duplex: "half" })).toBe(400);
    expect(await send(Uint8Array.of(0x22, 0xff, 0x22))).toBe(400);
  });

  test("are errors of the client's classes, and leave nothing behind", async () => {
    const wrong = tales.client.chat.completions.create({
      model: "tales",
      messages: [{ role: "user", content: "Hi" }],
      top_p: 2,
      stream: true,
    });
    await expect(wrong).rejects.toBeInstanceOf(OpenAI.BadRequestError);
    expect([await running(tales), await waiting(tales)]).toEqual([0, 0]);
  });
});

test("too many requests at once are refused, with the time after which to try again", async () => {
  const tales = await temporary({ limits: { concurrent: 1, waiting: 1 } });
  const leaving = new AbortController();
  const first = tales.post("/v1/completions", { ...endless, stream: true }, { signal: leaving.signal });
  await until(async () => (await running(tales)) === 1);
  const second = tales.post("/v1/completions", { ...endless, max_tokens: 2 });
  await until(async () => (await waiting(tales)) === 1);
  expect((await fetch(`${tales.url}/ready`)).status).toBe(503);
  const third = await tales.post("/v1/completions", endless);
  expect([third.status, (await third.json()).error.type]).toEqual([429, "rate_limit_error"]);
  expect(Number(third.headers.get("retry-after"))).toBeGreaterThanOrEqual(1);
  await first;
  leaving.abort();
  expect((await second).status).toBe(200);
  expect((await fetch(`${tales.url}/ready`)).status).toBe(200);
});

test("a client that leaves frees its place within a pass, and others notice nothing", async () => {
  const tales = await temporary({ limits: { concurrent: 2 } });
  const expected = await tales.client.completions.create({
    model: "tales",
    prompt: "The king",
    seed: 1,
    max_tokens: 60,
  });
  for (const stream of [true, false]) {
    const leaving = new AbortController();
    const left = tales.post("/v1/completions", { ...endless, stream }, { signal: leaving.signal }).then(
      (answer) => answer.text(),
      () => {},
    );
    left.catch(() => {});
    await until(async () => (await running(tales)) === 1);
    const other = tales.client.completions.create({ model: "tales", prompt: "The king", seed: 1, max_tokens: 60 });
    leaving.abort();
    await until(async () => (await running(tales))! <= 1);
    expect((await other).choices[0]!.text).toBe(expected.choices[0]!.text);
    await until(async () => (await running(tales)) === 0);
    expect((await tales.metrics()).get("rwkv_sequences")).toBe(0);
  }
});

test("a request that takes too long ends cleanly", async () => {
  const tales = await temporary({ limits: { requestSeconds: 0.3 } });
  const stream = await tales.client.completions.create({ model: "tales", ...endless, stream: true });
  const reasons = [];
  for await (const { choices } of stream) reasons.push(choices[0]!.finish_reason);
  expect(reasons.at(-1)).toBe("length");
  const whole = await tales.client.completions.create({ model: "tales", ...endless });
  expect(whole.choices[0]!.finish_reason).toBe("length");
  expect(whole.usage!.completion_tokens).toBeLessThan(endless.max_tokens);
});

test("a reader that takes nothing holds back its own text, then loses its place", async () => {
  const tales = await temporary({ limits: { stalledSeconds: 0.3 } });
  const body = JSON.stringify({ ...endless, stream: true });
  const headers = { "Content-Type": "application/json" };
  const answer = await tales.app.fetch(new Request("http://x/v1/completions", { method: "POST", body, headers }));
  const reader = answer.body!.getReader();
  await reader.read();
  const written = async () => (await tales.metrics()).get("rwkv_generated_tokens_total")!;
  await until(async () => (await running(tales)) === 0);
  expect(await written()).toBeLessThan(20);
  expect((await tales.metrics()).get("rwkv_sequences")).toBe(0);
  await expect(
    (async () => {
      while (!(await reader.read()).done);
    })(),
  ).rejects.toThrow("stalled");
});

describe("keys", () => {
  test("are asked for everywhere but where health is told", async () => {
    const tales = await temporary({ apiKeys: ["secret-1", "secret-2"] }, { key: "secret-2" });
    const get = async (path: string, headers = {}) => (await fetch(tales.url + path, { headers })).status;
    expect(await Promise.all(["/health", "/ready"].map((path) => get(path)))).toEqual([200, 200]);
    expect(await Promise.all(["/metrics", "/v1/models", "/openapi.json"].map((path) => get(path)))).toEqual([
      401, 401, 401,
    ]);
    expect(await get("/")).toBe(200); // the page in which a key can be entered
    expect(await get("/v1/models", { "X-Api-Key": "secret-1" })).toBe(200);
    expect(await get("/v1/models", { Authorization: "Bearer secret-1" })).toBe(200);
    expect(await get("/v1/models", { Authorization: "Bearer secret" })).toBe(401);
    expect(await get("/v1/models", { Authorization: "Basic secret-1" })).toBe(401);
    expect((await tales.client.models.list()).data).toHaveLength(1);
    const wrong = new OpenAI({ baseURL: `${tales.url}/v1`, apiKey: "no", maxRetries: 0 });
    await expect(wrong.models.list()).rejects.toMatchObject({ status: 401, code: "invalid_api_key" });
  });

  test("and pages of other origins are let in where it was asked for only", async () => {
    const preflight = {
      method: "OPTIONS",
      headers: { Origin: "https://a.example", "Access-Control-Request-Method": "POST" },
    };
    const allowed = async (one: Served, init: RequestInit) =>
      (await fetch(`${one.url}/v1/completions`, init)).headers.get("access-control-allow-origin");
    expect(await allowed(await temporary(), preflight)).toBeNull();
    const open = await temporary({ corsOrigins: ["https://a.example"], apiKeys: ["secret"] });
    expect(await allowed(open, preflight)).toBe("https://a.example");
    expect(await allowed(open, { headers: { Origin: "https://b.example" } })).toBeNull();
    expect(await allowed(await temporary({ corsOrigins: ["*"] }), preflight)).toBe("*");
    // As clients' libraries send them.
    const headers = "authorization,content-type,x-stainless-lang,anthropic-version";
    const asked = { ...preflight, headers: { ...preflight.headers, "Access-Control-Request-Headers": headers } };
    const { headers: given } = await fetch(`${open.url}/v1/messages`, asked);
    expect(given.get("access-control-allow-headers")?.split(",")).toEqual(headers.split(","));
  });
});

test("records of requests and metrics hold nothing that a client wrote", async () => {
  const records: unknown[] = [];
  const tales = await temporary({ onRequest: (record) => void records.push(record) });
  const secret = "xyzzy-secret";
  await tales.client.completions.create({ model: "tales", prompt: secret, max_tokens: 2 });
  await tales.post(`/v1/${secret}?${secret}`, { prompt: secret, model: secret });
  await tales.post("/v1/completions", { prompt: secret, model: secret });
  await fetch(`${tales.url}/v1/models/${secret}`);
  const metrics = await (await fetch(`${tales.url}/metrics`)).text();
  expect(records).toHaveLength(5);
  expect(records[0]).toMatchObject({ route: "/v1/completions", status: 200, generatedTokens: 2 });
  expect(JSON.stringify(records) + metrics).not.toContain(secret);
});

test("metrics are numbers, and counters never fall", async () => {
  const tales = await temporary();
  const before = await tales.metrics();
  for (let i = 0; i < 2; i++)
    await tales.client.completions.create({ model: "tales", prompt: "The king", max_tokens: 3 });
  const now = await tales.metrics();
  expect([...now.values()].every(Number.isFinite)).toBe(true);
  for (const [name, value] of before)
    if (/_(total|bucket|count|sum)\b/.test(name)) expect(now.get(name), name).toBeGreaterThanOrEqual(value);
  expect(now.get("rwkv_generated_tokens_total")).toBe(6);
  expect(now.get("rwkv_state_cache_hits_total")).toBe(1);
  expect(now.get("rwkv_passes_total")).toBe(tales.model.scheduler.passes);
});

test("metrics are as Prometheus reads them, and as it advises", async ({ skip }) => {
  const tales = await temporary();
  await tales.client.completions.create({ model: "tales", prompt: "The king", max_tokens: 3 });
  const input = await (await fetch(`${tales.url}/metrics`)).text();
  const { error, status, stdout, stderr } = spawnSync("promtool", ["check", "metrics"], { input, encoding: "utf8" });
  if (error) return skip("there is no promtool on this machine");
  expect([status, stdout, stderr]).toEqual([0, "", ""]);
});

describe("the end of a server", () => {
  test("lets texts in progress end, and takes no others", async () => {
    const tales = await served();
    const stream = await tales.client.completions.create({ model: "tales", ...endless, max_tokens: 200, stream: true });
    const iterator = stream[Symbol.asyncIterator]();
    await iterator.next();
    const closed = tales.server.close(60_000);
    await expect(tales.post("/v1/completions", endless)).rejects.toThrow(); // it listens no more
    let last: string | null = null;
    let count = 1;
    for (let next = await iterator.next(); !next.done; next = await iterator.next()) {
      last = next.value.choices[0]!.finish_reason;
      count++;
    }
    expect([last, count > 100]).toEqual(["length", true]);
    await closed;
    await tales.model.dispose();
  });

  test("ends them cleanly where they take longer than they may", async () => {
    const tales = await served();
    const stream = await tales.client.completions.create({ model: "tales", ...endless, stream: true });
    const iterator = stream[Symbol.asyncIterator]();
    await iterator.next();
    const closed = tales.server.close(50);
    let last: string | null = null;
    for (let next = await iterator.next(); !next.done; next = await iterator.next())
      last = next.value.choices[0]!.finish_reason;
    expect(last).toBe("length");
    await closed;
    expect(tales.model.scheduler.states).toBe(0);
    await tales.model.dispose();
  });
});
