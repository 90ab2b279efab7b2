// rwkv batch: every line of a file has its answer, once and in order, whatever ends it meanwhile.

import { spawn } from "node:child_process";
import { getEventListeners, once } from "node:events";
import { existsSync } from "node:fs";
import { link, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { load } from "rwkv";
import { createApp } from "rwkv/server";
import { describe, expect, onTestFinished, test } from "vitest";
import { inOrder } from "#rwkv/server/batches/in-order";
import { readLines } from "#rwkv/server/batches/lines";
import { inputIdentity } from "#rwkv/server/batches/output-file";
import { answersHere, runBatch } from "#rwkv/server/batches/run-batch";
import { answeringIdentity } from "#rwkv/server/storage/model-identity";
import { program, rwkv } from "./command.js";
import { temporaryFolder } from "./fixture-files.js";

const lines = (count: number, tokens = 12) =>
  Array.from({ length: count }, (_, i) => {
    if (i % 3 === 1) return { prompt: `Tale ${i}: Once`, max_tokens: tokens };
    const body = { model: "gpt-4o", max_tokens: tokens, temperature: 1 };
    return i % 3 === 0
      ? {
          custom_id: `chat-${i}`,
          method: "POST",
          url: "/v1/chat/completions",
          body: { ...body, messages: [{ role: "user", content: `Tale ${i}` }] },
        }
      : {
          custom_id: `text-${i}`,
          method: "POST",
          url: "/v1/completions",
          body: { ...body, prompt: `Tale ${i}: There` },
        };
  });
const jsonl = (values: readonly unknown[]) => values.map((value) => `${JSON.stringify(value)}\n`).join("");
const parsed = (text: string) =>
  text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line));
/** What of an answer is the same each time. */
const lasting = (text: string) =>
  parsed(text).map(({ id, line, custom_id, text: written, response, error }) => {
    const choices = response?.body.choices?.map(
      (choice: { text?: string; message?: { content: string } }) => choice.text ?? choice.message?.content,
    );
    return { id, line, custom_id, written, status: response?.status_code, choices, error };
  });

async function files(content: string) {
  const folder = await temporaryFolder();
  const [input, output] = [join(folder, "in.jsonl"), join(folder, "out.jsonl")];
  await writeFile(input, content);
  return { input, output, partial: `${output}.partial` };
}

/** A promise that is resolved from outside. */
function deferred(): { readonly promise: Promise<void>; readonly resolve: () => void } {
  let resolve = () => {};
  const promise = new Promise<void>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}

/** Starts a batch and sends it a signal when some of its lines are answered, or all are. */
async function signalled(signal: NodeJS.Signals, args: readonly string[], output: string, least: number) {
  const child = spawn(process.execPath, [program, "batch", "--threads", "1", ...args], { stdio: "ignore" });
  onTestFinished(() => void child.kill("SIGKILL"));
  const exited = once(child, "exit");
  const isThere = async () => {
    if (existsSync(output)) return true;
    const text = await readFile(`${output}.partial`, "utf8").catch(() => "");
    return text.split("\n").length - 1 >= least;
  };
  await expect.poll(isThere, { timeout: 50_000, interval: 5 }).toBe(true);
  child.kill(signal);
  return exited;
}

test("each line has an answer, in order, which is that of the server", async () => {
  const { input, output } = await files(jsonl(lines(7)));
  const done = await rwkv(["batch", input, output, "--seed", "5", "--threads", "1", "--at-once", "4"]);
  expect(done).toMatchObject({ code: 0, stderr: expect.stringContaining("7 lines, in") });
  const answers = parsed(await readFile(output, "utf8"));
  const model = await load(undefined, { threads: 1 });
  const app = createApp(model, { name: "rwkv-tales" });
  onTestFinished(() => app.close().then(() => model.dispose()));
  for (const [i, line] of lines(7).entries()) {
    const { url = "/v1/completions", body = line } = line as { url?: string; body?: object };
    const request = new Request(`http://x${url}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ seed: 5 + i, ...body, model: "rwkv-tales" }),
    });
    const { choices, usage } = await (await app.fetch(request)).json();
    if ("prompt" in line) {
      expect(answers[i]).toMatchObject({ line: i + 1, text: choices[0].text, finish_reason: choices[0].finish_reason });
    } else {
      expect(answers[i]).toMatchObject({
        id: `batch_req_${i + 1}`,
        custom_id: (line as { custom_id: string }).custom_id,
        error: null,
        response: {
          status_code: 200,
          request_id: expect.any(String),
          body: { choices, usage: { completion_tokens: usage.completion_tokens } },
        },
      });
    }
  }
});

test("lines that cannot be carried out have an answer that says so, and stop no others", async () => {
  const right = { prompt: "Once", max_tokens: 2 };
  const request = { custom_id: "a", method: "POST", url: "/v1/completions", body: right };
  const content = [
    JSON.stringify(right),
    "",
    "{",
    "[]",
    JSON.stringify({ text: "x" }),
    JSON.stringify({ prompt: "x", messages: [] }),
    JSON.stringify({ ...request, method: "GET" }),
    JSON.stringify({ ...request, url: "/metrics" }),
    JSON.stringify({ ...request, custom_id: undefined }),
    JSON.stringify({ ...request, body: { ...right, stream: true } }),
    JSON.stringify({ ...request, body: { ...right, temperature: 9 } }),
    JSON.stringify({ prompt: 5 }),
    JSON.stringify({ prompt: "x".repeat(3000) }),
    "  ",
    JSON.stringify(request),
  ].join("\r\n");
  const { input, output } = await files(content);
  const done = await rwkv(["batch", input, output, "--max-line", "2KiB", "--threads", "1"]);
  expect(done).toMatchObject({ code: 0, stderr: expect.stringContaining("13 lines, 11 of which could not") });
  const answers = parsed(await readFile(output, "utf8"));
  expect(answers[0]).toMatchObject({ line: 1, finish_reason: "length" });
  expect(answers.slice(1, 9).map(({ error }) => [error.code, error.message])).toEqual([
    ["invalid_json", "line 3: expected JSON, it does not parse"],
    ["invalid_line", "line 4: expected an object"],
    ["invalid_line", expect.stringContaining("line 5: expected a request")],
    ["invalid_line", expect.stringContaining("line 6: expected a request")],
    ["invalid_method", "line 7: method: expected POST"],
    ["invalid_url", expect.stringContaining("line 8: url: expected one of /v1/chat/completions")],
    ["invalid_line", "line 9: custom_id: expected a text"],
    ["invalid_request", expect.stringContaining("line 10: body.stream")],
  ]);
  expect(answers[9]).toMatchObject({
    custom_id: "a",
    response: { status_code: 400, body: { error: { param: "temperature" } } },
  });
  expect(answers[10]).toMatchObject({ line: 12, error: { param: "prompt" } });
  expect(answers[11].error.message).toContain("line 13: expected UTF-8, and at most 2048 bytes");
  expect(answers[12]).toMatchObject({ id: "batch_req_15", response: { status_code: 200 } });
});

describe("a batch that was ended", () => {
  test("by a signal goes on where it was, without a line twice or one less", async () => {
    const { input, output } = await files(jsonl(lines(60, 24)));
    const args = [input, output, "--seed", "1", "--at-once", "4"];
    await signalled("SIGKILL", args, output, 5);
    if (!existsSync(output)) {
      // What was in progress ends first.
      expect(await signalled("SIGINT", args, output, 15)).toEqual([0, null]);
    }
    if (!existsSync(output)) expect(await rwkv(["batch", ...args])).toMatchObject({ code: 0 });
    const model = await load(undefined, { threads: 1 });
    const app = createApp(model);
    onTestFinished(() => app.close().then(() => model.dispose()));
    const whole = `${output}.whole`;
    const options = { maxBytes: 10_000, seed: 1 };
    const answers = answersHere(4, { fetch: app.fetch, modelName: app.modelName, ...options });
    await runBatch({ input, output: whole, model: "", answers, ...options });
    expect(lasting(await readFile(output, "utf8"))).toEqual(lasting(await readFile(whole, "utf8")));
  });

  /** A batch of an application that counts what it is asked for. */
  async function counted(count: number) {
    const { input, output, partial } = await files(jsonl(lines(count)));
    const asked = new Map<string, number>();
    const fetch = async (request: Request) => {
      const body = await request.text();
      asked.set(body, (asked.get(body) ?? 0) + 1);
      return Response.json({ choices: [{ text: body, finish_reason: "stop" }] });
    };
    const answers = answersHere(4, { fetch, maxBytes: 10_000 });
    const options = { input, output, model: "a", answers, maxBytes: 10_000 };
    return { options, partial, output, input, asked, fetch };
  }

  test("anywhere has at its end what it would have had", async () => {
    const whole = await counted(12);
    expect(await runBatch(whole.options)).toMatchObject({ lines: 12, isComplete: true });
    const expected = await readFile(whole.output, "utf8");
    const about = JSON.stringify({ input: await inputIdentity(whole.input), model: "a", options: "{}" });
    await fc.assert(
      fc.asyncProperty(fc.nat(expected.length), async (length) => {
        const output = join(await temporaryFolder(), "out");
        await writeFile(`${output}.partial`, expected.slice(0, length));
        await writeFile(`${output}.partial.json`, `${about}\n`);
        whole.asked.clear();
        const before = expected.slice(0, length).split("\n").length - 1;
        expect(await runBatch({ ...whole.options, output })).toMatchObject({ lines: 12, before, isComplete: true });
        expect(await readFile(output, "utf8")).toBe(expected);
        expect([...whole.asked.values()]).toEqual(Array.from({ length: 12 - before }, () => 1));
      }),
      { numRuns: 30 },
    );
  });

  test("is not gone on with for another input, model or options, nor by two at once", async () => {
    const { options, input, output, partial, fetch } = await counted(9);
    const stopping = new AbortController();
    const answer = deferred();
    const first = runBatch({
      ...options,
      stop: stopping.signal,
      answers: answersHere(4, {
        maxBytes: 10_000,
        fetch: async (request) => {
          await answer.promise;
          return fetch(request);
        },
      }),
    });
    await expect.poll(() => readFile(partial, "utf8").catch(() => undefined)).toBe("");
    await expect(runBatch(options)).rejects.toThrow(`${output}: another process is writing it`);
    stopping.abort();
    answer.resolve();
    expect(await first).toMatchObject({ isComplete: false });
    await expect(runBatch({ ...options, seed: 1 })).rejects.toThrow("was begun with another set of options");
    await expect(runBatch({ ...options, model: "b" })).rejects.toThrow("was begun with another model");
    const content = await readFile(input, "utf8");
    await writeFile(input, jsonl(lines(8)));
    await expect(runBatch(options)).rejects.toThrow("was begun with another input");
    await writeFile(input, content);
    expect(await runBatch(options)).toMatchObject({ lines: 9, isComplete: true });
    await expect(runBatch(options)).rejects.toThrow("there is such a file; give another name, or remove it");
  });
});

test("files that cannot be used are told", async () => {
  const { input, output } = await files("");
  expect(await rwkv(["batch", input, output])).toMatchObject({ code: 0, stderr: expect.stringContaining("0 lines") });
  expect(await readFile(output, "utf8")).toBe("");
  for (const [args, message] of [
    [[`${input}.none`, `${output}.2`], `${input}.none: cannot be read (ENOENT)`],
    [[input, join(output, "x")], "cannot be written"],
    [[join(input, ".."), `${output}.2`], "expected a file of lines of JSON"],
  ] as const) {
    expect((await rwkv(["batch", ...args])).stderr).toContain(message);
  }
});

test("a batch goes on with the state and the tokenizer that it was begun with", async () => {
  const { input, output, partial } = await files(jsonl([{ prompt: "Once", max_tokens: 2 }]));
  const model = await load(undefined, { threads: 1 });
  onTestFinished(() => model.dispose());
  const session = model.session();
  await session.read("There was");
  const state = await session.save();
  const stateFile = `${input}.state`;
  await writeFile(stateFile, state);
  const identity = await answeringIdentity(model, await model.readState(stateFile));
  const about = { input: await inputIdentity(input), model: identity, options: JSON.stringify({ maxTokens: 256 }) };
  await writeFile(`${partial}.json`, JSON.stringify(about));
  const run = (...more: string[]) => rwkv(["batch", input, output, "--threads", "1", ...more]);
  expect(await run()).toMatchObject({ code: 1, stderr: expect.stringContaining("was begun with another model") });
  expect(await run("--state", stateFile)).toMatchObject({ code: 0 });
  const other = { encode: (text: string) => [...model.tokenizer.encode(text)].reverse() };
  const retokenized = new Proxy(model, {
    get: (of, name) => {
      if (name === "tokenizer") return other;
      const value = Reflect.get(of, name, of);
      return typeof value === "function" ? value.bind(of) : value;
    },
  });
  expect(await answeringIdentity(retokenized)).not.toBe(await answeringIdentity(model));
});

test("short lines have what the answers have beside their texts", async () => {
  const { input, output } = await files(jsonl([{ prompt: "x", logprobs: 1 }, { messages: [] }]));
  const [logprobs, tool_calls] = [{ tokens: ["a"] }, [{ id: "call_1", type: "function" }]];
  const fetch = async ({ url }: Request) =>
    Response.json({
      choices: url.endsWith("/v1/completions")
        ? [{ text: "a", logprobs, finish_reason: "stop" }]
        : [{ message: { content: null, tool_calls }, logprobs: null, finish_reason: "tool_calls" }],
    });
  const answers = answersHere(1, { fetch, maxBytes: 1000 });
  await runBatch({ input, output, model: "a", answers, maxBytes: 1000 });
  expect(parsed(await readFile(output, "utf8"))).toEqual([
    { line: 1, text: "a", logprobs, finish_reason: "stop" },
    { line: 2, text: "", tool_calls, finish_reason: "tool_calls" },
  ]);
});

test("lines leave nothing at the signal that ends them", async () => {
  const { input, output } = await files(jsonl(lines(40)));
  const { signal } = new AbortController();
  let most = 0;
  const fetch = async (request: Request) => {
    most = Math.max(most, getEventListeners(signal, "abort").length);
    return Response.json({ choices: [{ text: await request.text(), finish_reason: "stop" }] });
  };
  const answers = answersHere(4, { fetch, maxBytes: 10_000, signal });
  expect(await runBatch({ input, output, model: "a", answers, maxBytes: 10_000 })).toMatchObject({
    lines: 40,
    failed: 0,
  });
  expect(most).toBeLessThanOrEqual(4);
  expect(getEventListeners(signal, "abort")).toEqual([]);
});

test("a line that cannot be sent stops no others", async () => {
  const deep = `${"[".repeat(200_000)}${"]".repeat(200_000)}`;
  const { input, output } = await files(
    `${jsonl(lines(2, 2))}{"prompt":${deep},"custom_id":"deep"}\n${jsonl([{ prompt: "x" }])}`,
  );
  const fetch = async () => Response.json({ choices: [{ text: "x", finish_reason: "stop" }] });
  const answers = answersHere(2, { fetch, maxBytes: 1_000_000 });
  const run = runBatch({ input, output, model: "a", answers, maxBytes: 1_000_000 });
  expect(await run).toMatchObject({ lines: 4, failed: 1, isComplete: true });
  const [, , failed, last] = parsed(await readFile(output, "utf8"));
  expect(failed).toMatchObject({ line: 3, error: { code: expect.stringMatching(/^(line_failed|invalid_json)$/) } });
  expect(last).toMatchObject({ line: 4, text: "x" });
});

test("a file that is not the batch's own is neither written nor removed", async () => {
  const { input, output, partial } = await files(jsonl(lines(2)));
  const content = await readFile(input, "utf8");
  const fetch = async () => Response.json({ choices: [{ text: "x", finish_reason: "stop" }] });
  const answers = answersHere(1, { fetch, maxBytes: 10_000 });
  const run = (from: string, to = output) =>
    runBatch({ input: from, output: to, model: "a", answers, maxBytes: 10_000 });
  for (const [own, linked] of [
    [output, `${input}.0`],
    [partial, `${input}.1`],
    [`${partial}.json`, `${input}.2`],
  ] as const) {
    await writeFile(own, content);
    await link(own, linked);
    for (const name of [own, linked]) await expect(run(name)).rejects.toThrow(`${own} is the input`);
    expect(await readFile(own, "utf8")).toBe(content);
    await rm(own);
  }
  await writeFile(partial, "a stranger's");
  await expect(run(input)).rejects.toThrow(`there is ${partial}, and no ${partial}.json that says of which batch`);
  expect(await readFile(partial, "utf8")).toBe("a stranger's");
  await rm(partial);
  expect(await run(input)).toMatchObject({ lines: 2, isComplete: true });
});

test("lines are read as they are, whatever they hold", async () => {
  const path = join(await temporaryFolder(), "x");
  const piece = fc.oneof(fc.string(), fc.constantFrom("", "\r", "é", "\u2028", "x".repeat(300), " "));
  await fc.assert(
    fc.asyncProperty(fc.array(piece), fc.boolean(), async (pieces, endsWithNewline) => {
      const clean = pieces.map((one) => one.replaceAll("\n", ""));
      await writeFile(path, clean.join("\n") + (endsWithNewline ? "\n" : ""));
      const found = [];
      for await (const { number, text, end } of readLines(path, { maxBytes: 200 })) found.push({ number, text, end });
      const expected = clean.flatMap((text, i): { number: number; text: string | undefined; end: number }[] => {
        const size = (some: string[]) => Buffer.byteLength(some.join("\n"));
        const isLast = i === clean.length - 1;
        const end = size(clean.slice(0, i + 1)) + (isLast && !endsWithNewline ? 0 : 1);
        if (Buffer.byteLength(text) > 200) return [{ number: i + 1, text: undefined, end }];
        const read = text.replace(/\r$/, "");
        return read.trim() === "" ? [] : [{ number: i + 1, text: read, end }];
      });
      expect(found).toEqual(expected);
      // Any part of it, from the beginning of a line.
      const middle = Math.floor(expected.length / 2);
      const { end: from, number } = expected[middle - 1] ?? { end: 0, number: 0 };
      const rest = [];
      for await (const line of readLines(path, { from, number: number + 1, maxBytes: 200 })) rest.push(line);
      expect(rest).toEqual(expected.slice(middle));
    }),
    { numRuns: 100 },
  );
  await writeFile(path, Uint8Array.of(0x7b, 0xff, 0x0a, 0x7d));
  const found = [];
  for await (const { text } of readLines(path, { maxBytes: 10 })) found.push(text);
  expect(found).toEqual([undefined, "}"]);
});

test("results come in the order of what they are of, and no more is begun than may be", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.scheduler(),
      fc.integer({ min: 0, max: 30 }),
      fc.integer({ min: 1, max: 5 }),
      fc.array(fc.integer({ min: 1, max: 8 }), { minLength: 30, maxLength: 30 }),
      async (s, count, atOnce, weights) => {
        const weigh = (i: number) => weights[i] as number;
        const ahead = atOnce + 3;
        let [running, begun, taken] = [0, 0, 0];
        async function* things() {
          for (let i = 0; i < count; i++) yield i;
        }
        const work = async (i: number) => {
          begun++;
          if (running > 0) expect(running + weigh(i)).toBeLessThanOrEqual(atOnce);
          running += weigh(i);
          expect(begun - taken).toBeLessThanOrEqual(ahead + 1);
          await s.schedule(Promise.resolve(), `work ${i}`);
          running -= weigh(i);
          return i * 2;
        };
        const results: number[] = [];
        const consume = async () => {
          for await (const result of inOrder(things(), work, { atOnce, weigh, ahead })) {
            taken++;
            results.push(result);
          }
        };
        await s.waitFor(consume());
        expect(results).toEqual(Array.from({ length: count }, (_, i) => i * 2));
      },
    ),
    { numRuns: 50 },
  );
  async function* numbers() {
    for (let i = 0; i < 9; i++) yield i;
  }
  const results: number[] = [];
  const fail = async (i: number) => {
    if (i === 4) throw new Error("four");
    return i;
  };
  const consume = async () => {
    for await (const result of inOrder(numbers(), fail, { atOnce: 3, ahead: 9 })) results.push(result);
  };
  await expect(consume()).rejects.toThrow("four");
  expect(results).toEqual([0, 1, 2, 3]);
});
