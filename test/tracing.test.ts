// Traces, as OpenTelemetry's SDK for Node gets them: which spans a request has, whose they are, and that none of them says what was read
// or written.

import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { context, propagation, SpanKind, SpanStatusCode, trace } from "@opentelemetry/api";
import {
  InMemorySpanExporter,
  NodeTracerProvider,
  type ReadableSpan,
  SimpleSpanProcessor,
} from "@opentelemetry/sdk-trace-node";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { program } from "./command.js";
import { temporaryFolder } from "./fixture-files.js";
import { type Served, served } from "./served.js";

const exporter = new InMemorySpanExporter();
const provider = new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] });
let tales: Served;
beforeAll(async () => {
  provider.register();
  tales = await served();
});
afterEach(() => exporter.reset());
afterAll(async () => {
  await tales.close();
  await provider.shutdown();
  // Other tests of this process are to have none.
  for (const api of [trace, context, propagation]) api.disable();
});

const [traceId, callerId] = ["0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"];
const traceparent = `00-${traceId}-${callerId}-01`;
const secret = "the unmistakable prompt";

/** The spans of one request, once it has ended, by name. */
async function spansOf(route: string): Promise<Map<string, ReadableSpan[]>> {
  await expect.poll(() => exporter.getFinishedSpans().map(({ name }) => name)).toContain(route);
  const byName = new Map<string, ReadableSpan[]>();
  for (const span of exporter.getFinishedSpans()) byName.set(span.name, [...(byName.get(span.name) ?? []), span]);
  return byName;
}

const compare = ([a, b]: readonly [number, number], [c, d]: readonly [number, number]) => a - c || b - d;
const ends = ({ endTime }: ReadableSpan) => endTime;
const only = (spans: Map<string, ReadableSpan[]>, name: string) => {
  expect(spans.get(name)).toHaveLength(1);
  return spans.get(name)![0]!;
};

test("a request, its wait, the lookup, the prompt and its texts are spans of the caller's trace", async () => {
  const body = { prompt: secret, n: 2, max_tokens: 6, seed: 1, temperature: 0.5, top_p: 0.9, logit_bias: { 0: -100 } };
  const response = await tales.post("/v1/completions", body, { headers: { traceparent } });
  const { usage } = await response.json();
  const spans = await spansOf("POST /v1/completions");
  expect(new Set(spans.keys())).toEqual(
    new Set(["POST /v1/completions", "queue", "prefix lookup", "prompt", "decode"]),
  );

  const request = only(spans, "POST /v1/completions");
  expect(request.kind).toBe(SpanKind.SERVER);
  expect(request.parentSpanContext?.spanId).toBe(callerId);
  expect(request.attributes).toEqual({
    "http.request.method": "POST",
    "http.route": "/v1/completions",
    "http.response.status_code": 200,
    "gen_ai.operation.name": "text_completion",
    "gen_ai.provider.name": "rwkv",
    "gen_ai.request.model": "tales",
    "gen_ai.response.model": "tales",
    "gen_ai.request.choice.count": 2,
    "gen_ai.request.max_tokens": 6,
    "gen_ai.request.seed": 1,
    "gen_ai.request.temperature": 0.5,
    "gen_ai.request.top_p": 0.9,
    "gen_ai.usage.input_tokens": usage.prompt_tokens,
    "gen_ai.usage.cache_read.input_tokens": 0,
    "gen_ai.usage.output_tokens": 12,
    "rwkv.request.id": response.headers.get("x-request-id"),
  });
  const lookup = only(spans, "prefix lookup");
  expect(lookup.attributes).toEqual({ "rwkv.prompt.tokens": usage.prompt_tokens, "rwkv.prefix.tokens": 0 });
  const prompt = only(spans, "prompt");
  expect(prompt.attributes).toEqual({ "rwkv.prompt.tokens": usage.prompt_tokens, "rwkv.passes": expect.any(Number) });
  expect(prompt.attributes["rwkv.passes"]).toBeGreaterThan(0);
  const texts = spans.get("decode")!;
  expect(texts.map(({ attributes }) => attributes)).toEqual(
    [0, 1].map((choice) => ({
      "rwkv.choice": choice,
      "rwkv.passes": expect.any(Number),
      "gen_ai.usage.output_tokens": 6,
      "gen_ai.response.finish_reasons": ["length"],
    })),
  );
  // Two texts share passes: of six tokens the first follows the prompt.
  for (const { attributes } of texts) expect(attributes["rwkv.passes"]).toBeGreaterThanOrEqual(5);
  const parts = [only(spans, "queue"), lookup, prompt, ...texts];
  for (const part of parts) {
    expect(part.spanContext().traceId).toBe(traceId);
    expect(part.parentSpanContext?.spanId).toBe(request.spanContext().spanId);
    expect(compare(ends(part), ends(request))).toBeLessThanOrEqual(0);
  }
});

test("a stream's request ends when it was read; what is known is not read again", async () => {
  const body = {
    messages: [{ role: "user", content: `${secret} ${"and more ".repeat(20)}` }],
    max_tokens: 4,
    stream: true,
  };
  await (await tales.post("/v1/chat/completions", body)).text();
  await spansOf("POST /v1/chat/completions");
  exporter.reset();
  await (await tales.post("/v1/chat/completions", body)).text();
  const spans = await spansOf("POST /v1/chat/completions");
  expect(new Set(spans.keys())).toEqual(new Set(["POST /v1/chat/completions", "queue", "prefix lookup", "decode"]));
  const { attributes, parentSpanContext } = only(spans, "POST /v1/chat/completions");
  expect(parentSpanContext).toBeUndefined();
  expect(attributes).toMatchObject({ "gen_ai.operation.name": "chat", "gen_ai.usage.output_tokens": 4 });
  const { "rwkv.prompt.tokens": tokens, "rwkv.prefix.tokens": known } = only(spans, "prefix lookup").attributes;
  expect(known).toBe(tokens);
  expect(attributes["gen_ai.usage.cache_read.input_tokens"]).toBe(known);
});

test("a client that leaves ends the spans of its request", async () => {
  const leaving = new AbortController();
  const body = { prompt: secret, max_tokens: 5000, stream: true };
  const response = await tales.post("/v1/completions", body, { signal: leaving.signal });
  await response.body!.getReader().read();
  leaving.abort();
  const spans = await spansOf("POST /v1/completions");
  await expect.poll(() => exporter.getFinishedSpans().map(({ name }) => name)).toContain("decode");
  expect(spans.has("queue")).toBe(true);
  const decode = exporter.getFinishedSpans().find(({ name }) => name === "decode")!;
  expect(decode.attributes["gen_ai.response.finish_reasons"]).toEqual(["aborted"]);
});

test("vectors have spans too, and whether the server is there is nobody's span", async () => {
  await fetch(`${tales.url}/health`);
  await tales.post("/v1/embeddings", { input: secret });
  const spans = await spansOf("POST /v1/embeddings");
  expect(new Set(spans.keys())).toEqual(new Set(["POST /v1/embeddings", "queue", "prompt"]));
  expect(only(spans, "POST /v1/embeddings").attributes["gen_ai.operation.name"]).toBe("embeddings");
});

test("a client's mistake is no failure of the server's", async () => {
  const body = { prompt: secret, model: secret };
  expect((await tales.post("/v1/completions", body)).status).toBe(404);
  const request = only(await spansOf("POST /v1/completions"), "POST /v1/completions");
  expect(request.status.code).toBe(SpanStatusCode.UNSET);
  expect(request.attributes["http.response.status_code"]).toBe(404);
});

test("a request within a span of the process is a part of it, whatever its headers say", async () => {
  await trace.getTracer("test").startActiveSpan("outer", async (outer) => {
    const headers = { traceparent, "Content-Type": "application/json" };
    const body = JSON.stringify({ content: secret });
    const request = new Request("http://localhost/tokenize", { method: "POST", headers, body });
    await tales.app.fetch(request);
    const span = only(await spansOf("POST /tokenize"), "POST /tokenize");
    expect(span.parentSpanContext?.spanId).toBe(outer.spanContext().spanId);
    outer.end();
  });
});

test("no span says what was read or written", async () => {
  const state = await (await tales.post("/v1/states", { prompt: secret, name: secret })).json();
  await tales.post("/v1/completions", { prompt: secret, state: state.id, stop: [secret], user: secret, max_tokens: 3 });
  await tales.post("/v1/completions", { prompt: secret, max_tokens: secret });
  await tales.post("/v1/choose", { prompt: secret, choices: [secret, "no"] });
  await tales.post("/v1/chat/completions", { messages: [{ role: secret, content: secret }] });
  await fetch(`${tales.url}/v1/models/${encodeURIComponent(secret)}`);
  await expect.poll(() => exporter.getFinishedSpans().map(({ name }) => name)).toContain("GET /v1/models/:id");
  const spans = exporter.getFinishedSpans();
  expect(spans.length).toBeGreaterThan(8);
  const told = spans.map(({ name, attributes, events, status }) =>
    JSON.stringify({ name, attributes, events, status }),
  );
  for (const text of told) expect(decodeURIComponent(text)).not.toContain("unmistakable");
});

test("node --import turns traces on for the command line", async () => {
  const folder = await temporaryFolder();
  const [tracing, input, output] = ["tracing.mjs", "in.jsonl", "out.jsonl"].map((name) => join(folder, name));
  const sdk = import.meta.resolve("@opentelemetry/sdk-trace-node");
  await writeFile(
    tracing!,
    `import { writeFileSync } from "node:fs";
     import sdk from ${JSON.stringify(sdk)};
     const exporter = new sdk.InMemorySpanExporter();
     new sdk.NodeTracerProvider({ spanProcessors: [new sdk.SimpleSpanProcessor(exporter)] }).register();
     process.once("beforeExit", () => console.log(exporter.getFinishedSpans().map(({ name }) => name).join()));`,
  );
  await writeFile(input!, `{"prompt": "${secret}", "max_tokens": 2}\n`);
  const preload = pathToFileURL(tracing!).href;
  const batch = ["batch", input!, output!, "--threads", "1"];
  const { stdout } = await promisify(execFile)(process.execPath, ["--import", preload, program, ...batch]);
  expect(stdout.trim().split(",").sort()).toEqual([
    "POST /v1/completions",
    "decode",
    "prefix lookup",
    "prompt",
    "queue",
  ]);
});
