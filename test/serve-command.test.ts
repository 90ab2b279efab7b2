// rwkv serve as a program: what it prints, its keys, TLS, and how signals end it.

import { type ChildProcessWithoutNullStreams, execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmod, readFile, writeFile } from "node:fs/promises";
import { request } from "node:https";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { program, rwkv } from "./command.js";
import { temporaryFolder } from "./fixture-files.js";

interface Running {
  readonly child: ChildProcessWithoutNullStreams;
  readonly url: string;
  readonly exited: Promise<number | null>;
  errors(): string;
  output(): string;
}

async function serving(...args: string[]): Promise<Running> {
  return running(spawn(process.execPath, [program, "serve", "--port", "0", "--threads", "1", ...args]));
}

/** Waits until a server of its own process says where it is. */
async function running(child: ChildProcessWithoutNullStreams): Promise<Running> {
  onTestFinished(() => void child.kill("SIGKILL"));
  let [output, errors] = ["", ""];
  child.stdout.on("data", (text) => {
    output += text;
  });
  const exited = once(child, "exit").then(([code]) => code as number | null);
  const url = await new Promise<string>((resolve, reject) => {
    child.stderr.on("data", (text) => {
      errors += text;
      const [, found] = /serving \S+ at (\S+)\n/.exec(errors) ?? [];
      if (found) resolve(found);
    });
    void exited.then((code) => reject(new Error(`ended with ${code}: ${errors}`)));
  });
  return { child, url, exited, errors: () => errors, output: () => output };
}

const streaming = (url: string, maxTokens: number) =>
  fetch(`${url}/v1/completions`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ prompt: "Once", max_tokens: maxTokens, stream: true, logit_bias: { 0: -100 } }),
  });

test("says where it is and how to call it, answers, and ends when it is asked to", async () => {
  const { child, url, exited, errors, output } = await serving("--log", "requests");
  expect(await (await fetch(`${url}/health`)).json()).toEqual({ status: "ok" });
  expect(await (await fetch(url)).text()).toContain("RWKV playground");
  expect(errors()).toContain(`curl ${url}/v1/chat/completions`);
  const answer = await streaming(url, 100);
  child.kill("SIGTERM");
  const text = await answer.text(); // what is in progress ends by itself
  expect(text.match(/finish_reason":"length"/g)).toHaveLength(1);
  expect(text.endsWith("data: [DONE]\n\n")).toBe(true);
  expect(await exited).toBe(0);
  const records = output()
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(records.map(({ route }) => route)).toEqual(["/health", "/", "/v1/completions"]);
  expect(records[2]).toMatchObject({ status: 200, generatedTokens: 100 });
});

test("ends at once when it is asked twice", async () => {
  const { child, url, exited } = await serving("--drain", "600");
  const answer = await streaming(url, 16_000);
  child.kill("SIGINT");
  await new Promise((resolve) => setTimeout(resolve, 100));
  child.kill("SIGINT");
  expect(await exited).toBe(1);
  await expect(answer.text()).rejects.toThrow();
});

const isLinux = process.platform === "linux";

test.skipIf(!isLinux)("opens its page where it is asked to", async () => {
  const folder = await temporaryFolder();
  const opened = join(folder, "opened");
  await writeFile(
    join(folder, "xdg-open"),
    `#!/bin/sh\necho "$@" > '${opened}.part' && mv '${opened}.part' '${opened}'\n`,
  );
  await chmod(join(folder, "xdg-open"), 0o755);
  const { PATH = "" } = process.env;
  const env = { ...process.env, PATH: `${folder}:${PATH}` };
  const args = [program, "serve", "--port", "0", "--threads", "1", "--open"];
  const { url } = await running(spawn(process.execPath, args, { env }));
  await expect.poll(() => readFile(opened, "utf8").catch(() => "")).toBe(`${url}\n`);
});

/** Runs a command in a terminal of its own, where there is a program for it. */
const hasScript = isLinux && spawnSync("script", ["--version"]).status === 0;

test.skipIf(!hasScript)("shows in a terminal what is in progress, on one line", async () => {
  // Without exec some shells stay, and end by Ctrl-C before the server does.
  const command = `exec '${process.execPath}' '${program}' serve --port 0 --threads 1`;
  const args = ["--quiet", "--return", "--flush", "--command", command, "/dev/null"];
  const child = spawn("script", args, { env: { ...process.env, SHELL: "/bin/sh" } });
  onTestFinished(() => void child.kill("SIGKILL")); // the server ends with its terminal
  let shown = "";
  child.stdout.on("data", (text) => {
    shown += text;
  });
  const address = () => /serving \S+ at (\S+)/.exec(shown)?.[1];
  await expect.poll(address, { timeout: 10_000 }).toBeDefined();
  const answer = await streaming(address()!, 16_000);
  await expect.poll(() => shown).toContain("1 in progress, 0 waiting, 0 answered, 0 tokens written");
  await answer.body!.cancel();
  await expect.poll(() => shown).toMatch(/0 in progress, 0 waiting, 1 answered, [1-9]\d* tokens written/);
  const lines = shown.slice(shown.indexOf("in progress"));
  expect(lines).not.toContain("\n");
  const exited = once(child, "exit");
  child.stdin.write("\x03"); // Ctrl-C
  expect(await exited).toEqual([0, null]);
});

test("keeps states in a folder", async () => {
  const folder = join(await temporaryFolder(), "states");
  const first = await serving("--state-dir", folder, "--state-dir-size", "1GiB");
  const made = await fetch(`${first.url}/v1/states`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ prompt: "Once upon a time", name: "beginning" }),
  });
  const { id } = await made.json();
  first.child.kill("SIGKILL");
  await first.exited;
  const second = await serving("--state-dir", folder);
  expect(await (await fetch(`${second.url}/v1/states/${id}`)).json()).toMatchObject({ id, name: "beginning" });
  const path = join(folder, "chat.rwkvstate");
  await writeFile(path, Buffer.from(await (await fetch(`${second.url}/v1/states/${id}/content`)).arrayBuffer()));
  expect(await rwkv(["chat", "--state", path, "--max-tokens", "5"], "And then?\n")).toMatchObject({ code: 0 });
  expect(await rwkv(["serve", "--state-dir", path])).toMatchObject({
    code: 1,
    stderr: expect.stringContaining(`${path}: cannot be used as a folder for states`),
  });
  expect(await rwkv(["serve", "--state-dir", folder, "--state-store", "redis://127.0.0.1:1"])).toMatchObject({
    code: 1,
    stderr: expect.stringContaining("give one of them"),
  });
});

test("takes keys from a file", async () => {
  const path = join(await temporaryFolder(), "keys.txt");
  await writeFile(path, "# ours\nfirst\n\nsecond\n");
  const { url } = await serving("--api-key-file", path, "--api-key", "third");
  const status = async (key: string) => (await fetch(`${url}/v1/models`, { headers: { "X-Api-Key": key } })).status;
  expect(await Promise.all(["first", "second", "third", "# ours", ""].map(status))).toEqual([200, 200, 200, 401, 401]);
  await writeFile(path, "\n");
  expect(await rwkv(["serve", "--api-key-file", path])).toMatchObject({
    code: 1,
    stderr: `error: ${path}: expected a key on a line, found none\n`,
  });
});

test.skipIf(!hasOpenSsl())("speaks TLS", async () => {
  const folder = await temporaryFolder();
  const [cert, key] = [join(folder, "cert.pem"), join(folder, "key.pem")];
  const subject = [
    "-subj",
    "/CN=localhost",
    "-days",
    "2",
    "-nodes",
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
  ];
  execFileSync("openssl", ["req", "-x509", ...subject, "-keyout", key, "-out", cert], { stdio: "ignore" });
  const { url } = await serving("--tls-cert", cert, "--tls-key", key);
  expect(url).toMatch(/^https:/);
  const answer = request(`${url}/health`, { rejectUnauthorized: false }).end();
  const [response] = await once(answer, "response");
  response.resume();
  expect(response.statusCode).toBe(200);
});

describe("wrong options", () => {
  test.each([
    [["--port", "70000"], "expected a whole number from 0 to 65535"],
    [["--tls-cert", "x"], "--tls-cert and --tls-key belong together"],
    [["--host", "256.0.0.1"], "cannot listen on 256.0.0.1"],
  ])("%j", async (args, message) => {
    const { code, stderr } = await rwkv(["serve", ...args]);
    expect([code, stderr]).toEqual([1, expect.stringContaining(message)]);
  });
});

function hasOpenSsl(): boolean {
  try {
    execFileSync("openssl", ["version"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}
