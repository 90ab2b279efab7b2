// /v1/batches with a queue: workers carry out the batches of servers, as OpenAI's client sees it. test/long/server-queue.test.ts kills what it
// can.

import { spawn } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { load, type Model, OptionError, RwkvError } from "rwkv";
import { createApp, openBatchQueue } from "rwkv/server";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import type { WorkerOptions } from "#rwkv/server/queue/worker";
import { begin, ended, jsonl, lineOf, linesOf, openedBatches, upload } from "./batch-clients.js";
import { jobsIn, openedQueue, type QueuedOptions, startedWorker } from "./batch-workers.js";
import { program, rwkv } from "./command.js";
import { temporaryFolder } from "./fixture-files.js";
import { hasRedis, redisServer } from "./redis-server.js";
import { readMetrics } from "./served.js";

let model: Model;
beforeAll(async () => {
  model = await load(undefined, { threads: 1 });
});
afterAll(() => model.dispose());

const opened = (url: string, folder: string, options?: QueuedOptions) => openedQueue(model, url, folder, options);
const working = (url: string, held?: (i: number) => boolean, options?: Partial<WorkerOptions>) =>
  startedWorker(model, url, held, options);

/** What an answer says of what was asked, and nothing of when and where. */
const lasting = ({ response, ...line }: { response: { body: { usage: object } } | null }) => ({
  ...line,
  response: response && {
    ...response,
    request_id: "",
    body: { ...response.body, id: "", created: 0, usage: { ...response.body.usage, prompt_tokens_details: {} } },
  },
});

describe.skipIf(!hasRedis)("batches of a server by a queue", () => {
  test("have the answers of the server, each of its own key, by a worker of another process", async () => {
    const { url } = await redisServer();
    const worker = spawn(process.execPath, [program, "worker", "--threads", "1", "--queue", url], { stdio: "ignore" });
    onTestFinished(() => void worker.kill("SIGKILL"));
    const options = { apiKeys: ["mine", "yours"], aliases: ["stories"], limits: { maxTokens: 8, promptTokens: 500 } };
    const queued = await opened(url, await temporaryFolder(), options);
    const alone = await openedBatches(model, await temporaryFolder(), options);
    const shared = `${"The king went over hill and dale. ".repeat(20)}Then`;
    const content = jsonl([
      ...Array.from({ length: 12 }, (_, i) => lineOf(i)),
      lineOf(12, { temperature: 9 }),
      lineOf(13, { model: "other" }),
      lineOf(14, { model: "stories" }),
      lineOf(15, { max_tokens: 9 }), // than the server allows
      lineOf(16, { prompt: "Once upon a time ".repeat(150) }),
      lineOf(17, { prompt: shared }),
    ]);
    const results = await Promise.all(
      [queued, alone].map(async ({ clientOf }) => {
        const client = clientOf("mine");
        const batch = await ended(client, (await begin(client, (await upload(client, content)).id)).id);
        const { status, request_counts } = batch;
        const output = (await linesOf(client, batch.output_file_id)).map(lasting);
        const errors = (await linesOf(client, batch.error_file_id)).map(lasting);
        return { status, request_counts, output, errors: JSON.stringify(errors).replaceAll(/[\w-]{36}/g, "ID") };
      }),
    );
    expect(results[0]).toEqual(results[1]);
    expect(results[0]).toMatchObject({ status: "completed", request_counts: { total: 18, completed: 14, failed: 4 } });
    const [mine, yours] = [queued.clientOf("mine"), queued.clientOf("yours")];
    const { id } = (await mine.batches.list()).data[0]!;
    expect((await yours.batches.list()).data).toEqual([]);
    await expect(yours.batches.retrieve(id)).rejects.toMatchObject({ status: 404 });
    await expect(yours.batches.cancel(id)).rejects.toMatchObject({ status: 404 });
    // What the worker has read for one key it reads again for another.
    const cached = async (client: typeof mine) => {
      const file = await upload(client, jsonl([lineOf(0, { prompt: shared })]));
      const batch = await ended(client, (await begin(client, file.id)).id);
      const [{ response }] = await linesOf(client, batch.output_file_id);
      return response.body.usage.prompt_tokens_details.cached_tokens;
    };
    expect(await cached(yours)).toBe(0);
    expect(await cached(mine)).toBeGreaterThan(0);
    expect(await jobsIn(url)).toEqual([]);
  });

  test("that are cancelled have what was done, and leave nothing in the queue", async () => {
    const { url } = await redisServer();
    const { client } = await opened(url, await temporaryFolder(), { shardLines: 2 });
    const { asked } = await working(url, (i) => i === 3 || i === 7);
    const file = await upload(client, jsonl(Array.from({ length: 60 }, (_, i) => lineOf(i))));
    const { id } = await begin(client, file.id);
    // Of the worker's two shards each is held up by one line; what is between them is done.
    await expect.poll(() => asked.includes(3) && asked.includes(7)).toBe(true);
    await expect.poll(async () => (await client.batches.retrieve(id)).request_counts?.completed).toBe(2);
    expect(await client.batches.cancel(id)).toMatchObject({ status: "cancelling" });
    const batch = await ended(client, id);
    expect(batch).toMatchObject({ status: "cancelled", error_file_id: null, request_counts: { total: 60, failed: 0 } });
    const answers = await linesOf(client, batch.output_file_id);
    expect(answers.map(({ custom_id }) => custom_id)).toEqual([0, 1, 2, 4, 5, 6].map((i) => `tale-${i}`));
    expect(batch.request_counts?.completed).toBe(6);
    expect(await jobsIn(url)).toEqual([]);
    expect(asked.length).toBe(8);
  });

  test("go on at the next server, which does no line twice", async () => {
    const { url } = await redisServer();
    const folder = await temporaryFolder();
    const first = await opened(url, folder);
    const count = 60;
    const file = await upload(first.client, jsonl(Array.from({ length: count }, (_, i) => lineOf(i))));
    const { id } = await begin(first.client, file.id);
    let isHeld = true;
    const { asked } = await working(url, () => false, {
      atOnce: 1,
      onShard: () => {
        if (isHeld) void first.app.close(); // in the middle of it
        isHeld = false;
      },
    });
    await expect.poll(() => isHeld).toBe(false);
    await first.app.close();
    const second = await opened(url, folder);
    const batch = await ended(second.client, id);
    expect(batch).toMatchObject({ status: "completed", request_counts: { total: count, completed: count, failed: 0 } });
    const answers = await linesOf(second.client, batch.output_file_id);
    expect(answers.map(({ custom_id }) => custom_id)).toEqual(Array.from({ length: count }, (_, i) => `tale-${i}`));
    expect(asked.sort((a, b) => a - b)).toEqual(Array.from({ length: count }, (_, i) => i));
  });

  test("end where a worker has another model than the server", async () => {
    const { url } = await redisServer();
    const { client } = await opened(url, await temporaryFolder());
    await working(url, () => false, { model: "another" });
    const batch = await ended(client, (await begin(client, (await upload(client, jsonl([lineOf(0)]))).id)).id);
    expect(batch).toMatchObject({ status: "failed", output_file_id: null });
    expect(batch.errors?.data).toMatchObject([
      { code: "batch_failed", message: "a worker has another model than the server" },
    ]);
  });

  test("wait where the Redis is not there, while the server answers and its metrics tell", async () => {
    const redis = await redisServer();
    const warnings: string[] = [];
    const metrics = async (app: { fetch: (request: Request) => Response | Promise<Response> }) =>
      readMetrics(await (await app.fetch(new Request("http://localhost/metrics"))).text());
    await redis.signal("SIGKILL");
    const onWarning = (message: string) => void warnings.push(message);
    const batchQueue = await openBatchQueue(redis.url, { shardLines: 5, onWarning });
    const { app, client } = await openedBatches(model, await temporaryFolder(), { batchQueue });
    const { id } = await begin(client, (await upload(client, jsonl([lineOf(0), lineOf(1)]))).id);
    expect((await client.completions.create({ model: "tales", prompt: "Once", max_tokens: 2 })).choices).toHaveLength(
      1,
    );
    expect((await metrics(app)).get("rwkv_batch_queue_up")).toBe(0);
    expect((await metrics(app)).has('rwkv_batch_queue_shards{state="waiting"}')).toBe(false);
    await redis.start();
    await expect.poll(async () => (await metrics(app)).get('rwkv_batch_queue_shards{state="waiting"}')).toBe(1);
    expect((await metrics(app)).get("rwkv_batch_queue_up")).toBe(1);
    await working(redis.url);
    expect(await ended(client, id)).toMatchObject({ status: "completed", request_counts: { completed: 2 } });
    expect((await metrics(app)).get('rwkv_batch_queue_shards{state="waiting"}')).toBe(0);
    expect(warnings).toEqual([expect.stringContaining("is out of reach"), expect.stringContaining("is back")]);
  });

  test("are carried out by the queue of their folder alone", async () => {
    const { url } = await redisServer();
    const folder = await temporaryFolder();
    await writeFile(join(folder, "queue"), ""); // as of a server that was killed before it had noted the queue
    const { client } = await opened(url, folder);
    const { id } = await begin(client, (await upload(client, jsonl([lineOf(0), lineOf(1)]))).id);
    await expect.poll(async () => (await client.batches.retrieve(id)).status).toBe("in_progress");
    const told: unknown[] = [];
    const onBatch = ({ error }: { error?: unknown }) => void told.push(String(error));
    const without = await openedBatches(model, folder, { onBatch });
    const { client: another } = await opened(`${url.replace(/\/\d*$/, "")}/1`, folder, { onBatch });
    const refused = (queue: string) => expect.stringContaining(queue);
    await expect
      .poll(() => [...told].sort())
      .toEqual([refused("and this server has no queue"), refused("and this server has that at redis://")]);
    expect((await without.client.batches.retrieve(id)).status).toBe("in_progress");
    expect((await another.batches.retrieve(id)).request_counts).toMatchObject({ completed: 0 });
    await working(url);
    expect(await ended(client, id)).toMatchObject({ status: "completed", request_counts: { completed: 2, failed: 0 } });
  });

  test("are refused a queue that cannot be used", async () => {
    const { url } = await redisServer("--requirepass", "secret");
    await expect(openBatchQueue(url)).rejects.toThrow(RwkvError);
    await expect(openBatchQueue(url.replace("//", "//:wrong@"))).rejects.toThrow("cannot be reached (WRONGPASS");
    const right = url.replace("//", "//:secret@");
    await expect(openBatchQueue(right, { shardLines: 0 })).rejects.toThrow(OptionError);
    const batchQueue = await openBatchQueue(right);
    onTestFinished(() => batchQueue.close());
    expect(() => createApp(model, { batchQueue })).toThrow("option batchQueue");
  });

  test("tell once of a Redis that refuses them when it is there at last", async () => {
    const redis = await redisServer("--requirepass", "secret");
    await redis.signal("SIGKILL");
    const warnings: string[] = [];
    const batchQueue = await openBatchQueue(redis.url, { onWarning: (message) => void warnings.push(message) });
    onTestFinished(() => batchQueue.close());
    await redis.start();
    await expect.poll(() => warnings).toHaveLength(2);
    expect(warnings[1]).toContain("cannot be reached (NOAUTH");
  });
});

test("a worker finds that its queue is out of reach before it loads a model", async () => {
  const { code, stderr } = await rwkv(["worker", "--queue", "redis://127.0.0.1:1", "--model", "none.pth"]);
  expect([code, stderr]).toEqual([1, expect.stringContaining("redis://127.0.0.1:1: cannot be reached")]);
});

test("a queue without a folder for batches is refused, and what is no address of a Redis", async () => {
  await expect(openBatchQueue("http://localhost")).rejects.toThrow("--queue: expected the address of a Redis");
  const { code, stderr } = await rwkv(["serve", "--queue", "redis://127.0.0.1:1"]);
  expect([code, stderr]).toEqual([1, expect.stringContaining("give --batch-dir, too")]);
});
