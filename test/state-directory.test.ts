// States that outlive a server, in a folder: what is found again, by whom, and what becomes of it when files are damaged or a process is
// killed.

import { readdir, readFile, rename, stat, truncate, utimes, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import fc from "fast-check";
import { type LoadOptions, load, type Model, RwkvError, type WritableTensor, writePth } from "rwkv";
import { createApp, openStateDirectory } from "rwkv/server";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { readKeptFile, writeKeptFile } from "#rwkv/server/storage/kept-file";
import { TokenChain } from "#rwkv/server/token-chain";
import { temporaryFolder } from "./fixture-files.js";
import { longPrompt as long, sampling } from "./kept-prompts.js";
import { runScript } from "./node-process.js";

let model: Model;
beforeAll(async () => {
  model = await load(undefined, { threads: 1 });
});
afterAll(() => model.dispose());

/** An application whose states are in a folder, without a server. */
async function opened(folder: string | undefined, { of = model, bytes = 2 ** 30 } = {}) {
  const storage = folder === undefined ? {} : { storage: await openStateDirectory(of, folder, { bytes }) };
  const app = createApp(of, { name: "tales", stateCacheBytes: 0, ...storage });
  const ask = async (path: string, body?: unknown) => {
    const response = await app.fetch(
      new Request(`http://x${path}`, {
        method: body === undefined ? "GET" : "POST",
        headers: { "Content-Type": "application/json" },
        ...(body !== undefined && { body: JSON.stringify(body) }),
      }),
    );
    return { status: response.status, answer: await response.json() };
  };
  return {
    app,
    ask,
    complete: async (prompt: string) => {
      const { answer } = await ask("/v1/completions", { ...sampling, prompt });
      return { text: answer.choices[0].text, cached: answer.usage.prompt_tokens_details.cached_tokens };
    },
    close: () => app.close(1000),
  };
}

/** The files in a folder with states, with their places. */
async function filesIn(folder: string): Promise<string[]> {
  const all = await Promise.all(
    ["prefixes", "objects"].map(async (part) =>
      (await readdir(join(folder, part))).map((name) => join(folder, part, name)),
    ),
  );
  return all.flat();
}

describe("a server that is started again", () => {
  test("reads no prompt that it has read before, and answers the same to the bit", async () => {
    const folder = await temporaryFolder();
    const prompts = ["a wolf", "a fox", "a hen"].map(long);
    const first = await opened(folder);
    const before = await Promise.all(prompts.map(first.complete));
    await first.close();
    const second = await opened(folder);
    const after = await Promise.all(prompts.map(second.complete));
    const plain = await opened(undefined);
    for (const [i, prompt] of prompts.entries()) {
      expect(before[i]!.cached).toBe(0);
      expect(after[i]!.cached).toBe(model.tokenizer.encode(prompt).length);
      expect(after[i]!.text).toBe((await plain.complete(prompt)).text);
    }
    const longer = await second.complete(`${prompts[0]} and another`);
    expect(longer.cached).toBe(after[0]!.cached);
    await Promise.all([second.close(), plain.close()]);
  });

  test("has the states and responses of its clients", async () => {
    const folder = await temporaryFolder();
    const first = await opened(folder);
    const { answer: state } = await first.ask("/v1/states", { prompt: long("a wolf"), name: "wolf" });
    const { answer: gone } = await first.ask("/v1/states", { prompt: "short-lived", ttl_seconds: 1 });
    const response = (await first.ask("/v1/responses", { input: "Who?", max_output_tokens: 9, seed: 1 })).answer;
    const next = { input: "And then?", previous_response_id: response.id, max_output_tokens: 9, seed: 2 };
    const expected = (await first.ask("/v1/responses", next)).answer;
    await first.close();
    const second = await opened(folder);
    expect((await second.ask("/v1/states")).answer.data.map(({ id }: { id: string }) => id)).toContain(state.id);
    expect((await second.ask(`/v1/states/${state.id}`)).answer).toMatchObject({ name: "wolf", tokens: state.tokens });
    expect((await second.ask(`/v1/responses/${response.id}`)).answer).toEqual(response);
    const found = (await second.ask("/v1/responses", next)).answer;
    expect(found.output[0].content).toEqual(expected.output[0].content);
    const { answer } = await second.ask("/v1/completions", { ...sampling, prompt: "", state: state.id });
    const plain = await opened(undefined);
    expect(answer.choices[0].text).toBe((await plain.complete(long("a wolf"))).text);
    const listed = async () => (await second.ask("/v1/states")).answer.data.map(({ id }: { id: string }) => id);
    await expect.poll(listed).not.toContain(gone.id);
    await Promise.all([second.close(), plain.close()]);
  });
});

test("what is another model's is not found: of another type, or with an adapter", async () => {
  const folder = await temporaryFolder();
  const first = await opened(folder);
  await first.complete(long("a wolf"));
  const { answer: state } = await first.ask("/v1/states", { prompt: "mine" });
  await first.close();
  const floats = (name: string, shape: number[]): WritableTensor => {
    const content = new Float32Array(model.info.width).fill(0.01);
    return { name, dtype: "f32", shape, bytes: () => [new Uint8Array(content.buffer)] };
  };
  const lora = join(folder, "lora.pth");
  const { width } = model.info;
  const module = "blocks.0.att.receptance";
  await writePth(lora, [floats(`${module}.lora_A`, [1, width]), floats(`${module}.lora_B`, [width, 1])]);
  const others: LoadOptions[] = [{ dtype: "q8" }, { lora: { source: lora, strength: 1 } }];
  for (const options of others) {
    const of = await load(undefined, { threads: 1, onWarning() {}, ...options });
    const other = await opened(folder, { of });
    expect((await other.complete(long("a wolf"))).cached).toBe(0);
    expect((await other.ask("/v1/states")).answer.data).toEqual([]);
    expect((await other.ask(`/v1/states/${state.id}`)).status).toBe(404);
    await other.close();
    await of.dispose();
  }
  const again = await opened(folder);
  expect((await again.complete(long("a wolf"))).cached).toBeGreaterThan(0);
  expect((await again.ask(`/v1/states/${state.id}`)).status).toBe(200);
  await again.close();
});

test("files that are damaged, or not what their names say, are not used and removed; others are left alone", async () => {
  const folder = await temporaryFolder();
  const prompts = ["A wolf", "The fox", "My hen", "Her cat", "One owl"].map((what) => `${what}: ${long(what)}`);
  const first = await opened(folder);
  for (const prompt of prompts) await first.complete(prompt);
  const ids: string[] = [];
  for (const prompt of prompts) ids.push((await first.ask("/v1/states", { prompt })).answer.id);
  await first.close();
  const [flipped, cut, swapped, , kept] = ids as [string, string, string, string, string];
  const files = await filesIn(folder);
  const prefixes = files.filter((path) => path.includes("prefixes")).sort();
  const objectOf = (id: string) => files.find((path) => path.includes(id)) as string;
  const flip = async (path: string) => {
    const bytes = await readFile(path);
    bytes[bytes.length - 100]! ^= 4;
    await writeFile(path, bytes);
  };
  await flip(objectOf(flipped));
  await truncate(objectOf(cut), 100);
  await writeFile(objectOf(swapped), await readFile(objectOf(kept)));
  await flip(prefixes[0]!);
  await truncate(prefixes[1]!, (await stat(prefixes[1]!)).size - 1);
  await rename(prefixes[2]!, join(folder, "other"));
  await rename(prefixes[3]!, prefixes[2]!);
  await writeFile(prefixes[3]!, "");
  await writeFile(join(folder, "prefixes", "notes.txt"), "mine");
  await writeFile(join(folder, "objects", "x.part"), "mine");

  const second = await opened(folder);
  const plain = await opened(undefined);
  let cached = 0;
  for (const prompt of prompts) {
    const found = await second.complete(prompt);
    if (found.cached > 0) cached++;
    expect(found.text).toBe((await plain.complete(prompt)).text);
  }
  expect(cached).toBe(1);
  const status = async (id: string) => (await second.ask(`/v1/states/${id}`)).status;
  expect(await Promise.all([flipped, cut, swapped, kept].map(status))).toEqual([404, 404, 404, 200]);
  await Promise.all([second.close(), plain.close()]);
  const left = (await filesIn(folder)).map((path) => basename(path));
  expect(left).toEqual(expect.arrayContaining(["notes.txt", "x.part"]));
  for (const id of [flipped, cut, swapped]) expect(left.some((name) => name.includes(id))).toBe(false);
  for (const path of (await filesIn(folder)).filter((name) => name.endsWith(".kept"))) {
    expect(await readKeptFile(path)).toBeDefined();
  }
});

test("no change of a file goes unseen", async () => {
  const path = join(await temporaryFolder(), "x.kept");
  const session = model.session();
  await session.read("Once");
  const state = await session.save();
  await session.dispose();
  await writeKeptFile(path, { head: { a: [1, "b"] }, body: Uint8Array.of(1, 2, 3), state });
  const whole = await readFile(path);
  const read = async (bytes: Uint8Array) => {
    await writeFile(path, bytes);
    const file = await readKeptFile(path);
    if (!file) return undefined;
    try {
      return model.snapshot(file.state);
    } catch {
      return undefined;
    }
  };
  expect((await read(whole))?.position).toBe(session.position);
  const change = fc.record({ at: fc.nat(whole.length - 1), by: fc.integer({ min: 1, max: 255 }) });
  await fc.assert(
    fc.asyncProperty(change, async ({ at, by }) => {
      const changed = Uint8Array.from(whole);
      changed[at]! ^= by;
      expect(await read(changed)).toBeUndefined();
    }),
    { numRuns: 150 },
  );
  await fc.assert(
    fc.asyncProperty(fc.nat(whole.length - 1), async (length) => {
      expect(await read(whole.subarray(0, length))).toBeUndefined();
    }),
    { numRuns: 50 },
  );
});

test("a folder takes no more than it may, and the least recently used go", async () => {
  const folder = await temporaryFolder();
  const session = model.session();
  await session.read("x", { keepLogits: true });
  const snapshot = await session.snapshot();
  await session.dispose();
  const chainOf = (first: number) =>
    new TokenChain(
      "",
      Int32Array.from({ length: 40 }, (_, i) => (i === 0 ? first : 1)),
    );
  const bytes = 5 * (snapshot.bytes + 1000);
  const found = async (storage: Awaited<ReturnType<typeof openStateDirectory>>, first: number) =>
    (await storage.prefixes.find(chainOf(first), 0, new AbortController().signal)) !== undefined;
  const storage = await openStateDirectory(model, folder, { bytes });
  for (let i = 0; i < 5; i++) storage.prefixes.store(chainOf(i), 40, snapshot);
  await storage.close();
  expect(await found(storage, 0)).toBe(true);
  for (let i = 5; i < 8; i++) storage.prefixes.store(chainOf(i), 40, snapshot);
  await storage.close();
  const which = async (one: typeof storage) => {
    const all = [];
    for (let i = 0; i < 8; i++) if (await found(one, i)) all.push(i);
    return all;
  };
  expect(await which(storage)).toEqual([0, 4, 5, 6, 7]);
  const sizes = await Promise.all((await filesIn(folder)).map(async (path) => (await stat(path)).size));
  expect(sizes.reduce((sum, size) => sum + size, 0)).toBeLessThanOrEqual(bytes);
  expect(storage.bytes).toBeLessThanOrEqual(bytes);
  const smaller = await openStateDirectory(model, folder, { bytes: bytes / 2 });
  expect((await which(smaller)).length).toBe(2);
});

test("a process that is killed at any moment leaves nothing that is used wrongly", async () => {
  const folder = await temporaryFolder();
  const writing = (milliseconds: number) => `
    const { load } = await import(new URL("index.js", dist));
    const { createApp, openStateDirectory } = await import(new URL("server/index.js", dist));
    const model = await load(undefined, { threads: 1 });
    const storage = await openStateDirectory(model, ${JSON.stringify(folder)});
    const app = createApp(model, { name: "tales", storage });
    const post = (path, body) => app.fetch(new Request("http://x" + path, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) })).then((r) => r.text());
    setTimeout(() => console.log("ready"), ${milliseconds});
    for (let i = 0; ; i = (i + 1) % 40) {
      const prompt = ${JSON.stringify(long("number "))} + i;
      await Promise.all([
        post("/v1/completions", { prompt, max_tokens: 1 }),
        post("/v1/states", { prompt, ttl_seconds: 1000 }),
        post("/v1/responses", { input: prompt, max_output_tokens: 1 }),
      ]);
    }`;
  let used = 0;
  for (const milliseconds of [40, 111, 190]) {
    expect((await runScript(writing(milliseconds), { signal: "SIGKILL" })).signal).toBe("SIGKILL");
    for (const path of (await filesIn(folder)).filter((name) => name.endsWith(".kept"))) {
      const file = await readKeptFile(path);
      expect(file).toBeDefined();
      model.snapshot(file!.state); // or it throws
    }
    const one = await opened(folder);
    const plain = await opened(undefined);
    for (let i = 0; i < 4; i++) {
      const prompt = long(`number ${i}`);
      const found = await one.complete(prompt);
      if (found.cached > 0) used++;
      expect(found.text).toBe((await plain.complete(prompt)).text);
    }
    for (const { id } of (await one.ask("/v1/states")).answer.data) {
      expect((await one.ask("/v1/completions", { prompt: "", state: id, max_tokens: 1 })).status).toBe(200);
    }
    await Promise.all([one.close(), plain.close()]);
    expect((await filesIn(folder)).filter((path) => path.endsWith(".part"))).toEqual([]);
  }
  expect(used).toBeGreaterThan(3);
});

test("servers that share a folder leave each other's unfinished files alone, and remove those of killed ones", async () => {
  const folder = await temporaryFolder();
  await openStateDirectory(model, folder);
  /** Begins to write a file, and ends it when there is another named `go`; or never. */
  const writing = (name: string, go: string) => `
    import { existsSync } from "node:fs";
    const { writeFileAtomically } = await import(new URL("platform/node/file-writer.js", dist));
    await writeFileAtomically(${JSON.stringify(join(folder, "objects", name))}, async (file) => {
      await file.append(new Uint8Array(10));
      console.log("ready");
      while (!existsSync(${JSON.stringify(join(folder, go))})) await new Promise((resolve) => setTimeout(resolve, 10));
    });`;
  const parts = async () => (await readdir(join(folder, "objects"))).filter((name) => name.endsWith(".part"));
  const live = runScript(writing("live.kept", "go"));
  await expect.poll(parts).toHaveLength(1);
  expect((await runScript(writing("killed.kept", "never"), { signal: "SIGKILL" })).signal).toBe("SIGKILL");
  const [host = ""] = /[0-9a-f]{8}(?=-\d+-[0-9a-f]{12}\.part$)/.exec((await parts())[0]!) ?? [];
  // Of another machine, where process 1 may be anything; of a process of this id that ran before this one.
  const other = `other.kept.${host === "00000000" ? "1" : "0"}0000000-1-0123456789ab.part`;
  const [recent, old, before] = [other, other.replace("-1-", "-2-"), `b.kept.${host}-${process.pid}-0123456789ab.part`];
  for (const name of [recent, old, before]) await writeFile(join(folder, "objects", name), "");
  const longAgo = Date.now() / 1000 - 2 * 60 * 60;
  for (const name of [old, before]) await utimes(join(folder, "objects", name), longAgo, longAgo);
  expect(await parts()).toHaveLength(5);
  await openStateDirectory(model, folder);
  expect(await parts()).toEqual([expect.stringMatching(/^live\.kept/), recent]);
  await writeFile(join(folder, "go"), "");
  expect(await live).toMatchObject({ code: 0, errors: "" });
  expect((await stat(join(folder, "objects", "live.kept"))).size).toBe(10);
});

test("a server that others open the folder of stores all that it is given", async () => {
  const folder = await temporaryFolder();
  const stop = join(folder, "stop");
  const storing = runScript(`
    import { existsSync } from "node:fs";
    const { load } = await import(new URL("index.js", dist));
    const { createApp, openStateDirectory } = await import(new URL("server/index.js", dist));
    const model = await load(undefined, { threads: 1 });
    const storage = await openStateDirectory(model, ${JSON.stringify(folder)});
    const app = createApp(model, { storage });
    const post = (path, body) => app.fetch(new Request("http://x" + path, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) }));
    const statuses = {};
    while (!existsSync(${JSON.stringify(stop)})) {
      const response = await post("/v1/states", { prompt: "Once", ttl_seconds: 1 });
      await response.text();
      statuses[response.status] = (statuses[response.status] ?? 0) + 1;
    }
    await app.close();
    console.log(JSON.stringify(Object.keys(statuses)));
  `);
  await expect
    .poll(
      () =>
        filesIn(folder).then(
          (all) => all.length,
          () => 0,
        ),
      { timeout: 20_000 },
    )
    .toBeGreaterThan(0);
  for (let i = 0; i < 15; i++) await openStateDirectory(model, folder);
  await writeFile(stop, "");
  expect(await storing).toMatchObject({ code: 0, output: '["200"]\n' });
});

test("a folder that cannot be used is told", async () => {
  const path = join(await temporaryFolder(), "file");
  await writeFile(path, "");
  await expect(openStateDirectory(model, path)).rejects.toThrow(RwkvError);
  await expect(openStateDirectory(model, path)).rejects.toThrow(`${path}: cannot be used as a folder for states`);
  await expect(openStateDirectory(model, path, { bytes: -1 })).rejects.toThrow("option bytes");
  await expect(openStateDirectory(model, "")).rejects.toThrow("option path");
  const notYet = openStateDirectory(model, await temporaryFolder());
  expect(() => createApp(model, { storage: notYet as never })).toThrow("option storage");
  await notYet;
});
