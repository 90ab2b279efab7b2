// Batches by workers: every line is answered once and in order, whatever becomes of the workers.

import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Redis } from "ioredis";
import { RwkvError } from "rwkv";
import { describe, expect, onTestFinished, test } from "vitest";
import { readLines } from "#rwkv/server/batches/lines";
import { type BatchProgress, runBatch } from "#rwkv/server/batches/run-batch";
import { Coordinator, type CoordinatorOptions } from "#rwkv/server/queue/coordinator";
import { shardsOf } from "#rwkv/server/queue/shard";
import { ShardQueue } from "#rwkv/server/queue/shard-queue";
import { startWorker, type WorkerOptions } from "#rwkv/server/queue/worker";
import { rwkv } from "./command.js";
import { temporaryFolder } from "./fixture-files.js";
import { hasRedis, redisServer } from "./redis-server.js";

const lines = (count: number) =>
  Array.from({ length: count }, (_, i) => `${JSON.stringify({ prompt: `Tale ${i}`, custom_id: `${i}` })}\n`);

/** A worker that answers with what it is asked, and counts how often it is. */
async function working(url: string, options: Partial<WorkerOptions> = {}) {
  const asked: string[] = [];
  const fetch = async (request: Request) => {
    const { prompt } = (await request.json()) as { prompt: string };
    asked.push(prompt);
    return Response.json({ choices: [{ text: `${prompt}!`, finish_reason: "stop" }], usage: { completion_tokens: 1 } });
  };
  const worker = await startWorker({
    ...{ url, name: "tales", model: "a", atOnce: 4 },
    ...{ fetch, fetchFor: () => fetch, ...options },
  });
  onTestFinished(() => worker.close());
  return { worker, asked };
}

/** A batch of lines by workers of a queue. */
async function batch(url: string, content: readonly string[], options: Partial<CoordinatorOptions> = {}) {
  const folder = await temporaryFolder();
  const [input, output] = [join(folder, "in.jsonl"), join(folder, "out.jsonl")];
  await writeFile(input, content.join(""));
  const run = async (more: Partial<CoordinatorOptions> = {}, onProgress = (_: BatchProgress) => {}) => {
    const queue = await ShardQueue.open(url, "tales");
    const coordinator = new Coordinator(queue, { shardLines: 5, maxBytes: 10_000, ...options, ...more });
    try {
      const answers: Parameters<typeof runBatch>[0]["answers"] = (all, begun) => coordinator.answers(all, begun);
      return await runBatch({
        input,
        output,
        model: "",
        maxBytes: 10_000,
        answers,
        onProgress,
        ...(more.stop && { stop: more.stop }),
      });
    } finally {
      await queue.close();
    }
  };
  const found = async () =>
    (await readFile(output, "utf8"))
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
  return { run, found };
}

const expected = (count: number) =>
  Array.from({ length: count }, (_, i) =>
    expect.objectContaining({ line: i + 1, custom_id: `${i}`, text: `Tale ${i}!` }),
  );

describe.skipIf(!hasRedis)("a batch by workers", () => {
  test("has all answers in order, and Redis keeps nothing of it", async () => {
    const { url } = await redisServer();
    const count = 203;
    const { run, found } = await batch(url, [
      ...lines(count),
      "{\n",
      `${JSON.stringify({ prompt: "x".repeat(20_000) })}\n`,
    ]);
    const result = run();
    const [first, second] = [await working(url), await working(url)];
    expect(await result).toMatchObject({ lines: count + 2, failed: 2, generatedTokens: count, isComplete: true });
    const answers = await found();
    expect(answers.slice(0, count)).toEqual(expected(count));
    expect(answers.slice(count).map(({ error }) => error.code)).toEqual(["invalid_json", "invalid_line"]);
    const client = new Redis(url);
    onTestFinished(() => client.disconnect());
    expect((await client.keys("*")).filter((key) => /:[0-9a-f]{40}$/.test(key))).toEqual([]);
    expect([...first.asked, ...second.asked].sort()).toEqual(
      Array.from({ length: count }, (_, i) => `Tale ${i}`).sort(),
    );
  });

  test("goes on where it was when it is asked for again, with what workers did meanwhile", async () => {
    const { url } = await redisServer();
    const count = 50;
    const { run, found } = await batch(url, lines(count));
    const stopping = new AbortController();
    const stopped = run({ stop: stopping.signal });
    const { asked } = await working(url);
    await expect.poll(() => asked.length).toBeGreaterThan(0);
    stopping.abort();
    if (!(await stopped).isComplete) await run();
    expect(await found()).toEqual(expected(count));
    expect(asked.sort()).toEqual(Array.from({ length: count }, (_, i) => `Tale ${i}`).sort()); // none twice
  });

  test("loses nothing by a worker that ends in the middle", async () => {
    const { url } = await redisServer();
    const count = 20;
    let isHeld = false;
    const never = ({ signal }: Request) => {
      isHeld = true;
      return new Promise<Response>((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
    };
    const hanging = await working(url, { fetch: never, lockMilliseconds: 60_000 });
    const { run, found } = await batch(url, lines(count));
    const result = run();
    await expect.poll(() => isHeld).toBe(true);
    const taken = await working(url);
    await hanging.worker.close(); // hands back what it has
    expect(await result).toMatchObject({ lines: count, failed: 0 });
    expect(await found()).toEqual(expected(count));
    expect(taken.asked).toHaveLength(count);
  });

  test("is answered by one model", async () => {
    const { url } = await redisServer();
    const { run } = await batch(url, lines(40));
    const result = run();
    result.catch(() => {});
    let first = 0;
    const slow = (of: string): Partial<WorkerOptions> => ({
      model: of,
      atOnce: 1,
      fetch: async () => {
        if (of === "b") first++;
        // Neither does all before the other has begun.
        while (of === "a" && first === 0) await new Promise((resolve) => setTimeout(resolve, 5));
        return Response.json({ choices: [{ text: of, finish_reason: "stop" }] });
      },
    });
    await working(url, slow("a"));
    await working(url, slow("b"));
    await expect(result).rejects.toThrow("workers of the queue tales have different models");
  });

  test("goes on with the model that it was begun with", async () => {
    const { url } = await redisServer();
    const { run, found } = await batch(url, lines(4), { shardLines: 1 });
    const answersBy = (of: string, held: string): Partial<WorkerOptions> => ({
      model: of,
      fetch: async (request) => {
        const { prompt } = (await request.json()) as { prompt: string };
        if (prompt !== held) return Response.json({ choices: [{ text: of, finish_reason: "stop" }] });
        return new Promise((_, reject) =>
          request.signal.addEventListener("abort", () => reject(request.signal.reason)),
        );
      },
    });
    const { worker: first } = await working(url, answersBy("a", "Tale 1"));
    const stopping = new AbortController();
    const stopped = run({ stop: stopping.signal }, ({ lines: answered }) => {
      if (answered === 1) stopping.abort();
    });
    expect(await stopped).toMatchObject({ lines: 1, isComplete: false });
    await first.close();
    const { worker: second } = await working(url, answersBy("b", ""));
    await expect(run()).rejects.toThrow("or another than the batch was begun with");
    await second.close();
    await working(url, answersBy("a", ""));
    // Where the other left more than one answer in the queue, each is refused once.
    for (;;) {
      const ended = await run().catch((error: Error) => error);
      if (!(ended instanceof Error)) break;
      expect(ended.message).toContain("or another than the batch was begun with");
    }
    expect((await found()).map(({ text }) => text)).toEqual(["a", "a", "a", "a"]);
  });

  test("and its workers end where Redis is gone", async () => {
    const redis = await redisServer();
    let isHeld = false;
    const { worker } = await working(redis.url, {
      fetch: ({ signal }) => {
        isHeld = true;
        return new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
      },
    });
    const { run } = await batch(redis.url, lines(300), { shardLines: 1 });
    const stopping = new AbortController();
    const result = run({ stop: stopping.signal });
    await expect.poll(() => isHeld).toBe(true);
    await redis.signal("SIGKILL");
    stopping.abort();
    expect(await result).toMatchObject({ lines: 0, isComplete: false });
    await worker.close();
  });

  test("is refused where the queue cannot be used", async () => {
    const { url } = await redisServer("--requirepass", "secret");
    await expect(batch(url, lines(1)).then(({ run }) => run())).rejects.toThrow(RwkvError);
    for (const [address, name, message] of [
      ["http://x", "tales", "--queue: expected the address of a Redis"],
      [url, "tales", "cannot be reached (NOAUTH"],
      [url.replace("//", "//:secret@"), "a b", "--queue-name: expected letters"],
    ] as const) {
      await expect(working(address, { name })).rejects.toThrow(message);
    }
    const { code, stderr } = await rwkv(["worker", "--threads", "1", "--queue", url.replace("//", "//:wrong@")]);
    expect([code, stderr]).toEqual([1, expect.stringContaining("cannot be reached (WRONGPASS")]);
    expect(stderr).not.toContain(":wrong");
  });
});

test("shards begin where they did, wherever reading begins", async () => {
  const path = join(await temporaryFolder(), "x");
  await writeFile(path, lines(23).join(""));
  const starts = async (skipped: number) => {
    const source = readLines(path, { maxBytes: 1000 });
    for (let i = 0; i < skipped; i++) await source.next();
    const all: number[][] = [];
    for await (const shard of shardsOf(source, 5)) all.push(shard.map(({ number }) => number));
    return all;
  };
  const whole = await starts(0);
  expect(whole.map((shard) => shard.length)).toEqual([5, 5, 5, 5, 3]);
  expect(await starts(10)).toEqual(whole.slice(2));
  expect(await starts(7)).toEqual([[8, 9, 10], ...whole.slice(2)]);
});
