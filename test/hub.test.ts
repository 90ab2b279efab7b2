// Models by name, against a hub on this machine (hub-server.ts): names, the cache that Python's huggingface_hub shares, downloads that are cut,
// refused, changed, wrong, killed, or done twice at once.

import { spawn } from "node:child_process";
import { createHash, randomFillSync } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { cp, lstat, mkdir, readdir, readFile, readlink, rm, symlink, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import {
  chatFormatFor,
  downloadModel,
  knownModels,
  load,
  modelUrl,
  removeStoredModel,
  storedModels,
  storeModel,
} from "rwkv";
import { beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { modelFiles } from "#rwkv/hub/model-files";
import { isSafePath, parseModelName } from "#rwkv/hub/model-name";
import { program, rwkv } from "./command.js";
import { fixture, maxDifference, readFloats, readJson, temporaryFolder } from "./fixture-files.js";
import { freshHome, hubWith } from "./hub-home.js";
import { etagOf, type HubServer, repository, startHub } from "./hub-server.js";

const odd = readFileSync(fixture("odd.pth"));
const { tokens } = readJson<{ tokens: number[] }>(fixture("tokens.json"));
/** Some chunks of a MiB, the last of them a part. */
const big = randomFillSync(new Uint8Array(5_500_000));
const oddName = `hf:${repository}/odd.pth`;
const bigName = `hf:${repository}/big.pth`;

let home: string;
beforeEach(async () => {
  home = await freshHome();
});

const cacheOf = (repo = repository) => join(home, "hub", `models--${repo.replace("/", "--")}`);
const blobs = async () => (await readdir(join(cacheOf(), "blobs"))).sort();
const sameBytes = async (path: unknown, bytes: Uint8Array) =>
  expect(Buffer.compare(await readFile(path as string), bytes)).toBe(0);

test("where a name is read from can be asked; files of the user are for pages to keep", async () => {
  const hub = await hubWith({ "odd.pth": odd });
  expect(await modelUrl(oddName)).toBe(`${hub.endpoint}/${repository}/resolve/main/odd.pth`);
  expect(await modelUrl(`hf:${repository}`)).toBe(`${hub.endpoint}/${repository}/resolve/main/odd.pth`);
  await expect(modelUrl("none.pth")).rejects.toThrow("the name of a model on the hub");
  await expect(storeModel([new File([odd], "odd.pth")])).rejects.toThrow("Node reads files where they are");
  await expect(load("local:odd.pth")).rejects.toThrow(`local:odd.pth: not in ${join(home, "hub")}`);
  expect(await removeStoredModel("local:odd.pth")).toBeUndefined();
});

describe("names", () => {
  const endpoint = "https://huggingface.co";
  const parsed = (text: string) => {
    const { repository, revision, file, quantization } = parseModelName(text, endpoint) ?? {};
    return [repository, revision, file, quantization];
  };

  test.each([
    ["hf:a/b/c.pth", "a/b", "main", "c.pth", undefined],
    ["hf://a/b/c/d.gguf", "a/b", "main", "c/d.gguf", undefined],
    ["hf:a/b@v1/c.pth", "a/b", "v1", "c.pth", undefined],
    ["hf:a/b:Q4_K_M", "a/b", "main", undefined, "Q4_K_M"],
    ["hf:a/b@dev:Q8_0", "a/b", "dev", undefined, "Q8_0"],
    ["hf:a/b", "a/b", "main", undefined, undefined],
    ["hf:a/b/folder", "a/b", "main", "folder", undefined],
    ["a/b/c.pth", "a/b", "main", "c.pth", undefined],
    [
      "BlinkDL/rwkv-4-raven/RWKV-4-Raven-1B5-v12-Eng99%-Other1%.pth",
      "BlinkDL/rwkv-4-raven",
      "main",
      "RWKV-4-Raven-1B5-v12-Eng99%-Other1%.pth",
      undefined,
    ],
    ["https://huggingface.co/a/b/resolve/main/c.pth", "a/b", "main", "c.pth", undefined],
    ["https://huggingface.co/a/b/blob/refs%2Fpr%2F1/x/c%20d.pth", "a/b", "refs/pr/1", "x/c d.pth", undefined],
    ["RWKV7-G1-0.4B", "BlinkDL/rwkv7-g1", "main", "rwkv7-g1d-0.4b-20260210-ctx8192.pth", undefined],
  ])("%s", (text, ...expected) => expect(parsed(text)).toEqual(expected));

  test.each([
    "model.pth",
    "./a/b/c.pth",
    "../a/b.pth",
    "/a/b/c.pth",
    "~/a/b.pth",
    "a/b",
    "a/b/c.txt",
    "a/../c.pth",
    "C:\\a\\b.pth",
    "https://elsewhere.org/a/b/resolve/main/c.pth",
    "https://huggingface.co/a/b/resolve/main/..%2f..%2fc.pth",
    "https://huggingface.co/a/b",
    "",
  ])("%s is none", (text) => expect(parseModelName(text, endpoint)).toBeUndefined());

  test.each([
    "hf:",
    "hf:a",
    "hf:a/..",
    "hf:a/b@/c.pth",
    "hf:a/b/../c.pth",
    "hf:a/b@../c.pth",
    "hf:a/b\\c/d.pth",
    "hf:a/b/\0.pth",
  ])("%j is an error that says what was expected", (text) =>
    expect(() => parseModelName(text, endpoint)).toThrow("expected hf:owner/repo/file"),
  );

  test("a path leads nowhere else", () => {
    expect(["a", "a/b.c", "a b/ü.pth"].every(isSafePath)).toBe(true);
    expect(["", "/a", "a/", "a//b", ".", "a/..", "a\\b", "C:/a", "a\0"].some(isSafePath)).toBe(false);
  });

  test("the table of official models: names are unique, and formats are those that the files' names tell", () => {
    expect(new Set(knownModels.map(({ name }) => name)).size).toBe(knownModels.length);
    for (const { name, file, format, sha256, repository } of knownModels) {
      expect(name).toMatch(/^[a-z0-9.-]+$/);
      const model = { info: { source: `/x/${file}`, metadata: {} }, tokenizer: { kind: "world" as const } };
      expect(chatFormatFor(model)).toBe(format);
      if (sha256 !== undefined) expect(sha256).toMatch(/^[0-9a-f]{64}$/);
      expect(parseModelName(`hf:${repository}/${file}`, endpoint)?.file).toBe(file);
    }
  });

  const listed = (...files: string[]) => files.map((file) => ({ file, size: 10 }));
  const meant = (text: string, ...files: string[]) =>
    modelFiles(parseModelName(text, endpoint)!, listed(...files)).map(({ file }) => file);

  test("a quantization is found by whole words, and shards belong together", () => {
    const files = [
      "m-Q4_K_M.gguf",
      "m-Q4_K_S.gguf",
      "m-Q4_K_M-better.gguf",
      "s.Q5_K-00001-of-00002.gguf",
      "s.Q5_K-00002-of-00002.gguf",
    ];
    expect(meant("hf:a/b:q4_k_m", ...files)).toEqual(["m-Q4_K_M.gguf"]);
    expect(meant("hf:a/b:Q5_K", ...files)).toEqual(["s.Q5_K-00002-of-00002.gguf", "s.Q5_K-00001-of-00002.gguf"]);
    expect(() => meant("hf:a/b:Q4_K", ...files)).toThrow("no GGUF of this quantization; there are m-Q4_K_M.gguf, ");
    expect(() => meant("hf:a/b:Q8", "x-Q8-a.gguf", "y-Q8-b.gguf")).toThrow("several files are of this quantization");
    expect(() => meant("hf:a/b:Q8", "x.pth")).toThrow("no GGUF files in this repository");
  });

  test("Hugging Face's files come with their config and tokenizer, and an index with its shards", () => {
    const beside = ["config.json", "tokenizer.json", "rwkv_vocab_v20230424.txt", "README.md", "sub/config.json"];
    expect(meant("hf:a/b", ...beside, "model.safetensors")).toEqual([...beside.slice(0, 3), "model.safetensors"]);
    const shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    expect(meant("hf:a/b", ...shards, "model.safetensors.index.json")).toEqual([
      ...shards,
      "model.safetensors.index.json",
    ]);
    expect(meant("hf:a/b/sub", "sub/x.pth", "y.pth")).toEqual(["sub/x.pth"]);
    expect(() => meant("hf:a/b", "x.pth", "y.pth")).toThrow(
      "several models in this repository; name one of them: x.pth, y.pth",
    );
    expect(() => meant("hf:a/b", "README.md")).toThrow("no model (.pth, .safetensors, .gguf) in this repository");
  });
});

describe("downloading", () => {
  test("a model by name is loaded, once downloaded it is asked for by its headers alone, and without the hub it is there", async () => {
    const hub = await hubWith({ "odd.pth": odd });
    const progress: [number, number][] = [];
    const model = await load(oddName, { onProgress: (done, total) => void progress.push([done, total]) });
    const [logits] = await model.forward([{ state: model.createState(), tokens, logits: "all" }]);
    expect(maxDifference(logits!, readFloats(fixture("odd.logits.f32")))).toBeLessThan(2e-5);
    await model.dispose();
    expect(progress.at(-1)).toEqual([odd.length, odd.length]);
    expect(progress.every(([done], i) => i === 0 || done > progress[i - 1]![0])).toBe(true);

    hub.requests.length = 0;
    await (await load(oddName)).dispose();
    expect(hub.requests).toEqual([`hub HEAD /${repository}/resolve/main/odd.pth`]);
    hub.requests.length = 0;
    process.env["HF_HUB_OFFLINE"] = "1";
    await (await load(oddName)).dispose();
    await expect(load(bigName)).rejects.toThrow("and HF_HUB_OFFLINE forbids to download it");
    expect(hub.requests).toEqual([]);
    delete process.env["HF_HUB_OFFLINE"];
    await hub.close();
    const warnings: string[] = [];
    await (await load(oddName, { onWarning: (line) => warnings.push(line) })).dispose();
    expect(warnings[0]).toMatch(/cannot be fetched .*; using what was downloaded before$/);
  });

  test("the cache is laid out as huggingface_hub does it: blobs by etag, refs, snapshots of links", async () => {
    const hub = await hubWith({ "sub/big.pth": big, "small.pth": odd.subarray(0, 1000) });
    const path = await downloadModel(`hf:${repository}/sub/big.pth`);
    await downloadModel(`hf:${repository}@refs/pr/1/small.pth`);
    expect(path).toBe(join(cacheOf(), "snapshots", hub.commit, "sub", "big.pth"));
    expect(await readlink(path as string)).toBe(join("..", "..", "..", "blobs", etagOf(big)));
    expect(await readFile(join(cacheOf(), "refs", "main"), "utf8")).toBe(hub.commit);
    expect(await readFile(join(cacheOf(), "refs", "refs", "pr", "1"), "utf8")).toBe(hub.commit);
    // Of a small file the etag is Git's own name of it.
    const git = createHash("sha1").update("blob 1000\0").update(odd.subarray(0, 1000)).digest("hex");
    expect(await blobs()).toEqual([etagOf(big), git].sort());
    await sameBytes(path, big);
  });

  test("what Python downloaded is taken, and only what is missing is made", async () => {
    const hub = await hubWith({ "big.pth": big });
    const folder = cacheOf();
    await mkdir(join(folder, "blobs"), { recursive: true });
    await mkdir(join(folder, "snapshots", hub.commit), { recursive: true });
    await mkdir(join(folder, "refs"));
    await writeFile(join(folder, "blobs", etagOf(big)), big);
    await downloadModel(bigName); // only the link was missing
    expect(hub.sent()).toBe(0);
    await rm(join(folder, "snapshots"), { recursive: true });
    await mkdir(join(folder, "snapshots", hub.commit), { recursive: true });
    await symlink(join("..", "..", "blobs", etagOf(big)), join(folder, "snapshots", hub.commit, "big.pth"));
    await writeFile(join(folder, "refs", "main"), hub.commit);
    process.env["HF_HUB_OFFLINE"] = "1";
    await sameBytes(await downloadModel(bigName), big);
    expect(hub.sent()).toBe(0);
  });

  test("a branch that moves gets the new file, and keeps what did not change", async () => {
    const hub = await hubWith({ "big.pth": big, "odd.pth": odd });
    await downloadModel(bigName);
    await downloadModel(oddName);
    const [before, sent] = [hub.commit, hub.sent()];
    hub.commit = "f".repeat(40);
    const changed = big.slice();
    changed[77]! ^= 1;
    hub.files.set("big.pth", changed);
    await sameBytes(await downloadModel(bigName), changed);
    await downloadModel(oddName);
    expect(hub.sent()).toBe(sent + changed.length);
    expect(await readFile(join(cacheOf(), "refs", "main"), "utf8")).toBe(hub.commit);
    hub.requests.length = 0;
    await sameBytes(await downloadModel(`hf:${repository}@${before}/big.pth`), big);
    expect(hub.requests).toEqual([]); // a commit does not change
  });

  test("where links are refused, files are copies", async () => {
    process.env["HF_HUB_DISABLE_SYMLINKS"] = "1";
    const hub = await hubWith({ "a.pth": big, "b.pth": big });
    for (const name of ["a", "b", "a"]) {
      const path = (await downloadModel(`hf:${repository}/${name}.pth`)) as string;
      expect((await lstat(path)).isSymbolicLink()).toBe(false);
      await sameBytes(path, big);
    }
    expect(hub.sent()).toBe(2 * big.length);
  });

  test("several requests at once, and each byte is sent once", async () => {
    const hub = await hubWith({ "big.pth": big });
    await downloadModel(bigName);
    expect(hub.sent()).toBe(big.length);
    const ranges = hub.requests.filter((line) => line.startsWith("storage GET"));
    expect(ranges.length).toBeGreaterThan(3);
    // The hub is asked for the way once, not for each part.
    expect(hub.requests.filter((line) => line.startsWith("hub GET"))).toHaveLength(1);
  });

  test("a quantization, a folder, and a repository are found by its list of files", async () => {
    const hub = await hubWith({ "m-Q8_0.gguf": big, "m-Q4_0.gguf": odd, "f/odd.pth": odd });
    expect(basename((await downloadModel(`hf:${repository}:Q4_0`)) as string)).toBe("m-Q4_0.gguf");
    expect(basename((await downloadModel(`hf:${repository}/f`)) as string)).toBe("odd.pth");
    await expect(downloadModel(`hf:${repository}`)).rejects.toThrow("several models in this repository");
    process.env["HF_HUB_OFFLINE"] = "1";
    expect(basename((await downloadModel(`hf:${repository}:Q4_0`)) as string)).toBe("m-Q4_0.gguf");
    expect(hub.leaked).toEqual([]);
  });

  test("a path wins over a name; what was tried is said", async () => {
    await hubWith({ "odd.pth": odd });
    const folder = await temporaryFolder();
    await mkdir(join(folder, repository), { recursive: true });
    await cp(fixture("odd-bf16.pth"), join(folder, repository, "odd.pth"));
    const before = process.cwd();
    process.chdir(folder);
    try {
      const model = await load(`${repository}/odd.pth`);
      expect(model.info.source).toBe(`${repository}/odd.pth`);
      await model.dispose();
      await rm(join(folder, repository), { recursive: true });
      const named = await load(`${repository}/odd.pth`);
      expect(named.info.source).toContain("snapshots");
      await named.dispose();
      await expect(load(`${repository}/none.pth`)).rejects.toThrow(
        `${repository}/none.pth: there is no such path here, and as a name: hf:${repository}/none.pth: no such file in this repository`,
      );
      await expect(load("rwkv7-g1-0.5b")).rejects.toThrow("no model of this name; known are rwkv7-g1-0.1b, ");
      await expect(load("nothing.pth")).rejects.toThrow("nothing.pth: no such file");
    } finally {
      process.chdir(before);
    }
  });

  test("without the cache a model is read from the hub, and nothing is kept", async () => {
    await hubWith({ "odd.pth": odd });
    const model = await load(oddName, { cache: false });
    expect(model.info.source).toMatch(/^http:.*\/resolve\/main\/odd\.pth$/);
    await model.dispose();
    expect(await readdir(home)).toEqual([]);
  });

  test("of a file in two revisions the one that is named is removed, and without one both", async () => {
    const hub = await hubWith({ "a.pth": big });
    const old = `hf:${repository}@refs/pr/1/a.pth`;
    const commits = async () => (await storedModels()).map(({ commit }) => commit).sort();
    await downloadModel(old);
    const before = hub.commit;
    hub.files.set("a.pth", odd);
    hub.commit = "f".repeat(40);
    await downloadModel(`hf:${repository}/a.pth`);
    expect(await commits()).toEqual([before, hub.commit]);
    expect(await removeStoredModel(old)).toBe(big.length);
    expect(await removeStoredModel(old)).toBeUndefined();
    expect(await commits()).toEqual([hub.commit]);
    hub.files.set("a.pth", big);
    hub.commit = before;
    await downloadModel(old);
    expect(await removeStoredModel(`hf:${repository}/a.pth`)).toBe(big.length + odd.length);
  });

  test("what is stored is listed and removed: blobs that others use stay", async () => {
    const hub = await hubWith({ "a.pth": big, "b.pth": big, "c.pth": odd });
    for (const name of ["a", "b", "c"]) await downloadModel(`hf:${repository}/${name}.pth`);
    const all = await storedModels();
    expect(all.map(({ file, bytes, complete }) => [file, bytes, complete])).toEqual([
      ["a.pth", big.length, true],
      ["b.pth", big.length, true],
      ["c.pth", odd.length, true],
    ]);
    expect(all[0]).toMatchObject({ repository, commit: hub.commit, revisions: ["main"] });
    expect(await removeStoredModel(`hf:${repository}/a.pth`)).toBe(0);
    expect(await removeStoredModel(`hf:${repository}/a.pth`)).toBeUndefined();
    expect(await removeStoredModel(`hf:${repository}/b.pth`)).toBe(big.length);
    expect(await removeStoredModel(`hf:${repository}`)).toBe(odd.length);
    expect(await readdir(join(home, "hub"))).toEqual([]);
    await expect(removeStoredModel("../../x")).rejects.toThrow("expected the name of a model");
  });
});

describe("the token", () => {
  test.each(["variable", "file"])("in a %s: it opens the repository, and the storage never sees it", async (where) => {
    const hub = await hubWith({ "big.pth": big });
    hub.token = "hf_verysecret";
    const refused = downloadModel(bigName);
    await expect(refused).rejects.toThrow("no such repository, or one that is not public (status 401); set HF_TOKEN");
    if (where === "variable") process.env["HF_TOKEN"] = hub.token;
    else await writeFile(join(home, "token"), `${hub.token}\n`);
    await sameBytes(await downloadModel(bigName), big);
    expect(hub.requests.some((line) => line.startsWith("storage"))).toBe(true);
    expect(hub.leaked).toEqual([]);
  });

  test("is in no error, nor is the signed URL of the storage", async () => {
    const hub = await hubWith({ "big.pth": big });
    process.env["HF_TOKEN"] = "hf_verysecret";
    hub.onStorage = (_, response) => !!response.writeHead(418).end();
    const error = (await downloadModel(bigName).catch((cause) => cause)) as Error;
    expect(error.message).toBe(`${bigName}: cannot be fetched (status 418)`);
    expect(JSON.stringify([error, error.stack, error.cause ?? null])).not.toMatch(/verysecret|Signature/);
    process.env["HF_TOKEN"] = "hf_very\nsecret";
    await expect(downloadModel(bigName)).rejects.toThrow(
      /^HF_TOKEN: expected a token of the hub, found characters that none has$/,
    );
  });

  test("goes to no hub that a program names in place of the user's", async () => {
    const hub = await hubWith({ "big.pth": big });
    const other = await startHub({ "big.pth": big });
    onTestFinished(() => other.close());
    process.env["HF_TOKEN"] = "hf_verysecret";
    const seen: (string | undefined)[] = [];
    other.onHub = (request) => !seen.push(request.headers.authorization);
    await downloadModel(bigName, { endpoint: other.endpoint });
    expect(seen.length).toBeGreaterThan(0);
    expect(seen.every((header) => header === undefined)).toBe(true);
    expect(hub.requests).toEqual([]);
  });
});

describe("what servers do", () => {
  test.each([
    [403, "GatedRepo", "access is denied (status 403)"],
    [404, "RevisionNotFound", "no such revision in this repository"],
    [404, "EntryNotFound", "no such file in this repository"],
    [404, "RepoNotFound", "no such repository, or one that is not public (status 404)"],
    [400, "", "cannot be fetched (status 400)"],
  ])("status %i %s", async (status, code, message) => {
    const hub = await hubWith({ "big.pth": big });
    hub.onHub = (_, response) => !!response.writeHead(status, { "x-error-code": code }).end();
    await expect(downloadModel(bigName)).rejects.toThrow(message);
    expect(hub.requests).toHaveLength(1);
  });

  test("429 with Retry-After, 500, and a connection that is cut: the download goes on where it was", async () => {
    const hub = await hubWith({ "big.pth": big });
    const at: number[] = [];
    hub.onHub = (_, response, count) => {
      at.push(performance.now());
      return count === 1 && !!response.writeHead(429, { "retry-after": "1" }).end();
    };
    let failures = 0;
    hub.onStorage = (request, response) => {
      if (failures++ === 0) return !!response.writeHead(500).end();
      if (failures !== 3) return false;
      const first = Number(/\d+/.exec(request.headers.range as string)?.[0]);
      response.writeHead(206, { "content-range": `bytes ${request.headers.range!.slice(6)}/${big.length}` });
      response.write(big.subarray(first, first + 100_000), () => response.destroy());
      return true;
    };
    await sameBytes(await downloadModel(bigName), big);
    expect(at[1]! - at[0]!).toBeGreaterThan(990);
    expect(failures).toBeGreaterThan(4);
  });

  test("a server that stays busy is left alone, in words", async () => {
    const hub = await hubWith({ "big.pth": big });
    hub.onHub = (_, response) => !!response.writeHead(429, { "retry-after": "3600" }).end();
    await expect(downloadModel(bigName)).rejects.toThrow(`${bigName}: the server is busy (status 429)`);
    expect(hub.requests).toHaveLength(1);
  });

  test("signed URLs that have run out are asked for again", async () => {
    const hub = await hubWith({ "big.pth": big });
    let [uses, asked] = [0, 0];
    hub.onHub = ({ method }) => method === "GET" && !++asked;
    hub.onStorage = (_, response) => ++uses > 2 && asked < 2 && !!response.writeHead(403).end("expired");
    await sameBytes(await downloadModel(bigName), big);
    expect(asked).toBeGreaterThan(1);
  });

  test("a storage without ranges", async () => {
    const hub = await hubWith({ "big.pth": big });
    hub.ranges = false;
    await sameBytes(await downloadModel(bigName), big);
    expect(hub.sent()).toBe(big.length);
  });

  test("other machines of a storage have other versions of one content: the sum decides", async () => {
    const hub = await hubWith({ "big.pth": big });
    hub.onStorage = (request, response, count) => {
      if (count % 3 !== 0 || request.headers["if-range"] === undefined) return false;
      response.writeHead(200, { etag: '"another"', "content-length": big.length }).end(big);
      return true;
    };
    await sameBytes(await downloadModel(bigName), big);
  });

  test("bytes that are not the file are never used, and do not stay", async () => {
    const hub = await hubWith({ "big.pth": big });
    hub.onStorage = (request, response) => {
      const [first, last] = /(\d+)-(\d+)/
        .exec(request.headers.range as string)!
        .slice(1)
        .map(Number) as [number, number];
      const bytes = big.slice(first, last + 1);
      bytes[0]! ^= 1;
      response.writeHead(206, { "content-range": `bytes ${first}-${last}/${big.length}` }).end(bytes);
      return true;
    };
    await expect(downloadModel(bigName)).rejects.toThrow(
      `they are not the file: expected the sha256 ${etagOf(big)}, found `,
    );
    expect((await blobs()).filter((name) => !name.includes(".rwkv."))).toEqual([]);
    hub.onStorage = undefined;
    await sameBytes(await downloadModel(bigName), big); // from the beginning
  });

  test("a file that is shorter or longer than was said, or another range", async () => {
    const hub = await hubWith({ "big.pth": big });
    const answers: [number, Record<string, string>, RegExp][] = [
      [206, { "content-range": "bytes 0-9/10" }, /expected a file of 5500000 bytes, but the server has one of 10/],
      [206, { "content-range": `bytes 5-9/${big.length}` }, /requested bytes 0 to \d+, received "bytes 5-9/],
      [200, { "content-length": "10" }, /expected a file of 5500000 bytes, but the server has one of 10/],
    ];
    for (const [status, headers, message] of answers) {
      hub.onStorage = (_, response) => !!response.writeHead(status, headers).end("0123456789");
      await expect(downloadModel(bigName)).rejects.toThrow(message);
    }
  });

  test.each([
    [{ "x-repo-commit": "../../.." }, "expected 40 hexadecimal digits as the commit"],
    [{ etag: '"../../../x"' }, "expected letters and digits as the etag"],
    [{ "x-linked-size": "1e99" }, "expected a number of bytes as the size"],
    [{ "x-linked-size": "-1" }, "expected a number of bytes as the size"],
  ])("hostile headers %j", async (headers, message) => {
    const hub = await hubWith({ "big.pth": big });
    const sound = { "x-repo-commit": hub.commit, etag: `"${etagOf(big)}"`, "content-length": "0" };
    hub.onHub = (_, response) => !!response.writeHead(200, { ...sound, ...headers }).end();
    await expect(downloadModel(bigName)).rejects.toThrow(message);
  });

  test("hostile lists of files", async () => {
    const hub = await hubWith({});
    const lists = [
      ["not JSON", "expected JSON from"],
      ["[]", "expected a list of files"],
      [
        { sha: hub.commit, siblings: [{ rfilename: "../../x.pth", size: 1, blobId: "0".repeat(40) }] },
        "expected a path",
      ],
      [{ sha: hub.commit, siblings: [null] }, "expected a path"],
      [{ sha: "main", siblings: [{ rfilename: "x.pth", size: 1, blobId: "0".repeat(40) }] }, "as the commit"],
    ] as const;
    for (const [list, message] of lists) {
      hub.onHub = (_, response) =>
        !!response.writeHead(200).end(typeof list === "string" ? list : JSON.stringify(list));
      await expect(downloadModel(`hf:${repository}`)).rejects.toThrow(message);
    }
  });

  test("redirects in a circle, and to nowhere", async () => {
    const hub = await hubWith({ "big.pth": big });
    hub.onHub = (request, response) => !!response.writeHead(307, { location: request.url as string }).end();
    await expect(downloadModel(bigName)).rejects.toThrow("the server redirects more than 8 times");
    hub.onHub = (_, response) => !!response.writeHead(307).end();
    await expect(downloadModel(bigName)).rejects.toThrow("the server redirects to nowhere");
  });

  test("an official model whose sum on the hub is another is refused", async () => {
    const known = knownModels.find(({ name }) => name === "rwkv7-g1-0.4b")!;
    const hub = await hubWith({});
    hub.onHub = (_, response) =>
      !!response
        .writeHead(200, { "x-repo-commit": hub.commit, etag: `"${"0".repeat(64)}"`, "content-length": "901776749" })
        .end();
    await expect(downloadModel("rwkv7-g1-0.4b")).rejects.toThrow(
      `expected the SHA-256 ${known.sha256}, as this model is known by`,
    );
  });

  test("a disk without room is seen before anything is downloaded", async () => {
    const hub = await hubWith({});
    const size = 2 ** 52;
    hub.onHub = (_, response) =>
      !!response
        .writeHead(200, { "x-repo-commit": hub.commit, etag: `"${"0".repeat(64)}"`, "x-linked-size": size })
        .end();
    await expect(downloadModel(bigName)).rejects.toThrow(/^big.pth: needs 4\.5 PB, but .* has only .* free/);
    expect(hub.requests).toHaveLength(1);
  });

  test("options of wrong types, and settings that are wrong but not needed", async () => {
    for (const [option, value] of [
      ["signal", 5],
      ["onProgress", "x"],
      ["onWarning", 1],
      ["endpoint", 3],
    ] as const) {
      await expect(downloadModel(bigName, { [option]: value })).rejects.toThrow(`option ${option}: expected`);
    }
    for (const [option, value] of [
      ["signal", 5],
      ["cache", "yes"],
      ["endpoint", 3],
    ] as const) {
      await expect(load(bigName, { [option]: value })).rejects.toThrow(`option ${option}: expected`);
    }
    process.env["HF_ENDPOINT"] = "nonsense";
    const folder = join(await temporaryFolder(), "rwkv-run");
    await mkdir(folder);
    await cp(fixture("odd.pth"), join(folder, "rwkv-odd.pth"));
    const before = process.cwd();
    process.chdir(join(folder, ".."));
    try {
      for (const path of ["rwkv-run", "rwkv-run/rwkv-odd.pth"]) await (await load(path, { cache: true })).dispose();
    } finally {
      process.chdir(before);
    }
  });

  test.each([["https://h/x.pth"], [""], ["./x.pth"], [undefined], [7]])(
    "downloadModel(%j) is no name",
    async (name) => {
      process.env["HF_ENDPOINT"] = "https://huggingface.co";
      await expect(downloadModel(name as string)).rejects.toThrow("option model: expected");
    },
  );

  test.each(["nonsense", "ftp://x", "file:///x"])("HF_ENDPOINT=%s", async (endpoint) => {
    process.env["HF_ENDPOINT"] = endpoint;
    await expect(downloadModel(bigName)).rejects.toThrow(
      "HF_ENDPOINT: expected a URL that begins with https: or http:",
    );
    delete process.env["HF_ENDPOINT"];
    await expect(downloadModel(bigName, { endpoint })).rejects.toThrow("option endpoint: expected the URL of a hub");
  });
});

/** The bytes of the ranges that the storage was asked for. */
function requested({ requests }: HubServer): number {
  const ranges = requests.map((line) => /^storage GET .* (\d+)-(\d+)$/.exec(line));
  return ranges.reduce((sum, range) => sum + (range ? Number(range[2]) - Number(range[1]) + 1 : 0), 0);
}

describe("ended, and gone on with", () => {
  /** Waits until some of a file is here. */
  async function begun(bytes = 1): Promise<void> {
    for (;;) {
      const [found] = await storedModels();
      if (found && found.bytes >= bytes) return;
      await pause(10);
    }
  }

  test("aborted: what was downloaded stays, and is not downloaded again", async () => {
    const hub = await hubWith({ "big.pth": big });
    hub.heldFrom = 2_500_000;
    const stop = new AbortController();
    const running = downloadModel(bigName, { signal: stop.signal });
    await begun();
    stop.abort(new Error("enough"));
    await expect(running).rejects.toThrow("enough");
    await expect(downloadModel(bigName, { signal: stop.signal })).rejects.toThrow("enough");
    const [partial] = await storedModels();
    expect(partial).toMatchObject({ repository, file: "big.pth", complete: false });
    hub.heldFrom = Number.POSITIVE_INFINITY;
    hub.requests.length = 0;
    const first: number[] = [];
    await sameBytes(await downloadModel(bigName, { onProgress: (done) => void first.push(done) }), big);
    expect(first[0]).toBeGreaterThanOrEqual(2 ** 20);
    expect(requested(hub)).toBeLessThanOrEqual(big.length - 2 ** 20);
    expect(await blobs()).toEqual([etagOf(big)]);
  });

  test("two at once in one process, and one that is aborted: one download", async () => {
    const hub = await hubWith({ "big.pth": big });
    hub.heldFrom = 2_500_000;
    const stop = new AbortController();
    const aborted = downloadModel(bigName, { signal: stop.signal, onWarning: () => {} });
    const paths = [1, 2].map(() => downloadModel(bigName, { onWarning: () => {} }));
    await begun();
    stop.abort(new Error("enough"));
    await expect(aborted).rejects.toThrow("enough");
    hub.heldFrom = Number.POSITIVE_INFINITY;
    for (const path of await Promise.all(paths)) await sameBytes(path, big);
    expect(hub.sent()).toBeLessThan(1.9 * big.length);
  });

  /** A process that downloads. */
  function puller(name: string) {
    const child = spawn(process.execPath, [program, "pull", name], { stdio: ["ignore", "pipe", "pipe"] });
    let stderr = "";
    child.stderr.on("data", (text) => (stderr += text));
    const exited = once(child, "close").then(([code]) => code as number | null);
    return { child, exited, stderr: () => stderr };
  }

  test("killed at any moment, it goes on, loses little, and the file is never a bad one", async () => {
    const hub = await hubWith({ "big.pth": big });
    let kept = 0;
    for (let round = 0; round < 3; round++) {
      hub.heldFrom = 1_500_000 * (round + 1);
      const { child, exited } = puller(bigName);
      await begun(Math.min(kept + 1, big.length));
      await pause(37 * round);
      child.kill("SIGKILL");
      await exited;
      const [partial] = await storedModels();
      expect(partial!.bytes).toBeGreaterThanOrEqual(kept);
      kept = partial!.bytes;
    }
    hub.heldFrom = Number.POSITIVE_INFINITY;
    hub.requests.length = 0;
    await sameBytes(await downloadModel(bigName), big);
    expect(requested(hub)).toBeLessThanOrEqual(big.length - kept);
    expect(await blobs()).toEqual([etagOf(big)]);
  });

  test("two processes: one downloads, the other waits for it", async () => {
    const hub = await hubWith({ "big.pth": big });
    hub.heldFrom = 2_500_000;
    const processes = [puller(bigName), puller(bigName)];
    const words = () => processes.map(({ stderr }) => stderr()).join();
    while (!words().includes("another download of it is under way")) await pause(10);
    hub.heldFrom = Number.POSITIVE_INFINITY;
    const codes = await Promise.all(processes.map(({ exited }) => exited));
    expect(codes).toEqual([0, 0]);
    expect(hub.sent()).toBe(big.length);
  });

  test("Ctrl-C ends it with a word, and the status of an interrupt", async () => {
    const hub = await hubWith({ "big.pth": big });
    hub.heldFrom = 2_500_000;
    const { child, exited, stderr } = puller(bigName);
    await begun();
    child.kill("SIGINT");
    expect(await exited).toBe(130);
    expect(stderr()).toBe(
      "downloading big.pth: 5.5 MB\n(stopped; what was downloaded stays, and the same command goes on from there)\n",
    );
  });

  test("a damaged list of chunks, or bytes that were removed or changed meanwhile", async () => {
    const hub = await hubWith({ "big.pth": big });
    const blob = join(cacheOf(), "blobs", etagOf(big));
    const damages: (() => Promise<void>)[] = [
      () => writeFile(`${blob}.rwkv.chunks`, '{"size":5500000,"chunkSize":1048576}\n{"chunk":0}\n{"chunk":'),
      () => writeFile(`${blob}.rwkv.chunks`, "nonsense\n"),
      () =>
        writeFile(
          `${blob}.rwkv.chunks`,
          '{"size":5500000,"chunkSize":1048576}\n{"chunk":1e300}\n{"chunk":-3}\n{"chunk":"x"}\n',
        ),
      () => rm(`${blob}.rwkv.incomplete`),
      async () => {
        const bytes = await readFile(`${blob}.rwkv.incomplete`);
        await writeFile(`${blob}.rwkv.incomplete`, bytes.fill(7));
      },
    ];
    for (const damage of damages) {
      hub.heldFrom = 2_500_000;
      const stop = new AbortController();
      const running = downloadModel(bigName, { signal: stop.signal });
      await begun();
      stop.abort(new Error("enough"));
      await running.catch(() => {});
      await damage();
      hub.heldFrom = Number.POSITIVE_INFINITY;
      await sameBytes(await downloadModel(bigName), big);
      expect(await removeStoredModel(bigName)).toBe(big.length);
    }
  });

  test("a part can be removed", async () => {
    const hub = await hubWith({ "big.pth": big });
    hub.heldFrom = 2_500_000;
    const stop = new AbortController();
    const running = downloadModel(bigName, { signal: stop.signal });
    await begun();
    stop.abort(new Error("enough"));
    await running.catch(() => {});
    expect(await removeStoredModel(bigName)).toBeGreaterThan(0);
    expect(await storedModels()).toEqual([]);
  });
});

describe("the command line", () => {
  test("pull, inspect, tokenize, models, remove", async () => {
    await hubWith({ "rwkv-odd.pth": odd, "notes.txt": big });
    const name = `hf:${repository}/rwkv-odd.pth`;
    const pulled = await rwkv(["pull", name]);
    expect(pulled).toMatchObject({ code: 0, stderr: "downloading rwkv-odd.pth: 92 kB\n92 kB in\n" });
    await sameBytes(pulled.stdout.trim(), odd);
    expect((await rwkv(["inspect", name])).stdout).toContain("version     RWKV-4");
    const listed = await rwkv(["models"]);
    expect(listed.stdout).toContain("  rwkv7-g1-0.4b          0.4 B   902 MB  g1\n");
    expect(listed.stdout).toContain(`  ${name}  92 kB\n`);
    expect(await rwkv(["models", "remove", name])).toMatchObject({
      code: 0,
      stderr: `${name}: removed, 92 kB are free\n`,
    });
    expect(await rwkv(["models", "remove", name])).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("was not downloaded"),
    });
  });

  test.each([
    [["pull", "./x.pth"], "error: option name: expected the name of a model on the hub"],
    [["pull", "hf:x"], "error: option model: expected hf:owner/repo/file"],
    [["inspect", "rwkv99"], "error: rwkv99: there is no such path here, and no model of this name"],
  ])("%j", async (args, message) => {
    const { code, stderr } = await rwkv(args);
    expect(code).toBe(1);
    expect(stderr).toContain(message);
    expect(stderr.trim().split("\n")).toHaveLength(1);
  });
});
