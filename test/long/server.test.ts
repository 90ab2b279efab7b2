// The server with more than one would wait for each time: thousands of requests made from its description, a thousand streams at once,
// and a minute of clients that come and go. FUZZED_REQUESTS=100000 sends as many requests, for whoever has the time.

import { execFile } from "node:child_process";
import { setTimeout as after } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import fc from "fast-check";
import { load, type Model } from "rwkv";
import { createApp, listen } from "rwkv/server";
import { afterAll, beforeAll, expect, test } from "vitest";
import { hasRedis, isInstalled } from "../redis-server.js";
import { type ApiDescription, requestsTo, sendFuzzed } from "../request-fuzz.js";

let model: Model;
beforeAll(async () => {
  model = await load(undefined, { threads: 2 });
});
afterAll(() => model.dispose());

setFlagsFromString("--expose-gc");
const collectGarbage = runInNewContext("gc") as () => void;

/** What is in use of the process's memory, in MiB, garbage not counted. */
function mebibytes(): number {
  collectGarbage();
  const { heapUsed, external } = process.memoryUsage();
  return (heapUsed + external) / 2 ** 20;
}

const fuzzedRequests = Number(process.env["FUZZED_REQUESTS"] ?? 3000);

test(`${fuzzedRequests} requests made from the API's description`, async () => {
  const app = createApp(model, {
    limits: { bodyBytes: 65_536, promptTokens: 200, maxTokens: 6, concurrent: 8, keptStates: 8, keptResponses: 8 },
    stateCacheBytes: 2 ** 22,
  });
  const description = (await (await app.fetch(new Request("http://localhost/openapi.json"))).json()) as ApiDescription;
  const requests = requestsTo(description);
  const groups = fc.array(requests, { minLength: 1, maxLength: 8 });
  let sent = 0;
  const send = async (group: Parameters<typeof sendFuzzed>[1][]) => {
    sent += group.length;
    await Promise.all(group.map((request) => sendFuzzed(app.fetch, request)));
  };
  const memory: number[] = [];
  while (sent < fuzzedRequests) {
    await fc.assert(fc.asyncProperty(groups, send), { numRuns: 100 });
    memory.push(mebibytes());
  }
  await expect.poll(() => app.load).toEqual({ running: 0, waiting: 0 });
  await expect.poll(() => model.scheduler.states).toBe(0);
  const most = (from: number, to: number) => Math.max(...memory.slice(memory.length * from, memory.length * to));
  // The last forms that were compiled are kept, and masks grow with what is asked of them.
  expect(most(0.75, 1)).toBeLessThan(most(0.25, 0.5) + 64);
  await app.close();
}, 1_800_000);

test("1,000 open streams at once, each with the text of its seed", async () => {
  const [streams, kinds] = [1000, 25];
  const app = createApp(model, { name: "tales", limits: { concurrent: streams, waiting: 0 } });
  const server = await listen(app, { port: 0, idleSeconds: 600 });
  const requestOf = (i: number, stream: boolean): RequestInit => ({
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ prompt: `Tale ${i % 5}:`, seed: i % kinds, max_tokens: 14, temperature: 1, stream }),
  });
  const path = "/v1/completions";
  const expected: string[] = [];
  for (let i = 0; i < kinds; i++) {
    const { choices } = await (await fetch(server.url + path, requestOf(i, false))).json();
    expected.push(choices[0].text);
  }
  const textOf = async (answer: Response) => {
    const events = (await answer.text()).split("\n\n").filter((event) => event.startsWith("data: {"));
    return events.map((event) => JSON.parse(event.slice(6)).choices[0].text).join("");
  };
  const all = Array.from({ length: streams }, (_, i) => i);
  const wanted = all.map((i) => expected[i % kinds]);
  const memory: number[] = [];
  for (let round = 0; round < 3; round++) {
    // In the same process nothing holds what is not read, so none of them can be over before they are read.
    const answers = await Promise.all(
      all.map((i) => app.fetch(new Request(`http://localhost${path}`, requestOf(i, true)))),
    );
    expect(answers.every(({ status }) => status === 200)).toBe(true);
    expect(app.load).toEqual({ running: streams, waiting: 0 });
    expect(await Promise.all(answers.map(textOf))).toEqual(wanted);
    const overHttp = await Promise.all(all.map((i) => fetch(server.url + path, requestOf(i, true))));
    expect(await Promise.all(overHttp.map(textOf))).toEqual(wanted);
    while (app.load.running > 0) await after(5);
    memory.push(mebibytes());
  }
  expect(model.scheduler.states).toBe(0);
  expect(memory[2]).toBeLessThan(memory[1]! + 32);
  await server.close();
}, 1_800_000);

test.skipIf(!hasRedis || !isInstalled("nginx"))(
  "a minute of servers that share a Redis, and are killed with it at random",
  async () => {
    const script = fileURLToPath(new URL("../../bench/server-replicas.mjs", import.meta.url));
    const { stdout } = await promisify(execFile)(process.execPath, [script, "1"]);
    expect(stdout).toContain("nothing was wrong");
  },
);

test("a minute of clients that come, go, leave in the middle, and send rubbish", async () => {
  const script = fileURLToPath(new URL("../../bench/server-soak.mjs", import.meta.url));
  // It ends with 1 where something was wrong, and says what.
  const { stdout } = await promisify(execFile)(process.execPath, [script, "1"]).catch((error) => error);
  expect(stdout).toMatch(/nothing was wrong\n$/);
});
