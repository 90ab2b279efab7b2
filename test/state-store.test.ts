// States that several servers share in a Redis: what one has read all know, nothing of another key's or model's is found, and a Redis that
// is slow, full, gone, or holds garbage costs no request its answer.

import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { Redis } from "ioredis";
import { type LoadOptions, load, type Model, RwkvError, type Snapshot } from "rwkv";
import { type AppOptions, createApp, openStateStore, type StateStoreOptions } from "rwkv/server";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { fromHalfState, toHalfState } from "#rwkv/generation/half-state";
import { decodeKept, type Kept } from "#rwkv/server/storage/kept-bytes";
import { StateCodec } from "#rwkv/server/storage/redis/state-codec";
import { maxDifference } from "./environment.js";
import { longPrompt as long, sampling } from "./kept-prompts.js";
import { freePort, hasRedis, redisServer } from "./redis-server.js";
import { readMetrics } from "./served.js";

let model: Model;
beforeAll(async () => {
  model = await load(undefined, { threads: 1 });
});
afterAll(() => model.dispose());

interface ReplicaOptions extends AppOptions {
  readonly of?: Model;
  readonly store?: StateStoreOptions;
}

/** A machine may be busy: where a test is not about what takes too long, nothing does. */
const patient = { milliseconds: 20_000 };

/** A server without HTTP, which has no states in its own memory, so that all it knows is in the store. */
async function replica(url: string | undefined, { of = model, store = {}, ...options }: ReplicaOptions = {}) {
  const warnings: string[] = [];
  const storage =
    url && (await openStateStore(of, url, { onWarning: (text) => warnings.push(text), ...patient, ...store }));
  const app = createApp(of, { name: "tales", stateCacheBytes: 0, ...(storage && { storage }), ...options });
  onTestFinished(() => app.close());
  const ask = async (method: string, path: string, body?: unknown, key = "none") => {
    const response = await app.fetch(
      new Request(`http://x${path}`, {
        method,
        headers: { "Content-Type": "application/json", Authorization: `Bearer ${key}` },
        ...(body !== undefined && { body: JSON.stringify(body) }),
      }),
    );
    const isJson = response.headers.get("content-type")?.includes("json");
    return { status: response.status, answer: isJson ? await response.json() : await response.text() };
  };
  const metric = async (name: string) =>
    readMetrics((await ask("GET", "/metrics", undefined, "mine")).answer).get(name);
  return {
    app,
    ask,
    warnings,
    post: (path: string, body: unknown, key?: string) => ask("POST", path, body, key),
    async complete(prompt: string, key?: string) {
      const { answer } = await ask("POST", "/v1/completions", { ...sampling, prompt }, key);
      return { text: answer.choices[0].text as string, cached: answer.usage.prompt_tokens_details.cached_tokens };
    },
    metric,
    /** Resolves when all was written that was to be. */
    written: () =>
      expect
        .poll(async () => [
          await metric("rwkv_state_store_waiting"),
          ((await metric('rwkv_state_store_operations_total{operation="store",outcome="done"}')) ?? 0) > 0,
        ])
        .toEqual([0, true]),
    isUp: (value: number) => expect.poll(() => metric("rwkv_state_store_up"), { timeout: 20_000 }).toBe(value),
  };
}

async function connected(url: string): Promise<Redis> {
  const client = new Redis(url);
  onTestFinished(() => client.disconnect());
  return client;
}

const tokensOf = (text: string) => model.tokenizer.encode(text).length;

describe.skipIf(!hasRedis)("servers that share a Redis", () => {
  test("know what another has read, and answer as one that reads it", async () => {
    const { url } = await redisServer();
    const [first, second, plain] = [await replica(url), await replica(url), await replica(undefined)];
    const prompt = long("a wolf");
    const expected = (await plain.complete(prompt)).text;
    expect(await first.complete(prompt)).toEqual({ text: expected, cached: 0 });
    await first.written();
    expect(await second.complete(prompt)).toEqual({ text: expected, cached: tokensOf(prompt) });
    const longer = `${prompt} and his brother`;
    expect(await second.complete(longer)).toEqual({
      text: (await plain.complete(longer)).text,
      cached: tokensOf(prompt),
    });
    // Another text that begins alike for a while, and a shorter one.
    for (const other of [long("a fox"), prompt.slice(0, 150)]) {
      expect((await second.complete(other)).text).toBe((await plain.complete(other)).text);
    }
  });

  test("go on with each other's conversations, states and responses", async () => {
    const { url } = await redisServer();
    const [first, second, plain] = [await replica(url), await replica(url), await replica(undefined)];
    const { answer: state } = await first.post("/v1/states", { prompt: long("a wolf"), name: "wolf" });
    expect((await second.ask("GET", `/v1/states/${state.id}`)).answer).toMatchObject({ name: "wolf" });
    expect((await second.ask("GET", "/v1/states")).answer.data).toMatchObject([{ id: state.id, bytes: state.bytes }]);
    const { answer } = await second.post("/v1/completions", { ...sampling, prompt: "", state: state.id });
    expect(answer.choices[0].text).toBe((await plain.complete(long("a wolf"))).text);
    expect((await second.ask("DELETE", `/v1/states/${state.id}`)).status).toBe(200);
    expect((await first.ask("GET", `/v1/states/${state.id}`)).status).toBe(404);
    expect((await first.ask("GET", "/v1/states")).answer.data).toEqual([]);

    const turns = async (servers: (typeof first)[]) => {
      const texts: unknown[] = [];
      let previous = {};
      for (const [i, server] of servers.entries()) {
        const body = { input: `Question ${i}`, max_output_tokens: 9, seed: i, ...previous };
        const { answer: response } = await server.post("/v1/responses", body);
        expect(response).toMatchObject({ status: expect.any(String), store: true });
        texts.push(response.output.map(({ content }: { content: unknown }) => content));
        previous = { previous_response_id: response.id };
      }
      return texts;
    };
    expect(await turns([first, second, first, second])).toEqual(await turns([plain, plain, plain, plain]));
  });

  test("read a prompt once that comes to both at the same time", async () => {
    const { url } = await redisServer();
    const [first, second] = [await replica(url), await replica(url)];
    const prompt = `${long("a wolf")} ${long("a fox")}`;
    const answers = await Promise.all([first.complete(prompt), second.complete(prompt)]);
    expect(answers.map(({ cached }) => cached).sort()).toEqual([0, tokensOf(prompt)]);
    expect(answers[0]!.text).toBe(answers[1]!.text);
    const client = await connected(url);
    await expect.poll(() => client.keys("*claim*")).toEqual([]);
  });

  test("do not wait for one that was killed, or has left, for longer than its claim", async () => {
    const { url } = await redisServer();
    const [first, second] = [await replica(url), await replica(url)];
    const prompt = `${long("a wolf")} ${long("a fox")}`;
    await first.complete(prompt);
    await first.written();
    const client = await connected(url);
    const [state = ""] = await client.keys(`*state:*:${tokensOf(prompt)}:l`);
    const claim = state.replace(":state:", ":claim:");
    await client.unlink(state);
    await client.set(claim, "of a server that was killed", "PX", 3000);
    const answer = second.complete(prompt);
    await expect.poll(() => second.metric("rwkv_state_store_waits_total")).toBe(1);
    await client.pexpire(claim, 1);
    expect((await answer).text).toBe((await (await replica(undefined)).complete(prompt)).text);
  });

  test("give nothing of one API key to another", async () => {
    const { url } = await redisServer();
    const options = { apiKeys: ["mine", "yours", "theirs"], stateCacheBytes: 2 ** 26 };
    const [first, second] = [await replica(url, options), await replica(url, options)];
    const prompt = long("a secret");
    await first.complete(prompt, "mine");
    await first.written();
    expect((await first.complete(prompt, "theirs")).cached).toBe(0);
    expect((await second.complete(prompt, "yours")).cached).toBe(0);
    expect((await second.complete(prompt, "mine")).cached).toBe(tokensOf(prompt));
    const { answer: state } = await first.post("/v1/states", { prompt }, "mine");
    const { answer: response } = await first.post("/v1/responses", { input: "x", max_output_tokens: 3 }, "mine");
    for (const [path, key, status] of [
      [`/v1/states/${state.id}`, "yours", 404],
      [`/v1/states/${state.id}`, "mine", 200],
      [`/v1/responses/${response.id}`, "yours", 404],
      [`/v1/responses/${response.id}`, "mine", 200],
    ] as const) {
      expect((await second.ask("GET", path, undefined, key)).status).toBe(status);
    }
    expect((await second.ask("GET", "/v1/states", undefined, "yours")).answer.data).toEqual([]);
    // Neither keys nor API keys can be read from what is there.
    const keys = await (await connected(url)).keys("*");
    expect(keys.join()).not.toMatch(/mine|yours/);
  });

  test("of another model know nothing of it", async () => {
    const { url } = await redisServer();
    const first = await replica(url);
    const prompt = long("a wolf");
    await first.complete(prompt);
    await first.written();
    const { answer: state } = await first.post("/v1/states", { prompt: "mine" });
    const options: LoadOptions = { threads: 1, dtype: "q8", onWarning() {} };
    const of = await load(undefined, options);
    onTestFinished(() => of.dispose());
    const other = await replica(url, { of });
    expect((await other.complete(prompt)).cached).toBe(0);
    expect((await other.ask("GET", `/v1/states/${state.id}`)).status).toBe(404);
  });

  test("that keep them as another type know nothing of it", async () => {
    const { url } = await redisServer();
    const rounding = await replica(url, { store: { type: "f16" } });
    const prompt = long("a wolf");
    await rounding.complete(prompt);
    await rounding.written();
    expect((await (await replica(url)).complete(prompt)).cached).toBe(0);
  });

  test("have limits together", async () => {
    const { url } = await redisServer();
    const limits = { keptStates: 2, keptResponses: 2 };
    const [first, second] = [await replica(url, { limits }), await replica(url, { limits })];
    for (const server of [first, second]) expect((await server.post("/v1/states", { prompt: "1" })).status).toBe(200);
    const refused = await second.post("/v1/states", { prompt: "3" });
    expect(refused).toMatchObject({ status: 403, answer: { error: { code: "state_limit_exceeded" } } });
    const ids: string[] = [];
    for (const server of [first, second, first]) {
      ids.push((await server.post("/v1/responses", { input: "x", max_output_tokens: 2 })).answer.id);
    }
    const statuses = ids.map(async (id) => (await second.ask("GET", `/v1/responses/${id}`)).status);
    expect(await Promise.all(statuses)).toEqual([404, 200, 200]);
    const client = await connected(url);
    const objects = (await client.keys("*object:*")).length;
    expect(objects).toBe(4);
    // What Redis itself let go takes no place.
    for (const key of await client.keys("*:state:object:*")) await client.unlink(key);
    expect((await second.post("/v1/states", { prompt: "3" })).status).toBe(200);
    expect((await first.ask("GET", "/v1/states")).answer.data).toHaveLength(1);

    const small = await replica(url, { limits: { keptStateBytes: model.info.stateBytes } });
    expect((await small.post("/v1/states", { prompt: "1" })).answer.error.message).toContain("bytes");
  });

  test("keep no more states of prompts than they may, the last ones used", async () => {
    const { url } = await redisServer();
    const bytes = 3 * (model.info.stateBytes + model.info.vocabulary * 4 + 2000);
    const server = await replica(url, { store: { bytes } });
    const prompts = [1, 2, 3, 4, 5].map((i) => `${i}: ${long("x")}`);
    for (const prompt of prompts.slice(0, 3)) {
      await server.complete(prompt);
      await server.written();
    }
    const client = await connected(url);
    const kept = async () => (await client.keys("*:state:*")).length;
    await expect.poll(kept).toBeLessThanOrEqual(3);
    await server.complete(prompts[3]!);
    await server.complete(prompts[4]!);
    await server.written();
    await expect.poll(async () => (await server.complete(prompts[4]!)).cached).toBe(tokensOf(prompts[4]!));
    expect(await kept()).toBeLessThanOrEqual(3);
    expect((await server.complete(prompts[0]!)).cached).toBe(0);
    expect(await server.metric("rwkv_state_storage_bytes")).toBeLessThanOrEqual(bytes);
  });
});

describe.skipIf(!hasRedis)("a Redis", () => {
  test("that is gone, hangs, and comes back costs no answer", async () => {
    const redis = await redisServer();
    const server = await replica(redis.url, { store: { milliseconds: 500 } });
    const plain = await replica(undefined);
    const agree = async (what: string) => {
      const prompt = long(what);
      const { text, cached } = await server.complete(prompt);
      expect(text).toBe((await plain.complete(prompt)).text);
      return cached as number;
    };
    const isFound = () => expect.poll(() => agree("a wolf"), { timeout: 20_000 }).toBeGreaterThan(0);
    await isFound();
    await redis.signal("SIGSTOP");
    expect(await agree("a wolf")).toBe(0);
    await server.isUp(0);
    expect(server.warnings.at(-1)).toContain("is out of reach");
    const refused = await server.post("/v1/states", { prompt: "x" });
    expect(refused).toMatchObject({ status: 503, answer: { error: { code: "storage_failed" } } });
    const unknown = await server.ask("GET", `/v1/states/state_${"0".repeat(32)}`);
    expect(unknown).toMatchObject({ status: 503, answer: { error: { code: "storage_unavailable" } } });
    // An answer is there all the same, and says that nobody can go on from it.
    const { answer } = await server.post("/v1/responses", { input: "x", max_output_tokens: 3 });
    expect(answer).toMatchObject({ object: "response", store: false });
    await redis.signal("SIGCONT");
    await server.isUp(1);
    await isFound();
    await redis.signal("SIGKILL");
    expect(await agree("a wolf")).toBe(0);
    await redis.start();
    await server.isUp(1);
    expect(server.warnings.at(-1)).toContain("is back");
    await isFound(); // it had forgotten all
  });

  test("that is slow is not asked for long", async () => {
    const redis = await redisServer();
    const prompt = long("a wolf");
    const seeding = await replica(redis.url);
    await seeding.complete(prompt);
    await seeding.written();
    // Each answer is in time, but a state takes three of them.
    const slow = createServer((socket) => {
      const to = connect(redis.port, "127.0.0.1");
      for (const one of [socket, to]) one.on("error", () => {});
      socket.pipe(to);
      to.on("data", (bytes) => setTimeout(() => socket.writable && socket.write(bytes), 120));
      socket.on("close", () => to.destroy());
    }).listen(0, "127.0.0.1");
    onTestFinished(() => void slow.close());
    await once(slow, "listening");
    const { port } = slow.address() as { port: number };
    const server = await replica(`redis://127.0.0.1:${port}`, { store: { milliseconds: 200 } });
    await server.isUp(1);
    expect((await server.complete(prompt)).text).toBe((await (await replica(undefined)).complete(prompt)).text);
    await expect.poll(() => server.metric("rwkv_state_store_breaks_total")).toBeGreaterThan(0);
  });

  test("that was not there at the start is used when it is", async () => {
    const port = await freePort();
    const server = await replica(`redis://127.0.0.1:${port}`);
    expect(server.warnings).toEqual([expect.stringContaining(`redis://127.0.0.1:${port} cannot be reached`)]);
    expect((await server.complete(long("a wolf"))).cached).toBe(0);
    expect(await server.metric("rwkv_state_store_up")).toBe(0);
  });

  test("that is full is read and not written", async () => {
    const redis = await redisServer();
    const server = await replica(redis.url);
    await server.complete(long("a wolf"));
    await server.written();
    const client = await connected(redis.url);
    await client.config("SET", "maxmemory", "1");
    const before = await server.complete(long("a fox"));
    expect(before.text).toBe((await (await replica(undefined)).complete(long("a fox"))).text);
    await expect
      .poll(() => server.metric('rwkv_state_store_operations_total{operation="store",outcome="refused"}'))
      .toBeGreaterThan(0);
    expect((await server.complete(long("a wolf"))).cached).toBe(tokensOf(long("a wolf")));
    expect((await server.post("/v1/states", { prompt: "x" })).status).toBe(503);
    expect(await server.metric("rwkv_state_store_up")).toBe(1);
  });

  test("that holds garbage is not believed", async () => {
    const { url } = await redisServer();
    const [first, second, plain] = [await replica(url), await replica(url), await replica(undefined)];
    const prompts = ["a wolf", "a fox", "a hen", "a cat"].map((what) => `${what}: ${long(what)}`);
    for (const prompt of prompts) await first.complete(prompt);
    await first.written();
    const ids: string[] = [];
    for (let i = 0; i < 3; i++) ids.push((await first.post("/v1/states", { prompt: prompts[i] })).answer.id);
    await first.post("/v1/responses", { input: "x", max_output_tokens: 3 });
    await first.app.close();
    const client = await connected(url);
    const spoil = async (keys: string[]) => {
      const values = await Promise.all(keys.map((key) => client.getBuffer(key) as Promise<Buffer>));
      const flipped = Buffer.from(values[0]!);
      flipped[flipped.length - 100]! ^= 4;
      await client.set(keys[0]!, flipped);
      await client.set(keys[1]!, values[1]!.subarray(0, -1));
      await client.set(keys[2]!, values[3] ?? values[0]!); // right, and of something else
    };
    await spoil((await client.keys("*:state:*:l")).sort());
    await spoil(await client.keys("*:state:object:*"));
    for (const key of await client.keys("*:marker:*")) {
      if (key.endsWith(":0")) await client.multi().del(key).rpush(key, "no marker").exec();
    }
    for (const key of await client.keys("*:used")) await client.set(key, "no set");
    for (const key of await client.keys("*:total")) await client.set(key, "no number");
    for (const key of await client.keys("*:response:all")) await client.multi().del(key).set(key, "x").exec();
    for (const prompt of prompts) {
      expect((await second.complete(prompt)).text).toBe((await plain.complete(prompt)).text);
    }
    await second.written();
    const third = await replica(url);
    for (const prompt of prompts) expect((await third.complete(prompt)).cached).toBe(tokensOf(prompt));
    const { answer } = await second.post("/v1/responses", { input: "x", max_output_tokens: 3 });
    expect((await third.ask("GET", `/v1/responses/${answer.id}`)).status).toBe(200);
    for (const id of ids) expect((await second.ask("GET", `/v1/states/${id}`)).status).toBe(404);
    expect(await second.metric("rwkv_state_store_up")).toBe(1);
    expect(
      await second.metric('rwkv_state_store_operations_total{operation="object",outcome="damaged"}'),
    ).toBeGreaterThan(0);
  });

  /** What another program may have put where a value of another type, or shape, is looked for. */
  const strangers: Readonly<Record<string, (client: Redis, key: string) => Promise<unknown>>> = {
    text: (client, key) => client.set(key, "x"),
    number: (client, key) => client.set(key, "1.5"),
    "not a number": (client, key) => client.set(key, "nan"),
    "more than any state": (client, key) => client.setrange(key, 1_000_000, "x"),
    list: (client, key) => client.rpush(key, "x"),
    hash: (client, key) => client.hset(key, "x", "y"),
    set: (client, key) => client.sadd(key, "x"),
    "sorted set": (client, key) => client.zadd(key, 1, "x", 2, "y:z|w", 3, "|99999999999999999999", 4, "a:b:c|3"),
    stream: (client, key) => client.xadd(key, "*", "x", "y"),
  };
  test.each(Object.keys(strangers))(
    "whose keys hold something else, %s, costs no answer and is healed",
    async (kind) => {
      const { url } = await redisServer();
      const [first, second, plain] = [await replica(url), await replica(url), await replica(undefined)];
      const prompt = long("a wolf");
      const expected = (await plain.complete(prompt)).text;
      await first.complete(prompt);
      await first.written();
      const { answer: state } = await first.post("/v1/states", { prompt: "x" });
      const { answer: response } = await first.post("/v1/responses", { input: "x", max_output_tokens: 3 });
      expect(response.store).toBe(true);
      const client = await connected(url);
      const keys = await client.keys("*");
      const whole = keys.find((key) => key.includes(`:${tokensOf(prompt)}:l`)) ?? "";
      for (const key of [...keys, whole.replace(":state:", ":claim:")]) {
        await client.unlink(key);
        await strangers[kind]!(client, key);
      }
      expect(await second.complete(prompt)).toEqual({ text: expected, cached: 0 });
      expect(await second.ask("GET", "/v1/states")).toMatchObject({ status: 200, answer: { data: [] } });
      for (const path of [`/v1/states/${state.id}`, `/v1/responses/${response.id}`]) {
        expect((await second.ask("GET", path)).status).toBe(404);
      }
      // All works again, for all.
      await second.written();
      const { answer: made } = await second.post("/v1/states", { prompt: "x" });
      expect((await first.ask("GET", "/v1/states")).answer.data).toMatchObject([{ id: made.id }]);
      const { answer: kept } = await second.post("/v1/responses", { input: "x", max_output_tokens: 3 });
      expect((await first.ask("GET", `/v1/responses/${kept.id}`)).answer.store).toBe(true);
      expect(await first.complete(prompt)).toEqual({ text: expected, cached: tokensOf(prompt) });
      expect((await first.ask("DELETE", `/v1/states/${made.id}`)).status).toBe(200);
      const damaged = async (operation: string) =>
        second.metric(`rwkv_state_store_operations_total{operation="${operation}",outcome="damaged"}`);
      expect(await damaged("object")).toBeGreaterThan(0);
      expect(await second.metric("rwkv_state_store_up")).toBe(1);
      expect(await second.metric("rwkv_state_store_breaks_total")).toBe(0);
    },
  );

  test("some of which is spoiled gives what is whole", async () => {
    const { url } = await redisServer();
    const server = await replica(url);
    const ids: string[] = [];
    for (const prompt of ["1", "2", "3"]) ids.push((await server.post("/v1/states", { prompt })).answer.id);
    const client = await connected(url);
    const prompt = long("a wolf");
    const { text } = await server.complete(prompt);
    await server.written();
    const [whole = ""] = await client.keys(`*:${tokensOf(prompt)}:l`);
    await client.unlink(whole);
    await client.rpush(whole, "x");
    const again = await server.complete(prompt);
    expect([again.text, again.cached < tokensOf(prompt)]).toEqual([text, true]);
    const [index = ""] = await client.keys("*:own:*");
    await client.zadd(index, 0, "x", 0, "y:z|w", 0, "x:state_0|1");
    const spoiled = (await client.keys(`*:object:*${ids[1]}`))[0] ?? "";
    await client.unlink(spoiled);
    await client.rpush(spoiled, "x");
    const { status, answer } = await server.ask("GET", "/v1/states");
    expect([status, answer.data.map(({ id }: { id: string }) => id)]).toEqual([200, [ids[0], ids[2]]]);
    for (const operation of ["find", "object"]) {
      const damaged = `rwkv_state_store_operations_total{operation="${operation}",outcome="damaged"}`;
      expect(await server.metric(damaged)).toBeGreaterThan(0);
    }
    expect(await server.metric("rwkv_state_store_breaks_total")).toBe(0);
    expect((await server.post("/v1/states", { prompt: "4" })).status).toBe(200);
  });

  test("that goes away within an answer costs no request its own", async () => {
    const redis = await redisServer();
    const prompt = long("a wolf");
    const seeding = await replica(redis.url);
    const { text } = await seeding.complete(prompt);
    await seeding.written();
    await seeding.post("/v1/states", { prompt: "x" });
    let [word, ended] = ["", 0];
    const proxy = createServer((socket) => {
      const to = connect(redis.port, "127.0.0.1");
      for (const one of [socket, to]) one.on("error", () => {});
      to.pipe(socket);
      socket.on("data", (bytes) => {
        if (word === "" || !bytes.toString("latin1").includes(word)) return void to.write(bytes);
        word = "";
        ended++;
        socket.destroy();
      });
      socket.on("close", () => to.destroy());
    }).listen(0, "127.0.0.1");
    onTestFinished(() => void proxy.close());
    await once(proxy, "listening");
    const { port } = proxy.address() as { port: number };
    const server = await replica(`redis://127.0.0.1:${port}`);
    word = "strlen"; // of states that may be there
    expect(await server.complete(prompt)).toEqual({ text, cached: 0 });
    await server.isUp(1);
    word = "getrange"; // of the heads of a list
    expect((await server.ask("GET", "/v1/states")).status).toBe(503);
    expect(ended).toBe(2);
    await server.isUp(1);
    expect((await server.ask("GET", "/v1/states")).answer.data).toHaveLength(1);
  });

  test("with a password is told apart from one that is away", async () => {
    const { url, port } = await redisServer("--requirepass", "secret");
    await expect(openStateStore(model, url)).rejects.toThrow(`redis://127.0.0.1:${port}: `);
    await expect(openStateStore(model, `redis://:wrong@127.0.0.1:${port}`)).rejects.toThrow(RwkvError);
    await expect(openStateStore(model, `redis://:secret@127.0.0.1:${port}/99`)).rejects.toThrow("DB index");
    const server = await replica(`redis://:secret@127.0.0.1:${port}`);
    expect(await server.metric("rwkv_state_store_up")).toBe(1);
    expect(server.warnings).toEqual([]);
  });

  test("keeps states in float16, which are half as large", async () => {
    const { url } = await redisServer();
    const prompt = long("a wolf");
    const sizes: number[] = [];
    const client = await connected(url);
    for (const type of ["f32", "f16"] as const) {
      const server = await replica(url, { store: { type } });
      await server.complete(prompt);
      await server.written();
      expect((await server.complete(prompt)).cached).toBe(tokensOf(prompt));
      const [key = ""] = await client.keys("*:state:*:l");
      sizes.push(await client.strlen(key));
      await server.app.close();
      await client.flushall();
    }
    expect(sizes[0]! - sizes[1]!).toBe(model.info.stateBytes / 2);
  });
});

test("what says that it is Redis and is not does no harm", async () => {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.on("data", () => socket.write("HTTP/1.1 400 Bad Request\r\n\r\n"));
  }).listen(0, "127.0.0.1");
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as { port: number };
  const one = await replica(`redis://127.0.0.1:${port}`);
  expect(one.warnings).toHaveLength(1);
  expect((await one.complete(long("a wolf"))).text).not.toBe("");
});

test.each([":1\r\n", "+OK\r\n", "$-1\r\n", "*0\r\n", "*1\r\n*1\r\n$1\r\nx\r\n", "$1\r\nx\r\n"])(
  "what speaks as Redis does and answers all with %j costs no request its answer",
  async (answer) => {
    const sockets = new Set<Socket>();
    const server = createServer((socket) => {
      sockets.add(socket);
      socket.on("error", () => {});
      // A command is an array of texts: *n is the first thing in each.
      socket.on("data", (bytes) => {
        for (const _ of bytes.toString("latin1").matchAll(/(^|\n)\*\d+\r\n\$/g)) socket.write(answer);
      });
    }).listen(0, "127.0.0.1");
    onTestFinished(() => {
      for (const socket of sockets) socket.destroy();
      server.close();
    });
    await once(server, "listening");
    const { port } = server.address() as { port: number };
    const [one, plain] = [
      await replica(`redis://127.0.0.1:${port}`, { store: { milliseconds: 500 } }),
      await replica(undefined),
    ];
    const prompt = long("a wolf");
    for (let i = 0; i < 2; i++) {
      expect(await one.complete(prompt)).toEqual({ text: (await plain.complete(prompt)).text, cached: 0 });
    }
    expect((await one.post("/v1/responses", { input: "x", max_output_tokens: 3 })).status).toBe(200);
    expect((await one.ask("GET", "/v1/states")).status).not.toBe(500);
    expect((await one.post("/v1/states", { prompt: "x" })).status).not.toBe(500);
    for (const method of ["GET", "DELETE"]) {
      const { status } = await one.ask(method, `/v1/states/state_${"0".repeat(32)}`);
      expect(status).not.toBe(500);
    }
  },
);

test("addresses and options that are wrong are told, without a password", async () => {
  for (const url of [
    "",
    "localhost:6379",
    "http://x",
    "redis://",
    "redis://:secret@/x",
    "redis://h/name",
    5 as never,
  ]) {
    const error: Error = await openStateStore(model, url).catch((reason) => reason);
    expect(error.message).toContain("option url: expected the address of a Redis");
    expect(error.message).not.toContain("secret");
  }
  await expect(openStateStore(model, "redis://h", { bytes: 0 })).rejects.toThrow("option bytes");
  await expect(openStateStore(model, "redis://h", { seconds: 0.5 })).rejects.toThrow("option seconds");
  await expect(openStateStore(model, "redis://h", { milliseconds: 0 })).rejects.toThrow("option milliseconds");
  await expect(openStateStore(model, "redis://h", { type: "f8" as never })).rejects.toThrow("option type");
});

test("a state in float16 is the state, rounded, or is none where float16 cannot hold it", async () => {
  const session = model.session();
  await session.read(long("a wolf"), { keepLogits: true });
  const saved = await session.save();
  await session.dispose();
  const half = toHalfState(saved) as Uint8Array;
  const again = fromHalfState(half);
  expect(fromHalfState(saved)).toBe(saved);
  const [state, rounded] = [model.createState(saved), model.createState(again)];
  const [before, after] = [await state.values(), await rounded.values()];
  expect(maxDifference(before, after)).toBeLessThan(Math.max(...before.map(Math.abs)) * 2 ** -10);
  expect(maxDifference(before, after)).toBeGreaterThan(0);
  expect(model.snapshot(again).logits).toEqual(model.snapshot(saved).logits);
  await Promise.all([state.dispose(), rounded.dispose()]);
  for (const at of [0, 20, 100, half.length - 50, half.length - 1]) {
    const changed = half.slice();
    changed[at]! ^= 1;
    expect(() => fromHalfState(changed)).toThrow("float16");
    expect(() => fromHalfState(half.subarray(0, at))).toThrow("float16");
  }
  const large = saved.slice();
  new DataView(large.buffer).setFloat32(36, 70_000, true);
  expect(toHalfState(large)).toBeUndefined();
});

test("a state is read where it lies, and copied where its floats cannot be", async () => {
  const session = model.session();
  await session.read(long("a wolf"), { keepLogits: true });
  const snapshot = await session.snapshot();
  await session.dispose();
  const codec = new StateCodec(model, "f32");
  const value = codec.encode({ scope: "x" }, new Uint8Array(5), snapshot);
  for (const shift of [0, 1, 2, 3]) {
    const bytes = new Uint8Array(value.length + shift).subarray(shift);
    bytes.set(value);
    const { head, state } = decodeKept(bytes) as Kept;
    expect(head).toEqual({ scope: "x" });
    const found = codec.decode(state) as Snapshot;
    expect(found.save()).toEqual(snapshot.save());
    expect(found.logits).toEqual(snapshot.logits);
    // What clients give is theirs to change.
    const copied = model.snapshot(state);
    state.fill(1, 40, 44);
    expect(copied.save()).toEqual(snapshot.save());
    if (shift > 0) expect(found.save()).toEqual(snapshot.save());
    else expect(found.save()).not.toEqual(snapshot.save());
  }
});
