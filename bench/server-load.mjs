// A server under load, from clients in another process: tokens a second of eight streams against one, what HTTP and JSON cost beside the
// same generations by the library, and the times to the first token and between tokens when requests come at random (Poisson) at 50, 80
// and 95 % of what the server can do. Another server of OpenAI's completions can be measured in the same way, in alternation.
//   node bench/server-load.mjs [--model FILE | --shape 7:24x1024x65536] [--dtype q8] [--threads 2] [--peer URL]
//                              [--tokens 64] [--rounds 3] [--seconds 20] [--only streams,poisson]
// Needs the build in dist/. llama.cpp's server, as a peer: llama-server -m FILE.gguf -np 8 -t 2 --port 8090

import { fork } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { Agent, createServer, request } from "node:http";
import { loadavg } from "node:os";
import { setTimeout as after } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { randomGenerator } from "../dist/sampling/random.js";

const { values: options } = parseArgs({
  options: {
    model: { type: "string" },
    shape: { type: "string", default: "7:24x1024x65536" },
    dtype: { type: "string" },
    threads: { type: "string", default: "2" },
    peer: { type: "string" },
    tokens: { type: "string", default: "64" },
    rounds: { type: "string", default: "3" },
    seconds: { type: "string", default: "20" },
    only: { type: "string", default: "streams,poisson" },
    serve: { type: "boolean", default: false },
  },
});
const [tokens, rounds, seconds] = [options.tokens, options.rounds, options.seconds].map(Number);
const letters = "abcdefghijklmnopqrstuvwxyz";
const manyStreams = 8;
/** Between the writes of the server of Node alone: about a pass. */
const bareMilliseconds = 60;
const agent = new Agent({ keepAlive: true });

/** The process of the server, which does the same generations by the library when it is asked to. */
async function serve() {
  const { load } = await import("../dist/index.js");
  const { loadCheckpoint } = await import("../dist/load.js");
  const { syntheticCheckpoint } = await import("../dist/bench/synthetic-checkpoint.js");
  const { shape } = await import("../dist/cli/option-parsers.js");
  const { createApp, listen } = await import("../dist/server/index.js");
  const settings = { threads: Number(options.threads), ...(options.dtype && { dtype: options.dtype }) };
  const { definition, size } = shape(options.shape);
  const model = options.model
    ? await load(options.model, settings)
    : await loadCheckpoint(syntheticCheckpoint({ definition, size }, "f32"), {
        dtype: "q8",
        ...settings,
        tokenizer: size.vocabulary === 65_536 ? "world" : "bytes",
      });
  // Prompts are all different, and none is to be found in the cache by the library's turn or the next round.
  const app = createApp(model, { name: "measured", stateCacheBytes: 0 });
  const server = await listen(app, { port: 0 });
  process.on("disconnect", () => process.exit());
  process.on("message", async ({ ask, bodies }) => {
    const active = mainThreadMilliseconds();
    if (ask === "library") {
      const started = performance.now();
      const texts = await Promise.all(bodies.map((body) => byLibrary(model, body)));
      process.send({ milliseconds: performance.now() - started, active, texts });
    } else if (ask === "active") process.send({ active });
    else {
      await server.close();
      bare.close();
      await model.dispose();
      process.disconnect();
    }
  });
  const bare = bareServer();
  bare.listen(0, "127.0.0.1");
  await once(bare, "listening");
  const { version, layers, width, dtype } = model.info;
  process.send({
    url: server.url,
    bare: `http://127.0.0.1:${bare.address().port}`,
    name: `RWKV-${version} ${layers}x${width} ${dtype}`,
  });
}

/** A server of Node alone that writes what an event of ours holds to each of its clients in turn: the least that a token can cost. */
function bareServer() {
  const choice = { index: 0, text: "a", logprobs: null, finish_reason: null };
  const event = {
    id: "cmpl-0",
    object: "text_completion",
    created: 1_700_000_000,
    model: "measured",
    choices: [choice],
  };
  const answers = new Map();
  let timer;
  const write = () => {
    for (const [answer, written] of answers) {
      answer.write(`data: ${JSON.stringify(event)}\n\n`);
      if (written + 1 < tokens) answers.set(answer, written + 1);
      else {
        answer.end("data: [DONE]\n\n");
        answers.delete(answer);
      }
    }
    if (answers.size === 0) clearInterval(timer);
  };
  return createServer((request, answer) => {
    request.resume();
    answer.writeHead(200, { "Content-Type": "text/event-stream" });
    if (answers.size === 0) timer = setInterval(write, bareMilliseconds);
    answers.set(answer, 0);
  });
}

/** What the main thread has used of a processor, in milliseconds; not a number where the system (Linux) does not say. */
function mainThreadMilliseconds() {
  try {
    return Number(readFileSync("/proc/self/schedstat", "utf8").split(" ")[0]) / 1e6;
  } catch {
    return Number.NaN;
  }
}

/** What the server does for a request, without HTTP: a text that is read in pieces. */
async function byLibrary(model, { prompt, max_tokens, seed, logit_bias, temperature, top_p, top_k }) {
  const session = model.session();
  const logitBias = Object.fromEntries(Object.entries(logit_bias).map(([id, bias]) => [Number(id), bias]));
  await session.read(prompt, { keepLogits: true });
  let text = "";
  const generation = { maxTokens: max_tokens, seed, logitBias, temperature, topP: top_p, topK: top_k };
  for await (const piece of session.generate(generation)) text += piece;
  await session.dispose();
  return text;
}

/** A server that requests are sent to. */
class Measured {
  constructor(name, url) {
    this.name = name;
    this.url = url;
  }

  /** Finds out which tokens are letters: only they are written, so that each token is an event, and no text ends early. */
  async prepare() {
    const ids = await Promise.all(
      [...letters].map(async (content) => (await (await this.post("/tokenize", { content })).json()).tokens.at(-1)),
    );
    this.bias = Object.fromEntries(ids.map((id) => [id, 100]));
  }

  post(path, body) {
    return fetch(this.url + path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
  }

  body(seed) {
    // A prompt of some 30 tokens where tokens are words.
    const prompt = `Request ${seed}: once upon a time there was a king who had ${seed} daughters, and of these the youngest was so fair that`;
    // Fewer than there are letters.
    const sampling = { temperature: 1, top_p: 1, top_k: 20, logit_bias: this.bias, ignore_eos: true };
    return { prompt, max_tokens: tokens, seed, ...sampling };
  }

  /**
   * Sends a request and reads its stream. What came is looked at afterwards, so that the client takes little of the machine.
   *
   * @returns the text, and the times of its pieces after the request, in milliseconds
   */
  async complete(seed) {
    const body = JSON.stringify({ ...this.body(seed), stream: true });
    const headers = { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(body) };
    const started = performance.now();
    const sent = request(`${this.url}/v1/completions`, { method: "POST", headers, agent });
    const [answer] = await once(sent.end(body), "response");
    const chunks = [];
    answer.on("data", (data) => chunks.push([performance.now() - started, data]));
    await once(answer, "end");
    const times = [];
    let [text, rest] = ["", ""];
    for (const [time, data] of chunks) {
      const events = (rest + data).split("\n\n"); // only letters come: no character is cut
      rest = events.pop();
      for (const event of events) {
        const piece = event.startsWith("data: {") && JSON.parse(event.slice(6)).choices?.[0]?.text;
        if (!piece) continue;
        text += piece;
        times.push(time);
      }
    }
    return { status: answer.statusCode, text, times };
  }
}

async function measure() {
  const child = fork(fileURLToPath(import.meta.url), [...process.argv.slice(2), "--serve"]);
  const [{ url, bare, name }] = await once(child, "message");
  const own = new Measured(`rwkv (${name}, ${options.threads} threads)`, url);
  const all = [own, ...(options.peer ? [new Measured(`peer (${options.peer})`, options.peer)] : [])];
  for (const one of all) await one.prepare();
  /** Asks the server's process. */
  const ask = async (what, bodies) => {
    child.send({ ask: what, bodies });
    return (await once(child, "message"))[0];
  };
  console.log(
    `load average at the beginning: ${loadavg()[0].toFixed(1)}; ${tokens} tokens a request, ${rounds} rounds`,
  );
  if (options.only.includes("streams")) await measureStreams(all, new Measured("bare", bare), ask);
  if (options.only.includes("poisson")) for (const one of all) await measurePoisson(one);
  console.log(`load average at the end: ${loadavg()[0].toFixed(1)}`);
  agent.destroy();
  child.send({ ask: "end" });
}

async function measureStreams(all, bare, ask) {
  const speeds = new Map();
  const add = (what, speed) => speeds.set(what, [...(speeds.get(what) ?? []), speed]);
  const failures = new Map();
  for (let round = -1; round < rounds; round++) {
    for (const streams of [1, manyStreams]) {
      const seeds = Array.from({ length: streams }, (_, i) => 1000 * (round + 2) + i);
      const written = streams * tokens;
      const bodies = seeds.map((seed) => all[0].body(seed));
      const before = await ask("active");
      const alone = await ask("library", bodies);
      const { active: between } = await ask("active");
      // Beside the same passes, which leave nothing of Node in the caches.
      await Promise.all([ask("library", bodies), ...seeds.map((seed) => bare.complete(seed))]);
      const { active } = await ask("active");
      if (round >= 0) {
        add(`library, ${streams}`, (written / alone.milliseconds) * 1000);
        add(`busy, library, ${streams}`, (between - before.active) / written);
        add(`busy, bare, ${streams}`, (active - 2 * between + before.active) / written);
      }
      for (const one of all) {
        const started = performance.now();
        const answers = await Promise.all(seeds.map((seed) => one.complete(seed)));
        const milliseconds = performance.now() - started;
        const failed = answers.filter(({ times }) => times.length < tokens * 0.9).length;
        if (failed) failures.set(one.name, (failures.get(one.name) ?? 0) + failed);
        if (one === all[0]) {
          if (answers.some(({ text }, i) => text !== alone.texts[i]))
            console.log("NOT equal: texts over HTTP and by the library");
          const now = await ask("active");
          if (round >= 0) add(`busy, HTTP, ${streams}`, (now.active - active) / written);
        }
        const pieces = answers.reduce((sum, { times }) => sum + times.length, 0);
        if (round >= 0) add(`${one.name}, ${streams}`, (pieces / milliseconds) * 1000);
      }
    }
  }
  for (const [what, values] of speeds) {
    if (what.startsWith("busy")) continue;
    const range = `${Math.min(...values).toFixed(1)} to ${Math.max(...values).toFixed(1)}`;
    console.log(`${what} stream(s): ${quantile(values, 0.5).toFixed(1)} tok/s in all (${range})`);
  }
  for (const [name, failed] of failures) console.log(`${name}: ${failed} requests failed or ended early`);
  const of = (what) => quantile(speeds.get(what), 0.5);
  for (const { name } of all)
    console.log(
      `${name}: ${manyStreams} streams are ${(of(`${name}, ${manyStreams}`) / of(`${name}, 1`)).toFixed(2)} x one`,
    );
  for (const streams of [1, manyStreams]) {
    const share = 1 - of(`${all[0].name}, ${streams}`) / of(`library, ${streams}`);
    const [plain, http, least] = ["library", "HTTP", "bare"].map((what) => of(`busy, ${what}, ${streams}`));
    console.log(
      `${streams} stream(s) over HTTP: ${(share * 100).toFixed(1)} % slower than by the library, with the client on the same ` +
        `machine; the main thread works ${(http * 1000).toFixed(0)} µs a token, by the library ${(plain * 1000).toFixed(0)} (a server of Node ` +
        `alone that writes as many events beside it ${(least * 1000).toFixed(0)}): ${(((http - plain) * of(`library, ${streams}`)) / 10).toFixed(1)} % of the time of a token more`,
    );
  }
}

/** Requests at random times, at shares of what the server does when there are always eight. */
async function measurePoisson(one) {
  let seed = 100_000;
  const until = performance.now() + seconds * 500;
  const started = performance.now();
  let done = 0;
  await Promise.all(
    Array.from({ length: manyStreams }, async () => {
      while (performance.now() < until) {
        const { times } = await one.complete(seed++);
        if (times.length > 0) done++;
      }
    }),
  );
  const capacity = done / ((performance.now() - started) / 1000);
  console.log(`${one.name}: ${capacity.toFixed(2)} requests a second with eight at any time`);
  const random = randomGenerator(7);
  for (const share of [0.5, 0.8, 0.95]) {
    const asked = [];
    const end = performance.now() + seconds * 1000;
    for (;;) {
      await after((-Math.log(1 - random.uniform()) / (capacity * share)) * 1000);
      if (performance.now() > end) break;
      asked.push(one.complete(seed++));
    }
    const answers = await Promise.all(asked);
    const good = answers.filter(({ times }) => times.length > 0);
    const first = good.map(({ times }) => times[0]);
    const between = good.flatMap(({ times }) => times.slice(1).map((time, i) => time - times[i]));
    const three = (values) => [0.5, 0.95, 0.99].map((p) => quantile(values, p).toFixed(0)).join(" / ");
    console.log(
      `  at ${share * 100} %: ${answers.length} requests, ${answers.length - good.length} failed; p50 / p95 / p99 ` +
        `to the first token ${three(first)} ms, between tokens ${three(between)} ms`,
    );
  }
}

function quantile(values, p) {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))] ?? Number.NaN;
}

if (options.serve) await serve();
else await measure();
