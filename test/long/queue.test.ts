// Batches by workers that are killed: by what they carry out, and at random.

import { type ChildProcess, spawn } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { runBatch } from "#rwkv/server/batches/run-batch";
import { Coordinator } from "#rwkv/server/queue/coordinator";
import { ShardQueue } from "#rwkv/server/queue/shard-queue";
import { supervisedWorker } from "../batch-workers.js";
import { program, rwkv } from "../command.js";
import { temporaryFolder } from "../fixture-files.js";
import { hasRedis, redisServer } from "../redis-server.js";

test.skipIf(!hasRedis)("a line that ends every worker is told, and the others are carried out", async () => {
  const { url } = await redisServer();
  const content = Array.from(
    { length: 4 },
    (_, i) => `${JSON.stringify({ prompt: `Tale ${i}`, custom_id: `${i}` })}\n`,
  );
  content[1] = `${JSON.stringify({ prompt: "poison", custom_id: "1" })}\n`;
  const folder = await temporaryFolder();
  const [input, output] = [join(folder, "in.jsonl"), join(folder, "out.jsonl")];
  await writeFile(input, content.join(""));
  const queue = await ShardQueue.open(url, "tales");
  onTestFinished(() => queue.close());
  const coordinator = new Coordinator(queue, { shardLines: 2, maxBytes: 10_000 });
  const result = runBatch({
    ...{ input, output, model: "", maxBytes: 10_000 },
    answers: (all, begun) => coordinator.answers(all, begun),
  });
  await supervisedWorker({ url, name: "tales", model: "a" });
  expect(await result).toMatchObject({ lines: 4, failed: 1 });
  const answers = (await readFile(output, "utf8"))
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(answers.map(({ text, error }) => text ?? error.code)).toEqual(
    Array.from({ length: 4 }, (_, i) => (i === 1 ? "line_failed" : `Tale ${i}!`)),
  );
  expect(answers[1]).toMatchObject({ line: 2, custom_id: "1" });
  expect(answers[1].error.message).toContain("line 2: workers failed on it");
});

/** The answers of a batch, without how much of the prompts a worker had read before. */
async function answersIn(path: string): Promise<unknown[]> {
  const lines = (await readFile(path, "utf8")).trim().split("\n");
  return lines.map((line) => ({ ...JSON.parse(line), usage: undefined }));
}

test.skipIf(!hasRedis)("workers that are killed at random lose no line and do none twice", async () => {
  const { url } = await redisServer();
  const folder = await temporaryFolder();
  const [input, output, alone] = ["in.jsonl", "out.jsonl", "alone.jsonl"].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ];
  const lines = Array.from({ length: 1000 }, (_, i) => JSON.stringify({ prompt: `Tale ${i}: Once`, max_tokens: 16 }));
  await writeFile(input, `${lines.join("\n")}\n`);
  expect(await rwkv(["batch", input, alone, "--seed", "1"])).toMatchObject({ code: 0 });
  let isOver = false;
  const workers = new Set<ChildProcess>();
  onTestFinished(() => {
    isOver = true;
    for (const worker of workers) worker.kill("SIGKILL");
  });
  const keepOne = async () => {
    while (!isOver) {
      const worker = spawn(process.execPath, [program, "worker", "--threads", "1", "--queue", url], {
        stdio: "ignore",
      });
      workers.add(worker);
      await new Promise((resolve) => worker.once("exit", resolve));
      workers.delete(worker);
    }
  };
  const kept = [keepOne(), keepOne()];
  const killing = (async () => {
    while (!isOver) {
      await new Promise((resolve) => setTimeout(resolve, 1500 + Math.random() * 3000));
      const [one] = [...workers].sort(() => Math.random() - 0.5);
      if (!isOver) one?.kill(Math.random() < 0.7 ? "SIGKILL" : "SIGTERM");
    }
  })();
  const result = await rwkv(["batch", input, output, "--seed", "1", "--queue", url, "--shard-lines", "20"]);
  isOver = true;
  for (const worker of workers) worker.kill("SIGKILL");
  await Promise.all([...kept, killing]);
  expect(result).toMatchObject({ code: 0, stderr: expect.stringContaining("1000 lines, in") });
  expect(await answersIn(output)).toEqual(await answersIn(alone));
});
