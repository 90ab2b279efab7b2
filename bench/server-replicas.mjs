// Three servers that share a Redis, behind nginx, for some minutes under conversations, while servers and Redis are killed, held up, filled
// and written full of garbage at random. Every conversation must have the text that a single undisturbed server gives it (same seeds), none
// may be lost, and nothing of one API key may be had with another. Says what was done, and ends with 1 where something of this does not hold.
//   node bench/server-replicas.mjs [minutes, by default 10] [seed]
// Needs the build in dist/, redis-server and nginx. The model is the one in the package.

import { setTimeout as after } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Redis } from "ioredis";
import { freePort, Service } from "../deploy/processes/service.mjs";
import { startTopology } from "../deploy/processes/start.mjs";
import { randomGenerator } from "../dist/sampling/random.js";

const minutes = Number(process.argv[2] ?? 10);
const seed = Number(process.argv[3] ?? Date.now() % 1e6);
const clients = 12;
const kinds = 24;
const turns = 4;
const keys = ["first-key", "second-key"];
const problems = new Map();
const done = new Map();
const count = (counts, what, by = 1) => counts.set(what, (counts.get(what) ?? 0) + by);

/** The single undisturbed server. */
async function startReference() {
  const program = fileURLToPath(new URL("../dist/cli/main.js", import.meta.url));
  const port = await freePort();
  const command = [process.execPath, program, "serve", "--port", String(port), "--threads", "1"];
  const service = new Service("the single server", command, { line: "serving " });
  await service.start();
  return { url: `http://127.0.0.1:${port}`, service };
}

const openings = [
  "The king",
  "Once upon a time",
  "There was a wolf who",
  "The youngest daughter",
  "In the dark forest",
];
const said = [" Tell me of it.", " And then?", " Why did they do so?", " How does it end?"];
/** What a message of a conversation says, long enough that states are worth keeping. */
const messageOf = (kind, turn) =>
  turn === 0
    ? `${kind}: ${openings[kind % openings.length]} ${"went on and on, over hill and dale, ".repeat(4)}`
    : said[turn];
const sampling = (kind, turn) => ({ seed: kind * 100 + turn, temperature: 1 });
const maxTokens = (kind) => 12 + (kind % 5) * 6;

/** A request that is sent until it is answered. @returns the answer, and how often it was sent again */
async function insist(url, path, body, headers, until) {
  for (let attempt = 0; ; attempt++) {
    if (attempt > 0) {
      count(done, "requests that were sent again");
      await after(50);
    }
    // Nothing here takes a minute but what is lost.
    const signal = AbortSignal.timeout(60_000);
    try {
      const answer = await fetch(url + path, {
        method: "POST",
        body: JSON.stringify(body),
        signal,
        headers: { "Content-Type": "application/json", ...headers },
      });
      const text = await answer.text();
      if (answer.status === 500) count(problems, `a request on which a server failed: ${text}`);
      if (answer.status >= 500 || answer.status === 429) {
        count(done, `answers with status ${answer.status}`);
        continue;
      }
      const isCut = answer.status === 200 && body.stream && !text.endsWith("data: [DONE]\n\n");
      if (isCut) {
        count(done, "streams that were cut off");
        continue;
      }
      const result = { status: answer.status, text };
      if (until === undefined || until(result)) return result;
    } catch (error) {
      if (signal.aborted) count(problems, `${path}: nothing for a minute`);
      count(done, "connections that were cut off");
      if (performance.now() > giveUp) throw error;
    }
  }
}

/** Conversations in which the client sends all that was said. */
async function chat(url, kind, headers, uniform) {
  const messages = [];
  for (let turn = 0; turn < turns; turn++) {
    messages.push({ role: "user", content: messageOf(kind, turn) });
    const stream = uniform() < 0.5;
    const body = { messages, max_tokens: maxTokens(kind), stream, ...sampling(kind, turn) };
    const { status, text } = await insist(url, "/v1/chat/completions", body, headers);
    if (status !== 200) throw new Error(`chat: status ${status}: ${text}`);
    const content = stream
      ? [...text.matchAll(/^data: (\{.*)$/gm)]
          .map(([, json]) => JSON.parse(json).choices[0]?.delta.content ?? "")
          .join("")
      : JSON.parse(text).choices[0].message.content;
    messages.push({ role: "assistant", content });
  }
  return messages.filter(({ role }) => role === "assistant").map(({ content }) => content);
}

/** Conversations that the servers keep. */
async function respond(url, kind, headers, uniform, others) {
  const texts = [];
  let previous = {};
  for (let turn = 0; turn < turns; turn++) {
    const input = messageOf(kind, turn);
    const body = { input, max_output_tokens: maxTokens(kind), ...sampling(kind, turn), ...previous };
    const { status, text } = await insist(url, "/v1/responses", body, headers, (answer) => {
      // What could not be kept says so: it is asked for again.
      const isKept = answer.status !== 200 || JSON.parse(answer.text).store;
      if (!isKept) count(done, "responses that could not be kept");
      return isKept;
    });
    if (status !== 200) throw new Error(`responses: status ${status}: ${text}`);
    const response = JSON.parse(text);
    if (others && uniform() < 0.3) {
      const { status: stolen } = await insist(
        url,
        "/v1/responses",
        { ...body, previous_response_id: response.id },
        others,
      );
      if (stolen !== 404) count(problems, `a response of another API key: status ${stolen}`);
      count(done, "attempts with another API key");
    }
    texts.push(response.output.at(-1).content?.[0].text ?? "");
    previous = { previous_response_id: response.id };
  }
  return texts;
}

let giveUp = performance.now() + 300_000;
const reference = await startReference();
const expected = { chat: [], respond: [] };
const never = () => 1;
for (let kind = 0; kind < kinds; kind++) {
  expected.chat.push(JSON.stringify(await chat(reference.url, kind, {}, never)));
  expected.respond.push(JSON.stringify(await respond(reference.url, kind, {}, never)));
}
await reference.service.kill("SIGTERM");

const topology = await startTopology({
  keys,
  // Of a key's responses the oldest go when there are too many: a fast machine makes 256, the usual number, in the seconds for which a
  // conversation may wait here for a server that was killed.
  serve: [
    ...["--threads", "1", "--log", "none", "--state-cache", "256KiB", "--state-store-size", "64MiB"],
    ...["--max-responses", "4096"],
  ],
  workers: 0,
  prometheus: 0,
  // What is acknowledged is in the system's hands, and so survives the process: see docs/scale.md.
  redis: ["--maxmemory", "1gb"],
});
const started = performance.now();
const end = started + minutes * 60_000;
giveUp = end + 120_000;

/** Conversations one after the other. */
async function client(number) {
  const { uniform } = randomGenerator(seed * 1000 + number);
  while (performance.now() < end) {
    const kind = Math.floor(uniform() * kinds);
    const key = Math.floor(uniform() * keys.length);
    const headersOf = (one) => ({ Authorization: `Bearer ${keys[one]}` });
    const isHashed = uniform() < 0.3;
    const headers = { ...headersOf(key), ...(isHashed && { "X-Conversation": `${number}-${kind}` }) };
    const { url } = topology;
    const how = uniform() < 0.5 ? "chat" : "respond";
    try {
      const texts =
        how === "chat"
          ? await chat(url, kind, headers, uniform)
          : await respond(url, kind, headers, uniform, headersOf(1 - key));
      if (JSON.stringify(texts) !== expected[how][kind]) count(problems, `${how}: another text than its seed's`);
      count(done, `conversations (${how})`);
      count(done, "turns", turns);
    } catch (error) {
      count(problems, `a conversation that was lost: ${error.cause?.message ?? error.message}`);
    }
  }
}

/** What happens to the services. Each ends with all of them running. */
const events = {
  async "a server is killed"(uniform) {
    const replica = topology.servers[Math.floor(uniform() * topology.servers.length)];
    await replica.kill();
    await after(uniform() * 1500);
    await replica.start();
  },
  async "Redis is killed"(uniform) {
    await topology.states.kill();
    await after(uniform() * 1500);
    await topology.states.start();
  },
  async "Redis hangs"(uniform) {
    topology.states.signal("SIGSTOP");
    await after(uniform() * 2000);
    topology.states.signal("SIGCONT");
  },
  async "a server hangs"(uniform) {
    const replica = topology.servers[Math.floor(uniform() * topology.servers.length)];
    replica.signal("SIGSTOP");
    await after(uniform() * 2000);
    replica.signal("SIGCONT");
  },
  "Redis is full": (uniform) =>
    withRedis(async (redis) => {
      await redis.config("SET", "maxmemory-policy", "noeviction");
      await redis.config("SET", "maxmemory", "1");
      await after(uniform() * 1500);
      await redis.config("SET", "maxmemory", "1gb");
      await redis.config("SET", "maxmemory-policy", "allkeys-lru");
    }),
  "Redis holds garbage": (uniform) =>
    withRedis(async (redis) => {
      for (const key of await redis.keys("*")) {
        // What clients made would be lost as it should be; of prompts nothing may be noticed.
        if (!/:(state|marker|claim):[0-9a-f]{32}:|:(used|total)$/.test(key) || uniform() > 0.3) continue;
        const what = Math.floor(uniform() * 4);
        if (what === 0) await redis.set(key, "garbage", "KEEPTTL");
        else if (what === 1) await redis.del(key);
        else if (what === 2) await redis.multi().del(key).rpush(key, "garbage").exec();
        else if ((await redis.type(key)) === "string")
          await redis.setrange(key, Math.floor(uniform() * 2000), "\0garbage");
      }
    }),
};

async function withRedis(use) {
  const redis = new Redis(topology.statesUrl, { maxRetriesPerRequest: 3, retryStrategy: () => 100 });
  redis.on("error", () => {});
  try {
    await use(redis);
  } finally {
    redis.disconnect();
  }
}

async function disturb() {
  const { uniform } = randomGenerator(seed);
  const names = Object.keys(events);
  while (performance.now() < end) {
    await after(500 + uniform() * 2500);
    const name = names[Math.floor(uniform() * names.length)];
    await events[name](uniform);
    count(done, `times that ${name}`);
  }
}

await Promise.all([disturb(), ...Array.from({ length: clients }, (_, i) => client(i))]);

const figures = new Map();
for (const url of topology.serverUrls) {
  const answer = await fetch(`${url}/metrics`, { headers: { Authorization: `Bearer ${keys[0]}` } });
  for (const [, name, value] of (await answer.text()).matchAll(
    /^(rwkv_(?:state_store|prompt_tokens|cached_prompt)\S*) (\S+)$/gm,
  )) {
    if (!/_bucket|_sum|_count/.test(name)) count(figures, name, Number(value));
  }
}
const found = figures.get('rwkv_state_store_operations_total{operation="find",outcome="found"}') ?? 0;
if (found === 0) count(problems, "no server has found a state of another");
await topology.stop();

console.log(`${((performance.now() - started) / 60_000).toFixed(1)} minutes, ${clients} clients, seed ${seed}; done:`);
for (const [what, times] of [...done].sort()) console.log(`  ${what}: ${times}`);
console.log("metrics of the servers since they were last started, in sum:");
for (const [name, value] of [...figures].sort()) console.log(`  ${name} ${value}`);
for (const [problem, times] of problems) console.log(`PROBLEM (${times} x): ${problem}`);
if (problems.size === 0) console.log("nothing was wrong");
process.exit(problems.size === 0 ? 0 : 1);
