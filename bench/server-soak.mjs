// A server for some minutes under clients that come, go, leave in the middle, read slowly, send rubbish, and make, use and delete states.
// Every text that is read to its end must be the text of its seed, no answer an error of the server's, memory flat after a while, and all
// places free at the end. Says what was done, and ends with 1 where something of this does not hold.
//   node bench/server-soak.mjs [minutes, by default 20]
// Needs the build in dist/. The model is the one in the package.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { connect } from "node:net";
import { setTimeout as after } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { randomGenerator } from "../dist/sampling/random.js";

const minutes = Number(process.argv[2] ?? 20);
const clients = 24;
const problems = new Map();
const done = new Map();
const count = (counts, what) => counts.set(what, (counts.get(what) ?? 0) + 1);

const program = fileURLToPath(new URL("../dist/cli/main.js", import.meta.url));
// The cache is small enough to be full before the first quarter is over, so that memory that grows later is not the cache's.
const limits = ["--max-concurrent", "16", "--max-waiting", "64", "--state-cache", "4MiB", "--stalled-timeout", "5"];
/** In the server's process: answers each message with what is in use of its memory, garbage not counted. */
const answerMemory = `
process.on("message", () => {
  globalThis.gc();
  process.send(process.memoryUsage());
});
process.channel.unref();
`;
const flags = ["--expose-gc", "--import", `data:text/javascript,${encodeURIComponent(answerMemory)}`];
const child = spawn(
  process.execPath,
  [...flags, program, "serve", "--port", "0", "--threads", "1", "--log", "errors", ...limits],
  { stdio: ["ignore", "pipe", "pipe", "ipc"] },
);
process.on("exit", () => child.kill("SIGKILL"));
child.stdout.on("data", (text) => count(problems, `the server's log: ${text}`));
const exited = once(child, "exit");
const url = await new Promise((resolve, reject) => {
  let errors = "";
  child.stderr.on("data", (text) => {
    errors += text;
    const [, found] = /serving \S+ at (\S+)\n/.exec(errors) ?? [];
    if (found) resolve(found);
  });
  void exited.then(() => reject(new Error(`the server has ended: ${errors}`)));
});

/** Sends a request. Where the server is busy, tries again. @returns the answer; undefined when `signal` was aborted */
async function send(method, path, body, { signal, type = "application/json" } = {}) {
  for (;;) {
    let answer;
    try {
      const sent = body === undefined || typeof body === "string" ? body : JSON.stringify(body);
      answer = await fetch(url + path, { method, body: sent, signal, headers: { "Content-Type": type } });
    } catch (error) {
      if (signal?.aborted) return undefined;
      throw error;
    }
    if (answer.status >= 500) count(problems, `${path}: status ${answer.status}`);
    if (answer.status !== 429) return answer;
    count(done, "told to try again");
    await answer.arrayBuffer();
    await after(50);
  }
}

/** The texts of the events of a stream, taken with a pause after each piece. */
async function textOf(answer, pause = 0) {
  let all = "";
  for await (const chunk of answer.body.pipeThrough(new TextDecoderStream())) {
    all += chunk;
    if (pause) await after(pause);
  }
  if (!all.endsWith("data: [DONE]\n\n")) throw new Error(`a stream that does not end: ${all.slice(-200)}`);
  const values = [...all.matchAll(/^data: (\{.*)$/gm)].map(([, json]) => JSON.parse(json));
  return values.map(({ choices }) => choices[0]?.text ?? "").join("");
}

const openings = [
  "The king",
  "Once upon a time",
  "There was a wolf who",
  "The youngest daughter said",
  "In the dark forest",
];
const kinds = 40;
const requestOf = (kind) => ({
  prompt: openings[kind % openings.length],
  seed: kind,
  max_tokens: 5 + ((kind * 7) % 60),
  temperature: 1,
});

/** What can be asked for so that the same comes each time, by a number. */
const texts = {
  async whole(kind) {
    return (await (await send("POST", "/v1/completions", requestOf(kind))).json()).choices[0].text;
  },
  async stream(kind) {
    return textOf(await send("POST", "/v1/completions", { ...requestOf(kind), stream: true }));
  },
  async "slow stream"(kind) {
    return textOf(await send("POST", "/v1/completions", { ...requestOf(kind), stream: true }), 10);
  },
  async state(kind) {
    const { prompt, ...rest } = requestOf(kind);
    const { id } = await (await send("POST", "/v1/states", { prompt, ttl_seconds: 600 })).json();
    const answer = await send("POST", "/v1/completions", { ...rest, prompt: "", state: id });
    const { choices } = await answer.json();
    await (await send("DELETE", `/v1/states/${id}`)).arrayBuffer();
    return choices[0].text;
  },
};
/** Conversations of two turns, by a number. */
async function responses(kind) {
  const [input, usual] = [openings[kind % openings.length], { seed: kind, max_output_tokens: 20 }];
  const first = await (await send("POST", "/v1/responses", { input, ...usual })).json();
  const next = { input: "And then?", previous_response_id: first.id, ...usual };
  const second = await (await send("POST", "/v1/responses", next)).json();
  await Promise.all([first, second].map(async ({ id }) => (await send("DELETE", `/v1/responses/${id}`)).arrayBuffer()));
  return JSON.stringify([first, second].map(({ output }) => output.at(-1).content));
}

const rubbish = [
  ["POST", "/v1/completions", "{"],
  ["POST", "/v1/completions", { prompt: 5 }],
  ["POST", "/v1/completions", { prompt: "a", max_tokens: 1e9 }],
  ["POST", "/v1/completions", "[".repeat(100_000)],
  ["POST", "/v1/chat/completions", { messages: [] }],
  ["POST", "/v1/states/upload", "no state", "application/octet-stream"],
  ["DELETE", "/v1/states/state_none"],
  ["GET", "/nothing/at/all"],
  ["PUT", "/v1/models", "{}"],
];

async function sendRubbish(random) {
  const [method, path, body, type] = rubbish[Math.floor(random() * rubbish.length)];
  const answer = await send(method, path, body, { type });
  await answer.arrayBuffer();
  if (answer.status < 400) count(problems, `${method} ${path}: rubbish was answered with ${answer.status}`);
}

/** A request that is left after a while, at any point of it. */
async function leave(random) {
  const leaving = new AbortController();
  setTimeout(() => leaving.abort(), random() * 60);
  const body = { prompt: openings[0], max_tokens: 5000, logit_bias: { 0: -100 }, stream: random() < 0.5 };
  const answer = await send("POST", "/v1/completions", body, leaving);
  await answer?.text().catch(() => {});
}

/** Bytes on a connection that is then reset. */
async function vanish(random) {
  const body = JSON.stringify({ prompt: openings[1], max_tokens: 5000, stream: true });
  const head = `POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n`;
  const all = random() < 0.2 ? "\x16\x03\x01 no HTTP at all\r\n\r\n" : head + body;
  const socket = connect(Number(new URL(url).port), "127.0.0.1");
  socket.on("error", () => {});
  await once(socket, "connect");
  socket.write(all.slice(0, Math.ceil(random() * all.length * 1.5)));
  await after(random() * 30);
  socket.resetAndDestroy();
}

const expected = { texts: [], responses: [] };
for (let kind = 0; kind < kinds; kind++) {
  expected.texts.push(await texts.whole(kind));
  expected.responses.push(await responses(kind));
}

async function client(number, until) {
  const { uniform } = randomGenerator(number);
  const names = Object.keys(texts);
  while (performance.now() < until) {
    const [what, kind] = [uniform(), Math.floor(uniform() * kinds)];
    let name = "rubbish";
    try {
      if (what < 0.5) {
        name = names[Math.floor(uniform() * names.length)];
        const text = await texts[name](kind);
        if (text !== expected.texts[kind]) count(problems, `${name}: another text than its seed's`);
      } else if (what < 0.6) {
        name = "responses";
        if ((await responses(kind)) !== expected.responses[kind])
          count(problems, `${name}: another text than its seed's`);
      } else if (what < 0.75) {
        name = "left";
        await leave(uniform);
      } else if (what < 0.9) {
        name = "vanished";
        await vanish(uniform);
      } else await sendRubbish(uniform);
      count(done, name);
    } catch (error) {
      count(problems, `${name}: ${error.cause?.message ?? error.message}`);
    }
  }
}

/** The server's memory in MiB: what its JavaScript uses, and all that the process has. */
async function memory() {
  const answered = once(child, "message");
  child.send("memory");
  const [used] = await Promise.race([answered, exited]);
  if (!used?.rss) throw new Error("the server has ended");
  return { "in use": (used.heapUsed + used.external) / 2 ** 20, "of the process": used.rss / 2 ** 20 };
}

const started = performance.now();
const until = started + minutes * 60_000;
const samples = [];
async function sample() {
  while (performance.now() < until) {
    samples.push(await memory());
    await after((minutes * 60_000) / 60);
  }
}
await Promise.all([sample(), ...Array.from({ length: clients }, (_, i) => client(i, until))]);

// All that was left must be over soon.
const wanted = ["rwkv_texts_running", "rwkv_requests_waiting", "rwkv_sequences", "rwkv_kept_states"];
let left = [];
for (let i = 0; i < 200; i++) {
  const metrics = await (await send("GET", "/metrics")).text();
  left = wanted.filter((name) => !new RegExp(`^${name} 0$`, "m").test(metrics));
  if (left.length === 0) break;
  await after(50);
}
for (const name of left) count(problems, `${name} is not 0 at the end`);

// What requests of the moment take comes and goes; what stays is the least of a quarter. Of what a process was given it returns little,
// in pieces of whatever size; that it takes ever more shows what is no object of JavaScript's.
const mostGrowth = { "in use": 8, "of the process": 40 };
const memories = Object.entries(mostGrowth).map(([kind, growth]) => {
  const quarters = [0, 1, 2, 3].map((quarter) => {
    const own = samples.slice((samples.length * quarter) / 4, (samples.length * (quarter + 1)) / 4);
    return Math.min(...own.map((sample) => sample[kind]));
  });
  const [, early, , late] = quarters;
  const listed = `${kind} ${quarters.map((value) => value.toFixed(0)).join(", ")} MiB`;
  if (late > early + growth) count(problems, `memory grew: at least ${listed} in each quarter`);
  return listed;
});
child.kill("SIGTERM");
const [code] = await exited;
if (code !== 0) count(problems, `the server ended with ${code}`);

console.log(`${((performance.now() - started) / 60_000).toFixed(1)} minutes, ${clients} clients; done:`);
for (const [what, times] of [...done].sort()) console.log(`  ${what}: ${times}`);
console.log(`memory, at least in each quarter: ${memories.join("; ")}`);
for (const [problem, times] of problems) console.log(`PROBLEM (${times} x): ${problem}`);
if (problems.size === 0) console.log("nothing was wrong");
process.exitCode = problems.size === 0 ? 0 : 1;
