// The programs in examples/, run as a user runs them, against a server.

import { execFile, spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Served, served } from "./served.js";

const folder = fileURLToPath(new URL("../examples/", import.meta.url));

/** What each of them prints, beside tales. */
const printed: Record<string, readonly RegExp[]> = {
  "curl.sh": [
    /"object":"chat.completion"/,
    /data: \[DONE\]/,
    /"text":" (grey|old|hungry)\."/,
    /"content":"(yes|no)"/,
    /"embedding":\[/,
  ],
  "openai.mjs": [/animal: '(wolf|fox|bear)', legs: \d/, /get_weather \{"city":"(Paris|Rome)"\}/],
  "anthropic.mjs": [/\d+ tokens/, /get_weather \{ city: '(Paris|Rome)' \}/],
  "ai-sdk.mjs": [/animal: '(wolf|fox|bear)', legs: \d/, /\[ 192, 192 \]/],
  "langchain.mjs": [/animal: '(wolf|fox|bear)', legs: \d/, /^192$/m],
};

let tales: Served;
beforeAll(async () => {
  tales = await served({ name: "rwkv-tales" });
});
afterAll(() => tales.close());

test("there is a test of each", () => {
  expect(readdirSync(folder).sort()).toEqual(Object.keys(printed).sort());
});

const hasCurl = spawnSync("curl", ["--version"]).status === 0;

test.each(Object.keys(printed))("%s", async (name) => {
  if (name === "curl.sh" && !hasCurl) {
    console.warn("there is no curl on this machine: examples/curl.sh is not run");
    return;
  }
  const program = name.endsWith(".sh") ? "sh" : process.execPath;
  const { stdout, stderr } = await promisify(execFile)(program, [folder + name], {
    env: { ...process.env, RWKV_URL: tales.url, LANGSMITH_TRACING: "false" },
    timeout: 50_000,
  });
  for (const pattern of printed[name]!) expect(stdout).toMatch(pattern);
  expect(stderr).toBe("");
});
