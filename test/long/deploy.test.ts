// The topology of deploy/compose.yaml as programs of this machine: conversations that move between servers through nginx, a batch by way of
// the queue, and Prometheus that sees all of it.

import { execFile } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { Redis } from "ioredis";
import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { begin, ended, jsonl, lineOf, linesOf, upload } from "../batch-clients.js";
import { program } from "../command.js";
import { temporaryFolder } from "../fixture-files.js";
import { hasRedis, isInstalled } from "../redis-server.js";

const canStart = hasRedis && isInstalled("nginx") && isInstalled("prometheus", "--version");
if (!canStart)
  console.warn("no redis-server, nginx or prometheus on this machine: the topology of deploy/ is not started");

describe.skipIf(!canStart)("the topology of deploy/compose.yaml", () => {
  // biome-ignore lint/suspicious/noExplicitAny: a script without types
  let topology: any;
  beforeAll(async () => {
    const { startTopology } = await import(new URL("../../deploy/processes/start.mjs", import.meta.url).href);
    const [serve, work] = [
      ["--threads", "1"],
      ["--threads", "1", "--state-cache", "16MiB"],
    ];
    topology = await startTopology({ servers: 2, workers: 1, keys: ["first", "second"], serve, work, prometheus: 1 });
  });
  afterAll(() => topology?.stop());

  const headers = { Authorization: "Bearer first", "Content-Type": "application/json" };
  const ask = async (path: string, body: unknown, more = {}) => {
    const request = { method: "POST", headers: { ...headers, ...more }, body: JSON.stringify(body) };
    const response = await fetch(topology.url + path, request);
    expect(response.status).toBe(200);
    return response.json();
  };
  /** How many requests each server has answered. */
  const answered = () =>
    Promise.all(
      topology.serverUrls.map(async (url: string) => {
        const text = await (await fetch(`${url}/metrics`, { headers })).text();
        const counts = [...text.matchAll(/^rwkv_requests_total\{route="\/v1\/completions".*\} (\d+)$/gm)];
        return counts.reduce((sum, [, count]) => sum + Number(count), 0);
      }),
    );
  const complete = (prompt: string, more = {}) => ask("/v1/completions", { prompt, max_tokens: 4, seed: 1 }, more);

  test("servers take turns, and keep what clients name alike", async () => {
    for (let i = 0; i < 4; i++) await complete("Once");
    const turns = await answered();
    expect(turns).toEqual([2, 2]);
    for (let i = 0; i < 4; i++) await complete("Once", { "X-Conversation": "one" });
    const kept = (await answered()).map((count, i) => count - turns[i]!);
    expect(kept.sort()).toEqual([0, 4]);
  });

  test("a conversation goes on at the other server", async () => {
    const input = "Tell me of the king, and of all that befell him on his way over hill and dale. ".repeat(4);
    const first = await ask("/v1/responses", { input, max_output_tokens: 8, seed: 1 });
    const next = { input: "And then?", previous_response_id: first.id, max_output_tokens: 8, seed: 2 };
    const second = await ask("/v1/responses", next);
    expect(second.usage.input_tokens_details.cached_tokens).toBeGreaterThanOrEqual(first.usage.input_tokens);
  });

  test("no key, no answer; and nobody has the metrics through the balancer", async () => {
    expect((await fetch(`${topology.url}/v1/models`)).status).toBe(401);
    expect((await fetch(`${topology.url}/metrics`, { headers })).status).toBe(404);
  });

  test("shards wait in the list that KEDA watches, and workers take them", async () => {
    const folder = await temporaryFolder();
    const [input, output] = [join(folder, "in.jsonl"), join(folder, "out.jsonl")];
    const lines = Array.from({ length: 60 }, (_, i) => JSON.stringify({ prompt: `Tale ${i}:`, max_tokens: 4 }));
    await writeFile(input, lines.join("\n"));
    const [worker] = topology.workers;
    await worker.kill("SIGTERM");
    const batch = ["batch", input, output, "--queue", topology.queueUrl, "--shard-lines", "10", "--seed", "1"];
    const done = promisify(execFile)(process.execPath, [program, ...batch]);
    const redis = new Redis(topology.queueUrl);
    try {
      await expect.poll(() => redis.llen("bull:rwkv-batch-rwkv:wait")).toBe(6);
      await worker.start();
      await done;
      expect(await redis.llen("bull:rwkv-batch-rwkv:wait")).toBe(0);
      expect(await redis.llen("bull:rwkv-batch-rwkv:active")).toBe(0);
    } finally {
      redis.disconnect();
    }
    const answers = (await readFile(output, "utf8")).trim().split("\n");
    expect(answers.map((line) => JSON.parse(line).line)).toEqual(lines.map((_, i) => i + 1));
  });

  test("a worker carries out a batch of a client, which any server tells of", async () => {
    const client = new OpenAI({ baseURL: `${topology.url}/v1`, apiKey: "first" });
    const model = (await client.models.list()).data[0]!.id;
    const content = jsonl(Array.from({ length: 20 }, (_, i) => lineOf(i, { model })));
    const batch = await ended(client, (await begin(client, (await upload(client, content)).id)).id);
    expect(batch).toMatchObject({ status: "completed", request_counts: { total: 20, completed: 20, failed: 0 } });
    const answers = await linesOf(client, batch.output_file_id);
    expect(answers.map(({ custom_id }) => custom_id)).toEqual(answers.map((_, i) => `tale-${i}`));
    for (const url of topology.serverUrls) {
      const other = new OpenAI({ baseURL: `${url}/v1`, apiKey: "first" });
      expect(await other.batches.retrieve(batch.id)).toEqual(batch);
    }
  });

  test("Prometheus sees the servers and their requests, and tells when one is gone", async () => {
    const query = async (expression: string) => {
      const url = `${topology.prometheusUrl}/api/v1/query?query=${encodeURIComponent(expression)}`;
      const { data } = (await (await fetch(url)).json()) as { data: { result: { value: [number, string] }[] } };
      return data.result.map(({ value }) => Number(value[1]));
    };
    await expect.poll(() => query('up{job="rwkv"}')).toEqual([1, 1]);
    await expect.poll(async () => (await query("sum(rwkv_requests_total)"))[0]).toBeGreaterThan(8);
    expect(await query("rwkv_state_store_up")).toEqual([1, 1]);
    expect(await query("rwkv_batch_queue_up")).toEqual([1, 1]);
    const rules = async () => {
      const { data } = await (await fetch(`${topology.prometheusUrl}/api/v1/rules`)).json();
      return data.groups.flatMap((group: { rules: { name: string; health: string; state: string }[] }) => group.rules);
    };
    await expect
      .poll(async () => (await rules()).map(({ health }: { health: string }) => health))
      .not.toContain("unknown");
    expect((await rules()).every(({ health }: { health: string }) => health === "ok")).toBe(true);
    await topology.servers[1].kill();
    const down = async () => (await rules()).find(({ name }: { name: string }) => name === "RwkvServerDown").state;
    await expect.poll(down).toBe("pending");
    for (let i = 0; i < 4; i++) await complete("Once"); // the other one goes on
  });
});
