// The WebAssembly backend beside wllama (llama.cpp in pages), in one isolated Chromium: tokens a second of decoding and of a prompt of 128
// tokens, of the same GGUF files, in turn. The models are RWKV-7 with random weights and the World vocabulary.
//   node bench/wasm-beside-wllama.mjs WLLAMA [layers x width] [threads] [rounds] [models]
// Fetches nothing. Needs the build in dist/, a Chromium (the variable CHROMIUM, or where systems have it), and wllama, installed anywhere
// else: `npm install @wllama/wllama@3.13` in a folder, whose path is WLLAMA. The files, 1.1 GB of them, are made in the system's temporary
// folder and removed at the end; in a folder that is named they stay, so that a second run makes none. With 0 rounds they are only made.

import { createReadStream, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { chromium } from "playwright";
import { rwkv } from "../dist/bundlers/esbuild.js";
import { openTokenizer } from "../dist/index.js";
import { randomGgufs } from "./random-models.mjs";

const [wllama, size = "12x768", threads = "2", rounds = "3", models] = process.argv.slice(2);
const types = ["Q8_0", "Q4_0"];
// The engine compiles for speed what has run some times, so both write some tokens first.
const [promptTokens, decodedTokens, warmingTokens] = [128, 64, 24];

const package_ = join(wllama ?? "", "node_modules/@wllama/wllama");
const executablePath = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/google-chrome"].find(
  (path) => path && existsSync(path),
);
if (!existsSync(package_) || !executablePath) {
  console.error(
    executablePath
      ? "needs the folder in which wllama is installed: npm install @wllama/wllama@3.13"
      : "needs a Chromium, which the variable CHROMIUM may name",
  );
  process.exit(1);
}

const root = fileURLToPath(new URL("../", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "rwkv-wllama-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));

const modelFolder = models ?? folder;
mkdirSync(modelFolder, { recursive: true });
const modelPaths = await randomGgufs(modelFolder, size, types);
if (Number(rounds) === 0) process.exit(0);

const [word] = (await openTokenizer("world")).encode(" the");
const entry = `
import { load } from ${JSON.stringify(join(root, "dist/index.js"))};
import { Wllama } from ${JSON.stringify(join(package_, "esm/index.js"))};

const text = ${JSON.stringify("The fox said to the crow that it was late. ".repeat(60))};

/** Speeds of one model, loaded anew. */
globalThis.measure = {
  async rwkv(file) {
    const model = await load(file, { backend: "wasm", threads: ${threads} });
    const tokens = model.tokenizer.encode(text).slice(0, ${promptTokens});
    const state = model.createState();
    await model.forward([{ state, tokens: tokens.slice(0, 8) }]);
    await model.generate(text.slice(0, 40), { maxTokens: ${warmingTokens}, temperature: 0, stopTokens: [] }).result;
    const fresh = model.createState();
    const started = performance.now();
    await model.forward([{ state: fresh, tokens }]);
    const prompt = (tokens.length * 1000) / (performance.now() - started);
    const generation = model.generate(text.slice(0, 40), { maxTokens: ${decodedTokens}, temperature: 0, stopTokens: [] });
    const { decodeTokensPerSecond: decode } = await generation.result;
    const used = model.info.threads;
    await model.dispose();
    return { decode, prompt, threads: used };
  },
  async wllama(file) {
    const quiet = { debug() {}, log() {}, warn() {}, error: console.error };
    const model = new Wllama({ default: "/wllama.wasm" }, { logger: quiet, suppressNativeLog: true });
    const blob = await (await fetch(file)).blob();
    await model.loadModel([blob], { n_threads: ${threads}, n_gpu_layers: 0, n_ctx: 1024 });
    // Random weights write random bytes, on which wllama fails where they are not UTF-8: so one word again and again.
    const usual = { temperature: 0, ignore_eos: true, cache_prompt: false, logit_bias: { ${word}: 100 } };
    const complete = async (prompt, n) => (await model.createCompletion({ ...usual, prompt, max_tokens: n })).timings;
    await complete(text.slice(0, 40), ${warmingTokens});
    const long = await complete(text.slice(0, ${promptTokens * 4}), 1);
    const short = await complete(text.slice(0, 40), ${decodedTokens});
    const used = model.getNumThreads();
    await model.exit();
    return { decode: short.predicted_per_second, prompt: long.prompt_per_second, threads: used };
  },
};
globalThis.isReady = true;
`;
await build({
  stdin: { contents: entry, resolveDir: root, loader: "js" },
  bundle: true,
  format: "esm",
  platform: "browser",
  external: ["node:*", "fs", "path", "crypto", "worker_threads", "module"],
  outdir: join(folder, "page"),
  plugins: [rwkv()],
  logLevel: "error",
});

const mimeTypes = { js: "text/javascript", wasm: "application/wasm", json: "application/json", html: "text/html" };
const server = createServer((request, response) => {
  const name = decodeURIComponent(new URL(request.url, "http://localhost").pathname.slice(1)) || "index.html";
  const headers = {
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "content-type": mimeTypes[name.split(".").at(-1)] ?? "application/octet-stream",
  };
  if (name === "index.html") {
    return response.writeHead(200, headers).end('<!doctype html><script type="module" src="/stdin.js"></script>');
  }
  const path =
    name === "wllama.wasm"
      ? join(package_, "esm/wasm/wllama.wasm")
      : [join(folder, "page", name), ...modelPaths].find((one) => basename(one) === name && existsSync(one));
  if (!path) return response.writeHead(404, headers).end();
  const all = statSync(path).size;
  const [, first, last] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "") ?? [];
  if (first === undefined) {
    response.writeHead(200, { ...headers, "content-length": all, "accept-ranges": "bytes" });
    return createReadStream(path).pipe(response);
  }
  const end = last ? Math.min(all - 1, Number(last)) : all - 1;
  const range = { "content-range": `bytes ${first}-${end}/${all}`, "content-length": end - Number(first) + 1 };
  response.writeHead(206, { ...headers, ...range });
  createReadStream(path, { start: Number(first), end }).pipe(response);
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
try {
  const { version } = JSON.parse(readFileSync(join(package_, "package.json"), "utf8"));
  console.log(`RWKV-7 ${size}, ${threads} threads, Chromium ${browser.version()}, wllama ${version}; tokens a second`);
  for (const [i, type] of types.entries()) {
    const all = { rwkv: [], wllama: [] };
    for (let round = 0; round < Number(rounds); round++) {
      for (const name of Object.keys(all)) {
        // A page for each, so that none measures in what another has left.
        const page = await browser.newPage();
        page.on("pageerror", (error) => console.error(`${name}: ${error}`));
        await page.goto(`http://127.0.0.1:${server.address().port}/`);
        await page.waitForFunction(() => globalThis.isReady);
        const measured = await page.evaluate(
          ([of, file]) => globalThis.measure[of](file),
          [name, `/${basename(modelPaths[i])}`],
        );
        if (measured.threads !== Number(threads)) throw new Error(`${name} took ${measured.threads} threads`);
        all[name].push(measured);
        await page.close();
      }
    }
    for (const what of ["decode", "prompt"]) {
      const of = (name) => all[name].map((one) => one[what]).sort((a, b) => a - b);
      const [ours, theirs] = [of("rwkv"), of("wllama")].map((values) => values[Math.floor(values.length / 2)]);
      const list = (name) => all[name].map((one) => one[what].toFixed(1)).join(" ");
      console.log(
        `${type} ${what}: rwkv ${ours.toFixed(1)} (${list("rwkv")}), wllama ${theirs.toFixed(1)} (${list("wllama")}), ` +
          `${(ours / theirs).toFixed(1)} times`,
      );
    }
  }
} finally {
  await browser.close();
  server.close();
}
