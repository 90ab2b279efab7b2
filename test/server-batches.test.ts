// /v1/files and /v1/batches: OpenAI's Batch API, by OpenAI's client.

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, readlink, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { toFile } from "openai";
import { load, type Model, RwkvError } from "rwkv";
import { type BatchEnding, createApp, openBatchDirectory } from "rwkv/server";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import {
  type BatchAppOptions,
  begin,
  bodyOf,
  ended,
  jsonl,
  lineOf,
  linesOf,
  openedBatches,
  upload,
} from "./batch-clients.js";
import { program } from "./command.js";
import { temporaryFolder } from "./fixture-files.js";
import { readMetrics } from "./served.js";

let model: Model;
beforeAll(async () => {
  model = await load(undefined, { threads: 1 });
});
afterAll(() => model.dispose());

const opened = (folder: string, options: BatchAppOptions = {}) => openedBatches(model, folder, options);

test("a file of requests becomes a file of answers, and one of errors", async () => {
  const { client, app } = await opened(await temporaryFolder());
  const content = jsonl([lineOf(0), lineOf(1, { temperature: 9 }), lineOf(2), lineOf(3, { model: "other" })]);
  const file = await upload(client, content);
  expect(file).toMatchObject({ object: "file", filename: "in.jsonl", purpose: "batch", bytes: content.length });
  expect(await client.files.retrieve(file.id)).toEqual(file);
  expect(await (await client.files.content(file.id)).text()).toBe(content);
  const made = await begin(client, file.id);
  expect(made).toMatchObject({
    object: "batch",
    status: "validating",
    metadata: { of: "tales" },
    output_file_id: null,
  });
  const batch = await ended(client, made.id);
  expect(batch).toMatchObject({
    status: "completed",
    request_counts: { total: 4, completed: 2, failed: 2 },
    errors: null,
  });
  const answers = await linesOf(client, batch.output_file_id);
  for (const [at, i] of [0, 2].entries()) {
    const { choices } = await client.completions.create({ model: "tales", ...bodyOf(i) });
    expect(answers[at]).toMatchObject({
      id: `batch_req_${i + 1}`,
      custom_id: `tale-${i}`,
      error: null,
      response: { status_code: 200, body: { object: "text_completion", choices } },
    });
  }
  const errors = await linesOf(client, batch.error_file_id);
  expect(errors.map(({ custom_id, response }) => [custom_id, response.status_code, response.body.error.param])).toEqual(
    [
      ["tale-1", 400, "temperature"],
      ["tale-3", 404, "model"],
    ],
  );
  expect((await client.batches.list()).data.map(({ id }) => id)).toEqual([batch.id]);
  const purposes = (await client.files.list()).data.map(({ purpose }) => purpose);
  expect(purposes.sort()).toEqual(["batch", "batch_output", "batch_output"]);
  expect((await client.files.list({ purpose: "batch", limit: 1 })).data).toEqual([file]);
  expect(await client.files.delete(file.id)).toMatchObject({ deleted: true });
  await expect(client.files.retrieve(file.id)).rejects.toMatchObject({ status: 404, code: "file_not_found" });
  await expect(client.batches.cancel(batch.id)).rejects.toMatchObject({ status: 409 });
  await expect.poll(() => app.load).toEqual({ running: 0, waiting: 0 });
});

test("files and batches belong to the key that made them", async () => {
  const { clientOf } = await opened(await temporaryFolder(), { apiKeys: ["mine", "yours"] });
  const [mine, yours] = [clientOf("mine"), clientOf("yours")];
  const file = await upload(mine, jsonl([lineOf(0)]));
  await expect(begin(yours, file.id)).rejects.toMatchObject({ status: 404, param: "input_file_id" });
  const batch = await ended(mine, (await begin(mine, file.id)).id);
  expect(batch.request_counts?.completed).toBe(1);
  const output = batch.output_file_id as string;
  for (const refused of [
    () => yours.files.retrieve(file.id),
    () => yours.files.content(output),
    () => yours.files.delete(output),
    () => yours.batches.retrieve(batch.id),
    () => yours.batches.cancel(batch.id),
  ]) {
    await expect(refused()).rejects.toMatchObject({ status: 404 });
  }
  expect((await yours.files.list()).data).toEqual([]);
  expect((await yours.batches.list()).data).toEqual([]);
  expect(await linesOf(mine, output)).toHaveLength(1);
});

test("what is wrong with a file is told before anything of it is carried out", async () => {
  const { client } = await opened(await temporaryFolder());
  const content = `${jsonl([lineOf(0), lineOf(0), { ...lineOf(1), url: "/v1/embeddings" }, { prompt: "x" }])}{\n`;
  const batch = await ended(client, (await begin(client, (await upload(client, content)).id)).id);
  expect(batch).toMatchObject({ status: "failed", output_file_id: null, error_file_id: null });
  expect(batch.errors?.data?.map(({ code, line }) => [code, line])).toEqual([
    ["duplicate_custom_id", 2],
    ["mismatched_endpoint", 3],
    ["invalid_line", 4],
    ["invalid_json", 5],
  ]);
  const empty = await ended(client, (await begin(client, (await upload(client, "\n")).id)).id);
  expect(empty.errors?.data?.[0]?.code).toBe("empty_file");
});

test("a batch that is cancelled has the answers that were there", async () => {
  const folder = await temporaryFolder();
  const { client, app } = await opened(folder, { limits: { concurrent: 4 } });
  // Those after the first take long.
  const endless = { max_tokens: 16_384, logit_bias: { 0: -100 } };
  const file = await upload(client, jsonl([lineOf(0), lineOf(1, endless), lineOf(2, endless)]));
  const { id } = await begin(client, file.id);
  const completed = async () => (await client.batches.retrieve(id)).request_counts?.completed;
  await expect.poll(completed, { timeout: 50_000 }).toBeGreaterThan(0);
  expect((await client.batches.cancel(id)).status).toBe("cancelling");
  const batch = await ended(client, id);
  expect(batch).toMatchObject({ status: "cancelled", error_file_id: null });
  const answers = await linesOf(client, batch.output_file_id);
  expect(answers[0].custom_id).toBe("tale-0");
  expect(batch.request_counts?.completed).toBe(answers.length);
  await expect.poll(() => app.load).toEqual({ running: 0, waiting: 0 });
});

test("a server that ends leaves its batches to the next, which does no line twice", async () => {
  const folder = await temporaryFolder();
  const first = await opened(folder, { limits: { concurrent: 4 } });
  const count = 40;
  const file = await upload(
    first.client,
    jsonl(Array.from({ length: count }, (_, i) => lineOf(i, { max_tokens: 40, logit_bias: { 0: -100 } }))),
  );
  const { id } = await begin(first.client, file.id);
  const partial = join(folder, "batches", `${id}.answers.jsonl.partial`);
  const answered = async () => (await readFile(partial, "utf8").catch(() => "")).split("\n").length - 1;
  await expect
    .poll(async () => (await answered()) > 2 || (await first.client.batches.retrieve(id)).status === "completed", {
      timeout: 50_000,
      interval: 2,
    })
    .toBe(true);
  await first.app.close();
  const before = await answered();
  const second = await opened(folder);
  const batch = await ended(second.client, id);
  expect(batch).toMatchObject({ status: "completed", request_counts: { total: count, completed: count, failed: 0 } });
  const answers = await linesOf(second.client, batch.output_file_id);
  expect(answers.map(({ custom_id }) => custom_id)).toEqual(Array.from({ length: count }, (_, i) => `tale-${i}`));
  expect(before).toBeLessThanOrEqual(count);
  const { choices } = await second.client.completions.create({
    model: "tales",
    ...bodyOf(count - 1),
    max_tokens: 40,
    logit_bias: { 0: -100 },
  });
  expect(answers.at(-1).response.body.choices).toEqual(JSON.parse(JSON.stringify(choices)));
});

/** A folder as a server leaves it that ends after the first of three lines. */
async function leftBatch() {
  const folder = await temporaryFolder();
  const first = await opened(folder);
  const file = await upload(first.client, jsonl([lineOf(0), lineOf(1), lineOf(2)]));
  const { id } = await begin(first.client, file.id);
  const whole = await ended(first.client, id);
  const answers = await (await first.client.files.content(whole.output_file_id as string)).text();
  await first.client.files.delete(whole.output_file_id as string);
  await first.app.close();
  const path = join(folder, "batches", `${id}.json`);
  const record = JSON.parse(await readFile(path, "utf8"));
  const past = { status: "in_progress", completed_at: null, output_file_id: null };
  await writeFile(path, JSON.stringify({ ...record, ...past }));
  const partial = join(folder, "batches", `${id}.answers.jsonl.partial`);
  const firstLine = answers.slice(0, answers.indexOf("\n") + 1);
  return { folder, id, partial, firstLine };
}

test("a batch that cannot be gone on with has the answers that were there, and its end names no path", async () => {
  const { folder, id, partial, firstLine } = await leftBatch();
  await writeFile(partial, `${firstLine}{"id":"batch_req_2","resp`);
  await writeFile(`${partial}.json`, JSON.stringify({ input: "", model: "another", options: "{}", begun: "x" }));
  const { client } = await opened(folder);
  const batch = await ended(client, id);
  expect(batch).toMatchObject({ status: "failed", request_counts: { total: 3, completed: 1, failed: 0 } });
  expect((await linesOf(client, batch.output_file_id)).map(({ custom_id }) => custom_id)).toEqual(["tale-0"]);
  expect(batch.errors?.data).toMatchObject([
    { code: "batch_failed", message: expect.stringContaining("another model") },
  ]);
  expect(JSON.stringify(batch)).not.toContain(folder);
});

test("a file that a batch needs is not deleted before that has ended", async () => {
  const { client } = await opened(await temporaryFolder());
  const file = await upload(client, jsonl([lineOf(0, { max_tokens: 16_384, logit_bias: { 0: -100 } })]));
  const { id } = await begin(client, file.id);
  await expect(client.files.delete(file.id)).rejects.toMatchObject({ status: 409, code: "file_in_use" });
  await client.batches.cancel(id);
  await ended(client, id);
  expect(await client.files.delete(file.id)).toMatchObject({ deleted: true });
});

test("servers of one folder carry out each batch once, and one ends what it has not begun", async () => {
  const folder = await temporaryFolder();
  const first = await opened(folder);
  const file = await upload(first.client, jsonl([lineOf(0, { max_tokens: 2 })]));
  const ids: string[] = [];
  for (let i = 0; i < 8; i++) ids.push((await begin(first.client, file.id)).id);
  const second = await opened(folder);
  for (const id of ids) {
    expect(await ended(second.client, id)).toMatchObject({ status: "completed", request_counts: { completed: 1 } });
  }
  await second.app.close();
  const endless = { max_tokens: 16_384, logit_bias: { 0: -100 } };
  const long = await upload(first.client, jsonl(Array.from({ length: 64 }, (_, i) => lineOf(i, endless))));
  const running = await begin(first.client, long.id);
  const waiting = await begin(first.client, long.id);
  await first.client.batches.cancel(waiting.id);
  expect(await ended(first.client, waiting.id)).toMatchObject({ status: "cancelled", output_file_id: null });
  expect((await first.client.batches.retrieve(running.id)).status).toMatch(/^(validating|in_progress)$/);
  for (const id of ids) expect((await first.client.batches.retrieve(id)).status).toBe("completed");
});

test("a server takes what another leaves while it runs", async () => {
  const { folder, id } = await leftBatch();
  const batches = await openBatchDirectory(folder);
  const unlock = (await batches.lock(id)) as () => Promise<void>; // as another server does that carries it out
  const { client } = await opened(folder);
  const other = await ended(client, (await begin(client, (await client.batches.retrieve(id)).input_file_id)).id);
  expect(other.status).toBe("completed");
  expect((await client.batches.retrieve(id)).status).toBe("in_progress");
  await unlock();
  expect(await ended(client, id)).toMatchObject({ status: "completed", request_counts: { completed: 3 } });
});

test("a batch whose time is over has a line for each request that was not carried out", async () => {
  const folder = await temporaryFolder();
  const first = await opened(folder);
  const file = await upload(first.client, jsonl([lineOf(0), lineOf(1)]));
  const { id } = await begin(first.client, file.id);
  await ended(first.client, id);
  await first.app.close();
  // As a server leaves it that ends before the first line is done, and is started again two days later.
  const path = join(folder, "batches", `${id}.json`);
  const record = JSON.parse(await readFile(path, "utf8"));
  const past = { status: "in_progress", completed_at: null, created_at: 1, expires_at: 2, output_file_id: null };
  await writeFile(path, JSON.stringify({ ...record, ...past }));
  const second = await opened(folder);
  const batch = await ended(second.client, id);
  expect(batch).toMatchObject({
    status: "expired",
    output_file_id: null,
    request_counts: { total: 2, completed: 0, failed: 2 },
  });
  expect(
    (await linesOf(second.client, batch.error_file_id)).map(({ custom_id, error }) => [custom_id, error.code]),
  ).toEqual([
    ["tale-0", "batch_expired"],
    ["tale-1", "batch_expired"],
  ]);
});

test("uploads are limited, and are no one's but the client's", async () => {
  const { client, app } = await opened(await temporaryFolder(), { bytes: 1500, limits: { fileBytes: 2000 } });
  await upload(client, "x".repeat(1000));
  await expect(upload(client, "x".repeat(1000))).rejects.toMatchObject({ status: 403, code: "file_limit_exceeded" });
  await expect(upload(client, "x".repeat(3000))).rejects.toMatchObject({ status: 413 });
  const file = await toFile(Buffer.from("x"), "in.jsonl");
  await expect(client.files.create({ file, purpose: "assistants" })).rejects.toMatchObject({
    status: 400,
    param: "purpose",
  });
  const form = new FormData();
  form.set("purpose", "batch");
  form.set("file", new Blob(["x"]));
  const status = async (headers: Record<string, string>, body: BodyInit = form) =>
    (await app.fetch(new Request("http://localhost/v1/files", { method: "POST", body, headers }))).status;
  // A page of another origin may send a form without asking; its browser says so.
  expect(await status({ Origin: "http://evil.example" })).toBe(403);
  expect(await status({ Origin: "http://localhost" })).toBe(200);
  expect(await status({ "Content-Type": "text/plain" }, "x")).toBe(415);
  expect(await status({ "Content-Type": "multipart/form-data; boundary=x" }, "rubbish")).toBe(400);
  for (const id of ["file-x", "..%2F..%2Fetc%2Fpasswd", `file-${"0".repeat(32)}`]) {
    expect((await app.fetch(new Request(`http://localhost/v1/files/${id}/content`))).status).toBe(404);
  }
  const { app: without } = { app: createApp(model) };
  onTestFinished(() => without.close());
  expect((await without.fetch(new Request("http://localhost/v1/files"))).status).toBe(404);
});

test("a line for which there is no place waits, however often it is refused", async () => {
  const { client, app } = await opened(await temporaryFolder(), { limits: { concurrent: 2, waiting: 0 } });
  const leaving = new AbortController();
  const endless = { max_tokens: 16_384, logit_bias: { 0: -100 }, prompt: "x", model: "tales" };
  const others = [0, 1].map(() => client.completions.create(endless, { signal: leaving.signal }).catch(() => {}));
  await expect.poll(() => app.load.running).toBe(2);
  const { id } = await begin(client, (await upload(client, jsonl([lineOf(0), lineOf(1)]))).id);
  const refused = async () => {
    const metrics = await (await app.fetch(new Request("http://localhost/metrics"))).text();
    const name = 'rwkv_requests_total{route="/v1/completions",method="POST",status="429"}';
    return readMetrics(metrics).get(name) ?? 0;
  };
  await expect.poll(refused, { timeout: 20_000 }).toBeGreaterThan(5);
  leaving.abort();
  await Promise.all(others);
  const batch = await ended(client, id);
  expect(batch).toMatchObject({ status: "completed", request_counts: { total: 2, completed: 2, failed: 0 } });
});

test("lines take the places of all their texts, and leave half to others", async () => {
  const { client, app } = await opened(await temporaryFolder(), { limits: { concurrent: 8 } });
  const several = { n: 3, max_tokens: 20, logit_bias: { 0: -100 } };
  const file = await upload(client, jsonl(Array.from({ length: 4 }, (_, i) => lineOf(i, several))));
  let most = 0;
  const watching = setInterval(() => {
    most = Math.max(most, app.load.running);
  }, 1);
  onTestFinished(() => clearInterval(watching));
  const { output_file_id } = await ended(client, (await begin(client, file.id)).id);
  expect(most).toBeGreaterThan(0);
  expect(most).toBeLessThanOrEqual(4);
  const answers = await linesOf(client, output_file_id);
  expect(answers.map(({ response }) => response.body.choices.length)).toEqual([3, 3, 3, 3]);
});

test("files and batches of a key are limited in number", async () => {
  const folder = await temporaryFolder();
  const limits = { keptFiles: 3, keptBatches: 2 };
  const { clientOf } = await opened(folder, { apiKeys: ["mine", "yours"], limits });
  const [mine, yours] = [clientOf("mine"), clientOf("yours")];
  const input = await upload(mine, jsonl([lineOf(0, { max_tokens: 1 })]));
  const ids: string[] = [];
  for (let i = 0; i < 2; i++) ids.push((await ended(mine, (await begin(mine, input.id)).id)).id);
  // Those that batches wrote count.
  await expect(upload(mine, "x")).rejects.toMatchObject({ status: 403, code: "file_limit_exceeded" });
  await Promise.all([1, 2, 3].map(() => upload(yours, "x")));
  await expect(upload(yours, "x")).rejects.toMatchObject({ status: 403, code: "file_limit_exceeded" });
  const endless = { max_tokens: 16_384, logit_bias: { 0: -100 } };
  await mine.files.delete((await mine.batches.retrieve(ids[0]!)).output_file_id!);
  const long = await upload(mine, jsonl([lineOf(0, endless)]));
  const running = [await begin(mine, long.id), await begin(mine, long.id)];
  const listed = (await mine.batches.list()).data.map(({ id }) => id);
  expect(listed.sort()).toEqual(running.map(({ id }) => id).sort()); // those that had ended are gone
  await expect(begin(mine, long.id)).rejects.toMatchObject({ status: 403, code: "batch_limit_exceeded" });
  for (const { id } of running) await mine.batches.cancel(id);
});

test("uploads at once find no place twice", async () => {
  const { client } = await opened(await temporaryFolder(), { bytes: 2500 });
  const results = await Promise.allSettled([1, 2, 3, 4].map(() => upload(client, "x".repeat(1000))));
  expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(2);
});

test("what a batch wrote is not given when its time is over", async () => {
  const folder = await temporaryFolder();
  const { client } = await opened(folder);
  const batch = await ended(client, (await begin(client, (await upload(client, jsonl([lineOf(0)]))).id)).id);
  const id = batch.output_file_id as string;
  const path = join(folder, "files", `${id}.json`);
  const record = JSON.parse(await readFile(path, "utf8"));
  expect(record.expires_at - record.created_at).toBe(30 * 86_400);
  await writeFile(path, JSON.stringify({ ...record, expires_at: 2 }));
  for (const refused of [() => client.files.retrieve(id), () => client.files.content(id)]) {
    await expect(refused()).rejects.toMatchObject({ status: 404, code: "file_not_found" });
  }
  expect((await client.files.list()).data.map(({ purpose }) => purpose)).toEqual(["batch"]);
  expect(existsSync(path)).toBe(false);
});

test.skipIf(process.platform !== "linux")(
  "the head of a file is told without opening it, and leaves nothing open",
  async () => {
    const { app, client } = await opened(await temporaryFolder());
    const file = await upload(client, "x".repeat(200_000));
    const path = `http://localhost/v1/files/${file.id}/content`;
    const openFiles = async () => {
      const all = await readdir("/proc/self/fd");
      const targets = await Promise.all(all.map((name) => readlink(`/proc/self/fd/${name}`).catch(() => "")));
      return targets.filter((target) => target.includes(file.id)).length;
    };
    for (let i = 0; i < 3; i++) {
      const head = await app.fetch(new Request(path, { method: "HEAD" }));
      expect([head.status, head.headers.get("content-length"), await head.text()]).toEqual([200, "200000", ""]);
    }
    await app.fetch(new Request(path)); // whose body nobody reads
    expect(await openFiles()).toBe(0);
    // A reader that leaves in the middle, and one that reads all.
    const reader = (await app.fetch(new Request(path))).body!.getReader();
    await reader.read();
    expect(await openFiles()).toBe(1);
    await reader.cancel();
    await expect.poll(openFiles).toBe(0);
    expect(await (await app.fetch(new Request(path))).text()).toBe("x".repeat(200_000));
    expect(await openFiles()).toBe(0);
  },
);

test("whoever runs the server is told how batches end, and nothing that is in them", async () => {
  const records: BatchEnding[] = [];
  const onBatch = (record: BatchEnding) => void records.push(record);
  const told = (id: string) => records.filter(({ batchId }) => batchId === id);
  const { folder, id, partial, firstLine } = await leftBatch();
  await writeFile(partial, firstLine);
  await writeFile(`${partial}.json`, JSON.stringify({ input: "", model: "another", options: "{}", begun: "x" }));
  const { client } = await opened(folder, { onBatch });
  await ended(client, id);
  await expect.poll(() => told(id)).toMatchObject([{ status: "failed", total: 3, completed: 1, failed: 0 }]);
  expect(String(told(id)[0]?.error)).toContain("was begun with another");
  const right = await begin(client, (await upload(client, jsonl([lineOf(0)]))).id);
  const wrong = await begin(client, (await upload(client, `${jsonl([lineOf(0)])}"secret`)).id);
  for (const batch of [right, wrong]) await ended(client, batch.id);
  await expect.poll(() => records.length).toBe(3);
  expect(told(right.id)).toMatchObject([{ status: "completed", total: 1, completed: 1 }]);
  expect(told(wrong.id)).toMatchObject([{ status: "failed", codes: ["invalid_json"] }]);
  expect(told(wrong.id)[0]).not.toHaveProperty("error"); // it is the client's
  expect(JSON.stringify(records) + records.map(({ error }) => String(error)).join()).not.toMatch(/secret|Tale/);
});

test("a batch that has failed has a line in the log of rwkv serve", async () => {
  const { folder, id, partial, firstLine } = await leftBatch();
  await writeFile(partial, firstLine);
  await writeFile(`${partial}.json`, JSON.stringify({ input: "", model: "another", options: "{}", begun: "x" }));
  const args = ["serve", "--port", "0", "--threads", "1", "--name", "tales", "--batch-dir", folder];
  const server = spawn(process.execPath, [program, ...args], { stdio: ["ignore", "pipe", "ignore"] });
  onTestFinished(() => void server.kill("SIGKILL"));
  let output = "";
  for await (const text of server.stdout) {
    output += text;
    if (output.includes("\n")) break;
  }
  const line = JSON.parse(output.slice(0, output.indexOf("\n")));
  expect(line).toMatchObject({ level: 50, msg: "batch failed", batchId: id, status: "failed", total: 3, completed: 1 });
  expect(line.err.message).toContain("was begun with another");
  expect(output).not.toContain("Once"); // nothing of prompts
});

test("a batch that cannot be ended is told once, while it is tried again", async () => {
  const records: BatchEnding[] = [];
  const { folder, id, partial, firstLine } = await leftBatch();
  await writeFile(partial, firstLine);
  // Neither can it be gone on with, nor can what it has written become a file.
  await writeFile(`${partial}.json`, JSON.stringify({ input: "", model: "another", options: "{}", begun: "x" }));
  const record = JSON.parse(await readFile(join(folder, "batches", `${id}.json`), "utf8"));
  const inTheWay = join(folder, "files", `${record.files.output}.jsonl`);
  await mkdir(join(inTheWay, "x"), { recursive: true });
  const { client } = await opened(folder, { onBatch: (one) => void records.push(one) });
  await expect.poll(() => records).toMatchObject([{ batchId: id, status: "finalizing" }]);
  expect(records[0]?.error).toBeDefined();
  await rm(inTheWay, { recursive: true });
  await ended(client, id);
  await expect.poll(() => records.map(({ status }) => status)).toEqual(["finalizing", "failed"]);
});

test("a folder that cannot be used is told", async () => {
  const path = join(await temporaryFolder(), "file");
  await writeFile(path, "");
  await expect(openBatchDirectory(path)).rejects.toThrow(RwkvError);
  await expect(openBatchDirectory(path)).rejects.toThrow(`${path}: cannot be used as a folder for batches`);
  await expect(openBatchDirectory(path, { bytes: 0 })).rejects.toThrow("option bytes");
  expect(() => createApp(model, { batches: openBatchDirectory(path).catch(() => {}) as never })).toThrow(
    "option batches",
  );
});
