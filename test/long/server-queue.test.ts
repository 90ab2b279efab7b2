// Batches of servers by workers, when servers, workers and Redis are killed or held up, and by a line that ends whoever carries it out.

import { type ChildProcess, spawn } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Redis } from "ioredis";
import OpenAI from "openai";
import { load } from "rwkv";
import { openBatchQueue } from "rwkv/server";
import { describe, expect, onTestFinished, test } from "vitest";
import { type BatchLock, TryAgainError } from "#rwkv/server/batches/batch-work";
import { redisLock } from "#rwkv/server/queue/batch-lock";
import { ShardQueue } from "#rwkv/server/queue/shard-queue";
import { answeringIdentity } from "#rwkv/server/storage/model-identity";
import { begin, ended, jsonl, lineOf, linesOf, openedBatches, upload } from "../batch-clients.js";
import { openedQueue, startedWorker, supervisedWorker } from "../batch-workers.js";
import { program } from "../command.js";
import { temporaryFolder } from "../fixture-files.js";
import { freePort, hasRedis, redisServer } from "../redis-server.js";

/** A program that is started again whenever it has ended, until the test is over. */
function supervised(args: readonly string[]) {
  let isOver = false;
  let child: ChildProcess | undefined;
  const keep = async () => {
    while (!isOver) {
      child = spawn(process.execPath, [program, ...args], { stdio: "ignore" });
      await new Promise((resolve) => child?.once("exit", resolve));
    }
  };
  void keep();
  const end = () => {
    isOver = true;
    child?.kill("SIGKILL");
  };
  onTestFinished(end);
  return { signal: (name: NodeJS.Signals) => void child?.kill(name), end };
}

/** A server that is started again whenever it has ended. */
async function supervisedServer(folder: string, url: string) {
  const port = await freePort();
  const queue = ["--queue", url, "--shard-lines", "10", "--batch-dir", folder];
  const server = supervised(["serve", "--threads", "1", "--name", "tales", "--port", String(port), ...queue]);
  // A server that is being started again is asked again.
  const client = new OpenAI({ baseURL: `http://127.0.0.1:${port}/v1`, apiKey: "none", maxRetries: 20 });
  return { ...server, client };
}

const worker = (url: string) => supervised(["worker", "--threads", "1", "--queue", url]);

const many = (count: number) => jsonl(Array.from({ length: count }, (_, i) => lineOf(i, { max_tokens: 16 })));

/** The answers of a batch, without what differs from one time to another. */
async function answersOf(client: OpenAI, batch: OpenAI.Batch) {
  const answers = await linesOf(client, batch.output_file_id);
  return answers.map(({ custom_id, response }) => [custom_id, response.body.model, response.body.choices]);
}

/** What one server without a queue answers. */
async function answersAlone(content: string) {
  const model = await load(undefined, { threads: 1 });
  onTestFinished(() => model.dispose());
  const { client } = await openedBatches(model, await temporaryFolder());
  return answersOf(client, await ended(client, (await begin(client, (await upload(client, content)).id)).id));
}

/** The batch once it is completed, however often the server is started again meanwhile. */
async function completed(client: OpenAI, id: string): Promise<OpenAI.Batch> {
  const status = () =>
    client.batches.retrieve(id).then(
      (batch) => batch.status,
      () => "away",
    );
  await expect.poll(status, { timeout: 240_000, interval: 500 }).toBe("completed");
  return client.batches.retrieve(id);
}

const after = (seconds: number) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

describe.skipIf(!hasRedis)("a batch of a server by workers", () => {
  test("has every line once and in order, whatever is killed", async () => {
    const redis = await redisServer();
    const [content, count] = [many(800), 800];
    const server = await supervisedServer(await temporaryFolder(), redis.url);
    const workers = [worker(redis.url), worker(redis.url)];
    const { id } = await begin(server.client, (await upload(server.client, content)).id);
    let isOver = false;
    const killing = (async () => {
      for (let i = 0; !isOver; i++) {
        await after(2 + Math.random() * 2);
        if (isOver) break;
        if (i % 4 === 1) server.signal("SIGKILL");
        else if (i % 4 === 3) {
          await redis.signal("SIGKILL"); // which forgets all
          await after(2);
          await redis.start();
        } else workers[i % 8 === 0 ? 0 : 1]?.signal(i % 8 < 4 ? "SIGKILL" : "SIGTERM");
      }
    })();
    const batch = await completed(server.client, id);
    isOver = true;
    await killing;
    expect(batch.request_counts).toEqual({ total: count, completed: count, failed: 0 });
    expect(await answersOf(server.client, batch)).toEqual(await answersAlone(content));
  });

  test("goes on when its server was held up for longer than it may be, and at another where it is gone", async () => {
    const { url } = await redisServer();
    const folder = await temporaryFolder();
    const content = many(1500);
    const [first, second] = [await supervisedServer(folder, url), await supervisedServer(folder, url)];
    worker(url);
    const { id } = await begin(first.client, (await upload(first.client, content)).id);
    const progress = async () => (await second.client.batches.retrieve(id)).request_counts?.completed ?? 0;
    await expect.poll(progress, { timeout: 60_000 }).toBeGreaterThan(0);
    first.signal("SIGSTOP");
    await after(12);
    first.signal("SIGCONT");
    const before = await progress();
    await expect.poll(progress, { timeout: 60_000 }).toBeGreaterThan(before);
    first.end();
    const batch = await completed(second.client, id);
    expect(await answersOf(second.client, batch)).toEqual(await answersAlone(content));
  });

  test("has an error for a line that ends every worker, with its name", async () => {
    const { url } = await redisServer();
    const model = await load(undefined, { threads: 1 });
    onTestFinished(() => model.dispose());
    const batchQueue = await openBatchQueue(url, { shardLines: 2 });
    const { client } = await openedBatches(model, await temporaryFolder(), { batchQueue });
    await supervisedWorker({ url, name: "rwkv", model: await answeringIdentity(model) });
    const content = jsonl([0, 1, 2, 3, 4].map((i) => lineOf(i, i === 2 ? { prompt: "poison" } : {})));
    const { id } = await begin(client, (await upload(client, content)).id);
    const batch = await completed(client, id);
    expect(batch.request_counts).toEqual({ total: 5, completed: 4, failed: 1 });
    const answers = await linesOf(client, batch.output_file_id);
    expect(answers.map(({ custom_id }) => custom_id)).toEqual(["tale-0", "tale-1", "tale-3", "tale-4"]);
    const [error] = await linesOf(client, batch.error_file_id);
    expect(error).toMatchObject({ id: "batch_req_3", custom_id: "tale-2", error: { code: "line_failed" } });
  });

  test("has a line for what was not done when its time is over", async () => {
    const { url } = await redisServer();
    const model = await load(undefined, { threads: 1 });
    onTestFinished(() => model.dispose());
    const folder = await temporaryFolder();
    const before = await openedBatches(model, folder);
    const file = await upload(before.client, jsonl(Array.from({ length: 6 }, (_, i) => lineOf(i))));
    const { id } = await begin(before.client, file.id);
    await ended(before.client, id);
    await before.app.close();
    // As a batch is that was made a day ago, but for a moment.
    const path = join(folder, "batches", `${id}.json`);
    const record = JSON.parse(await readFile(path, "utf8"));
    const expires_at = Math.floor(Date.now() / 1000) + 5;
    const past = { status: "in_progress", completed_at: null, output_file_id: null, expires_at };
    await writeFile(path, JSON.stringify({ ...record, ...past }));
    const { client } = await openedQueue(model, url, folder, { shardLines: 2 });
    await startedWorker(model, url, (i) => i === 0);
    const batch = await ended(client, id);
    expect(batch).toMatchObject({ status: "expired", request_counts: { total: 6, completed: 4, failed: 2 } });
    const ids = async (of: string | null | undefined) => (await linesOf(client, of)).map(({ custom_id }) => custom_id);
    expect(await ids(batch.output_file_id)).toEqual([2, 3, 4, 5].map((i) => `tale-${i}`));
    expect(await ids(batch.error_file_id)).toEqual(["tale-0", "tale-1"]);
  });

  test("is kept from other servers, until its own does not say for a while that it is there", async () => {
    const redis = await redisServer();
    const clients = [1, 2].map(() => new Redis(redis.url));
    onTestFinished(() => clients.forEach((client) => void client.disconnect()));
    const [first, second] = clients as [Redis, Redis];
    const lock = (await redisLock(first, "batch", 2000)) as BatchLock;
    expect(await redisLock(second, "batch", 2000)).toBeUndefined();
    await new Promise((resolve) => setTimeout(resolve, 3000));
    lock.check(); // it was renewed
    expect(await redisLock(second, "batch", 2000)).toBeUndefined();
    await lock.unlock();
    const next = (await redisLock(second, "batch", 2000)) as BatchLock;
    await second.del("batch"); // as a Redis that comes back empty has done
    await expect.poll(() => next.lost.aborted).toBe(true);
    expect(() => next.check()).toThrow("another server may carry out the batch");
    const last = (await redisLock(first, "batch", 2000)) as BatchLock;
    await redis.signal("SIGSTOP");
    await expect.poll(() => last.lost.aborted).toBe(true);
    await redis.signal("SIGCONT");
    // A process that was held up finds it out before anything tells it.
    const held = (await redisLock(first, "other", 500)) as BatchLock;
    for (const end = Date.now() + 600; Date.now() < end; );
    expect(() => held.check()).toThrow("another server may carry out the batch");
  });

  test("waits while Redis is full, and is cancelled while Redis is away", async () => {
    const redis = await redisServer();
    const model = await load(undefined, { threads: 1 });
    onTestFinished(() => model.dispose());
    const told: string[] = [];
    const { client } = await openedQueue(model, redis.url, await temporaryFolder(), {
      shardLines: 2,
      onBatch: ({ status, error }) => void told.push(`${status}: ${error}`),
    });
    await startedWorker(model, redis.url, (i) => i === 2);
    const other = new Redis(redis.url);
    other.on("error", () => {}); // it is killed
    onTestFinished(() => other.disconnect());
    await other.config("SET", "maxmemory", "1mb");
    const { id } = await begin(client, (await upload(client, jsonl([0, 1, 2, 3, 4, 5].map((i) => lineOf(i))))).id);
    await expect.poll(() => told).toEqual([expect.stringContaining("OOM command not allowed")]);
    // So it is where others have filled it after the batch was begun.
    const queue = await ShardQueue.open(redis.url, "rwkv");
    onTestFinished(() => queue.close());
    await expect(queue.carriedOut("shard", { lines: [], maxBytes: 1 })).rejects.toThrow(TryAgainError);
    await other.config("SET", "maxmemory", "0");
    const counts = async () => (await client.batches.retrieve(id)).request_counts;
    await expect.poll(counts).toEqual({ total: 6, completed: 2, failed: 0 });
    await expect.poll(() => other.zcard("bull:rwkv-batch-rwkv:completed")).toBe(1);
    await after(1); // the server hears of it
    await redis.signal("SIGKILL");
    const since = performance.now();
    expect(await client.batches.cancel(id)).toMatchObject({ status: "cancelling" });
    const batch = await ended(client, id);
    // What the server had heard of is there, beyond the shard that was not done, too.
    expect(batch).toMatchObject({ status: "cancelled", request_counts: { total: 6, completed: 4, failed: 0 } });
    expect(performance.now() - since).toBeLessThan(20_000);
    expect(told.slice(1)).toEqual(["cancelled: undefined"]);
  });
});
