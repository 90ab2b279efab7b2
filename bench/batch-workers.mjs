// A batch by one, two and four workers that are killed at random (SIGKILL and SIGTERM) and started again, against the same batch in one process
// that nobody disturbs. Every line must be answered once, in order, with the same text; ends with 1 where that does not hold. Says how many lines
// a second that were, and what the queue takes: the processor time of `rwkv batch --queue` and of Redis beside that of the workers.
//   node bench/batch-workers.mjs [--lines 100000] [--workers 1,2,4] [--max-tokens 4] [--kill-every 5] [--seed 1] [--compared 100000]
// --kill-every is in seconds, in the mean; 0 kills none. --compared is how many lines one process carries out, too, from the first. Needs the build in dist/, redis-server and, for processor times, Linux. The model is the
// one in the package; each worker has its share of the cores.

import { spawn } from "node:child_process";
import { createReadStream, createWriteStream, existsSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { pipeline } from "node:stream/promises";
import { setTimeout as after } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Redis } from "ioredis";
import { freePort } from "../deploy/processes/service.mjs";
import { randomGenerator } from "../dist/sampling/random.js";

const { values: options } = parseArgs({
  options: {
    lines: { type: "string", default: "100000" },
    workers: { type: "string", default: "1,2,4" },
    "max-tokens": { type: "string", default: "4" },
    "kill-every": { type: "string", default: "5" },
    seed: { type: "string", default: "1" },
    compared: { type: "string" },
  },
});
const [lines, maxTokens, killEvery, seed] = ["lines", "max-tokens", "kill-every", "seed"].map((name) =>
  Number(options[name]),
);
const compared = Math.min(lines, Number(options.compared ?? lines));
const program = fileURLToPath(new URL("../dist/cli/main.js", import.meta.url));
const { uniform } = randomGenerator(seed);
const folder = await mkdtemp(join(tmpdir(), "rwkv-batch-workers-"));
const [input, first] = [join(folder, "in.jsonl"), join(folder, "first.jsonl")];
const openings = ["Once upon a time", "The king", "There was a wolf who", "In the dark forest"];
function* requests(count) {
  for (let i = 0; i < count; i++) {
    const prompt = `Tale ${i}: ${openings[i % openings.length]}`;
    yield `${JSON.stringify({ custom_id: String(i), prompt, max_tokens: maxTokens })}\n`;
  }
}
await pipeline(requests(lines), createWriteStream(input));
await pipeline(requests(compared), createWriteStream(first));

/** Hundredths of a second of processor time that a process has taken; undefined where it is gone. */
function ticksOf(pid) {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1].split(" ");
    return Number(fields[11]) + Number(fields[12]);
  } catch {
    return undefined;
  }
}

const children = new Set();
process.on("exit", () => {
  for (const child of children) child.kill("SIGKILL");
});
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(1));

/** A process of node, with how much processor time it had taken when it was looked at last. */
function start(args) {
  const child = spawn(process.execPath, [program, ...args], { stdio: ["ignore", "ignore", "pipe"] });
  children.add(child);
  const process_ = { child, seconds: 0, said: "" };
  child.stderr.on("data", (text) => {
    process_.said = (process_.said + text).slice(-5000);
  });
  const look = () => {
    process_.seconds = (ticksOf(child.pid) ?? process_.seconds * 100) / 100;
  };
  const timer = setInterval(look, 50);
  process_.look = look;
  process_.ended = new Promise((resolve) => {
    child.once("exit", (code) => {
      clearInterval(timer);
      children.delete(child);
      resolve(code);
    });
  });
  return process_;
}

/** Runs a batch to its end. @returns seconds of the clock and of the processor */
async function batch(args) {
  const started = performance.now();
  const run = start(["batch", ...args, "--seed", String(seed)]);
  if ((await run.ended) !== 0) throw new Error(run.said);
  return { seconds: (performance.now() - started) / 1000, processor: run.seconds };
}

/** What does not depend on who has read which prompt before. */
const withoutUsage = (text) => JSON.stringify({ ...JSON.parse(text), usage: undefined });

async function* linesOf(path) {
  yield* createInterface({ input: createReadStream(path), crlfDelay: Number.POSITIVE_INFINITY });
}

/** @throws Error where a line is missing, there twice, out of order, or another than it should be */
async function compare(output, expected) {
  const others = linesOf(expected);
  let count = 0;
  for await (const line of linesOf(output)) {
    const { value = line } = await others.next();
    count++;
    if (JSON.parse(line).line !== count || JSON.parse(line).custom_id !== String(count - 1)) {
      throw new Error(`line ${count} of ${output} is ${line}`);
    }
    if (withoutUsage(line) !== withoutUsage(value)) throw new Error(`line ${count}: expected ${value}, found ${line}`);
  }
  if (count !== lines) throw new Error(`expected ${lines} lines, found ${count}`);
}

async function withWorkers(count, url, redis) {
  const threads = Math.max(1, Math.floor(availableParallelism() / count));
  const output = join(folder, `out-${count}.jsonl`);
  let isOver = false;
  let [kills, spent] = [0, 0];
  const workers = new Set();
  const keepOne = async () => {
    while (!isOver) {
      const worker = start(["worker", "--threads", String(threads), "--queue", url, "--queue-name", `of-${count}`]);
      workers.add(worker);
      await worker.ended;
      workers.delete(worker);
      spent += worker.seconds;
    }
  };
  const kept = Array.from({ length: count }, keepOne);
  const killing = (async () => {
    while (!isOver && killEvery > 0) {
      await after(killEvery * 1000 * (0.5 + uniform()));
      const all = [...workers];
      const one = all[Math.floor(uniform() * all.length)];
      if (isOver || !one) continue;
      one.look();
      one.child.kill(uniform() < 0.7 ? "SIGKILL" : "SIGTERM");
      kills++;
    }
  })();
  const cpuOfRedis = async () =>
    [...(await redis.info("cpu")).matchAll(/used_cpu_(?:sys|user):([\d.]+)/g)].reduce(
      (sum, [, one]) => sum + Number(one),
      0,
    );
  const before = await cpuOfRedis();
  const result = await batch([input, output, "--queue", url, "--queue-name", `of-${count}`]);
  const ofRedis = (await cpuOfRedis()) - before;
  isOver = true;
  for (const { look, child } of workers) {
    look();
    child.kill("SIGKILL");
  }
  await Promise.all([...kept, killing]);
  await compare(output, alone.output);
  await rm(output);
  const queue = result.processor + ofRedis;
  row(
    `${count} worker${count > 1 ? "s" : ""}`,
    kills,
    result.seconds.toFixed(0),
    (lines / result.seconds).toFixed(0),
    spent.toFixed(0),
    result.processor.toFixed(1),
    ofRedis.toFixed(1),
    `${((100 * queue) / spent).toFixed(1)} %`,
  );
}

const row = (...cells) => console.log(cells.join("\t"));
row("", "killed", "s", "lines/s", "CPU s", "of batch", "of Redis", "of the queue");
const alone = { output: join(folder, "alone.jsonl") };
const { seconds, processor } = await batch([first, alone.output]);
row(`one process, ${compared} lines`, 0, seconds.toFixed(0), (compared / seconds).toFixed(0), processor.toFixed(0));

const port = await freePort();
const server = spawn("redis-server", ["--port", String(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder], {
  stdio: "ignore",
});
children.add(server);
const url = `redis://127.0.0.1:${port}/0`;
const redis = new Redis(url, { maxRetriesPerRequest: null, retryStrategy: () => 50 });
redis.on("error", () => {});
try {
  for (const count of options.workers.split(",").map(Number)) await withWorkers(count, url, redis);
  console.log(
    `${lines} lines of ${maxTokens} tokens: each once, in order, the first ${compared} with the texts of one process`,
  );
} finally {
  redis.disconnect();
  server.kill();
  if (existsSync(folder)) await rm(folder, { recursive: true });
}
process.exit();
