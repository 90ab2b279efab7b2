// Holds the model of costs (bench/cost-model.mjs) against conversations that take place: two servers in one process share a Redis, and every
// turn goes to the other one than the turn before, so that its state comes from Redis. What a turn takes of the processor, and moves, is
// compared with what the model says from the speeds of prompts and of texts alone, which are measured first in the same run.
//   node bench/cost-check.mjs [version:layers x width x vocabulary] [conversations at once]
// Needs the build in dist/ and redis-server. The model has random weights in q8, and one thread computes.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "ioredis";
import { freePort, Service } from "../deploy/processes/service.mjs";
import { syntheticCheckpoint } from "../dist/bench/synthetic-checkpoint.js";
import { shape } from "../dist/cli/option-parsers.js";
import { loadCheckpoint } from "../dist/load.js";
import { createApp, openStateStore } from "../dist/server/index.js";
import { costOfTurn, defaults, stateBytes, table } from "./cost-model.mjs";

const [size = "7:12x768x65536", atOnce = "8"] = process.argv.slice(2);
const [message, answer, turns] = [60, 40, 4];
const [, layers, width, vocabulary] = /^7:(\d+)x(\d+)x(\d+)$/.exec(size).map(Number);
const folder = await mkdtemp(join(tmpdir(), "rwkv-cost-"));
const port = await freePort();
const command = ["redis-server", "--port", String(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder];
const redisServer = new Service("redis-server", command, { line: "Ready to accept connections" });
await redisServer.start();
const redis = new Redis(port, "127.0.0.1");
const model = await loadCheckpoint(syntheticCheckpoint(shape(size), "f32"), {
  dtype: "q8",
  threads: 1,
  tokenizer: "world",
});

/** Seconds of a processor that this process and Redis have taken, and those in which the main thread was busy. */
async function taken() {
  const { user, system } = process.cpuUsage();
  const info = await redis.info("cpu");
  const own = ["user", "sys"].reduce(
    (sum, kind) => sum + Number(new RegExp(`used_cpu_${kind}:(\\S+)`).exec(info)[1]),
    0,
  );
  return { process: (user + system) / 1e6, redis: own, thread: performance.eventLoopUtilization().active / 1000 };
}

let next = 0;
/** Token ids of a message that was not read before. */
const tokensOf = (count) => Array.from({ length: count }, () => 100 + ((next++ * 7919) % 20_000));
// Answers and messages are of words that are a token each.
const words = [" house", " river", " stone", " king", " water", " night", " horse", " bread"];
const wordIds = words.map((word) => [...model.tokenizer.encode(word)]);
if (wordIds.some(({ length }) => length !== 1)) throw new Error("a word is no token of the vocabulary");
const bias = Object.fromEntries(wordIds.map(([id]) => [id, 100]));
const sampling = { temperature: 1, top_p: 1, logit_bias: bias };
async function ask(app, path, body) {
  const request = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const response = await app.fetch(new Request(`http://x${path}`, request));
  const text = await response.text();
  if (response.status !== 200) throw new Error(text);
  return JSON.parse(text);
}
const many = (what) => Promise.all(Array.from({ length: Number(atOnce) }, (_, i) => what(i)));

// How fast prompts are read, and texts written, by a server that keeps nothing: in tokens for each second that the process takes.
const plain = createApp(model, { stateCacheBytes: 0, limits: { concurrent: 64 } });
async function speed(prompt, tokens, counted) {
  const before = await taken();
  await many(() => ask(plain, "/v1/completions", { prompt: tokensOf(prompt), max_tokens: tokens, ...sampling }));
  return (counted * Number(atOnce)) / ((await taken()).process - before.process);
}
await speed(16, 8, 1); // what is compiled once
const read = await speed(message, 1, message);
const short = await speed(2, 8, 1);
const beforeLong = await taken();
const long = await speed(2, 72, 1);
const threadOfToken = ((await taken()).thread - beforeLong.thread) / 72 / Number(atOnce);
const write = 64 / (1 / long - 1 / short);
await plain.close();

const apps = [];
for (let i = 0; i < 2; i++) {
  const storage = await openStateStore(model, `redis://127.0.0.1:${port}`, { bytes: 2 ** 33, milliseconds: 20_000 });
  apps.push(createApp(model, { format: "world", storage, stateCacheBytes: 2 ** 28, limits: { concurrent: 64 } }));
}
const metric = async (name) => {
  let sum = 0;
  for (const app of apps) {
    const text = await (await app.fetch(new Request("http://x/metrics"))).text();
    sum += Number(new RegExp(`^${name} (\\S+)$`, "m").exec(text)?.[1] ?? 0);
  }
  return sum;
};
const before = await taken();
const started = performance.now();
let cached = 0;
let prompts = 0;
const conversations = Array.from({ length: Number(atOnce) }, () => []);
for (let turn = 0; turn < turns; turn++) {
  await many(async (i) => {
    const said = Array.from({ length: message - 10 }, () => words[next++ % 7]).join("");
    conversations[i].push({ role: "user", content: `${i} ${turn}${said}` });
    const body = { messages: conversations[i], seed: i * 100 + turn, max_tokens: answer, ...sampling };
    const { choices, usage } = await ask(apps[turn % 2], "/v1/chat/completions", body);
    if (usage.completion_tokens !== answer)
      throw new Error(`expected ${answer} tokens, found ${usage.completion_tokens}`);
    prompts += usage.prompt_tokens;
    cached += usage.prompt_tokens_details.cached_tokens;
    conversations[i].push(choices[0].message);
  });
  // Who reads an answer gives the server time to store its state.
  while ((await metric("rwkv_state_store_waiting")) > 0) await new Promise((resolve) => setTimeout(resolve, 20));
}
const elapsed = (performance.now() - started) / 1000;
const after = await taken();
const count = Number(atOnce) * turns;
const [written, fetched] = [
  await metric("rwkv_state_store_written_bytes_total"),
  await metric("rwkv_state_store_read_bytes_total"),
];
const info = await redis.info("memory");
const memory = Number(/used_memory:(\d+)/.exec(info)[1]);

const kept = written / count / stateBytes({ layers, width, vocabulary });
const readTokens = (prompts - cached) / count;
const given = {
  ...defaults,
  layers,
  width,
  vocabulary,
  message: readTokens,
  answer,
  read,
  write,
  kept,
  elsewhere: (turns - 1) / turns,
};
const said = costOfTurn(given);
const milliseconds = (seconds) => `${(seconds * 1000).toFixed(0)} ms`;
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
const ratio = (a, b) => (a / b).toFixed(2);
const processOfTurn = (after.process - before.process) / count;
const redisOfTurn = (after.redis - before.redis) / count;
const threadOfTurn = (after.thread - before.thread) / count;
const threadOfMegabyte = (threadOfTurn - threadOfToken * answer) / ((written + fetched) / count / 1e6);
console.log(`${size}, q8, one thread; ${count} turns of ${atOnce} conversations at once in ${elapsed.toFixed(1)} s`);
console.log(
  `speeds alone: ${read.toFixed(0)} tokens/s read, ${write.toFixed(0)} written, for each second of the processor`,
);
console.log(
  `${readTokens.toFixed(0)} tokens read a turn, of ${(prompts / count).toFixed(0)}; states put into Redis: ${kept.toFixed(2)} a turn`,
);
console.log(
  `the main thread: ${milliseconds(threadOfTurn)} a turn, of which ${(threadOfToken * 1000).toFixed(2)} ms for a token that is written ` +
    `(no socket included), and the rest, ${(threadOfMegabyte * 1000).toFixed(1)} ms, for each MB of states that is moved\n`,
);
console.log(
  table([
    ["of a turn", "the model says", "measured", "ratio"],
    [
      "servers' processor",
      milliseconds(said.coreSeconds),
      milliseconds(processOfTurn),
      ratio(processOfTurn, said.coreSeconds),
    ],
    [
      "a state",
      megabytes(stateBytes(given)),
      megabytes(model.info.stateBytes + 4 * vocabulary),
      ratio(model.info.stateBytes + 4 * vocabulary, stateBytes(given)),
    ],
    ["read from Redis", megabytes(said.fetched), megabytes(fetched / count), ratio(fetched / count, said.fetched)],
    [
      "Redis' processor",
      milliseconds(said.redisSeconds),
      milliseconds(redisOfTurn),
      ratio(redisOfTurn, said.redisSeconds),
    ],
    ["Redis' memory", megabytes(said.stored), megabytes(memory / count), ratio(memory / count, said.stored)],
  ]),
);
for (const app of apps) await app.close();
await model.dispose();
redis.disconnect();
await redisServer.kill("SIGTERM");
await rm(folder, { recursive: true, force: true });
