// A small application that uses the package, as it is installed, and the bundlers that build it with the settings that
// docs/browser.md gives.

import { once } from "node:events";
import { cp, mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { type AddressInfo, createServer as createNetServer } from "node:net";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build as esbuild } from "esbuild";
import * as vite from "vite";
import * as vite7 from "vite-7";
import { webpack } from "webpack";

const root = fileURLToPath(new URL("../../", import.meta.url));

const useModel = `
  import { load, openTokenizer } from "rwkv";

  /** Writes a few words with the embedded model. */
  export async function useModel() {
    const warnings = [];
    const options = { threads: 2, onWarning: (line) => warnings.push(line) };
    const [model, other] = await Promise.all([load(undefined, options), load(undefined, options)]);
    const generate = (m) => m.generate("Once upon a time", { maxTokens: 20, seed: 1 }).text();
    const [text, same] = await Promise.all([generate(model), generate(other)]);
    const { threads, vocabulary } = model.info;
    await Promise.all([model.dispose(), other.dispose()]);
    const tokens = (await openTokenizer("world")).encode("Hello, world");
    return { tokens, text, same, threads, vocabulary, warnings, isolated: globalThis.crossOriginIsolated };
  }`;

const files: Record<string, string> = {
  "package.json": JSON.stringify({ name: "application", private: true, type: "module", dependencies: { rwkv: "*" } }),
  "index.html":
    '<!doctype html><html><head><link rel="icon" href="data:,"></head>' +
    '<body><script type="module" src="./main.js"></script></body></html>',
  "use-model.js": useModel,
  "in-worker.js": `
    import { useModel } from "./use-model.js";
    useModel().then(postMessage, (error) => postMessage({ error: String(error?.stack ?? error) }));`,
  "main.js": `
    import { load } from "rwkv";
    import { useModel } from "./use-model.js";
    globalThis.inPage = useModel;
    globalThis.loadUrl = async (url) => {
      const progress = [];
      const model = await load(url, { onProgress: (done, total) => progress.push(done / total) });
      const [logits] = await model.forward([{ state: model.createState(), tokens: [1, 2, 3] }]);
      const { layers, threads } = model.info;
      await model.dispose();
      return { layers, threads, finite: logits.every(Number.isFinite), progress };
    };
    globalThis.inWorker = () => new Promise((resolve, reject) => {
      const worker = new Worker(new URL("./in-worker.js", import.meta.url), { type: "module" });
      worker.onmessage = ({ data }) => resolve(data);
      worker.onerror = ({ message }) => reject(new Error("worker: " + message));
    });`,
};

/** Writes the application and installs the package into it: copied, as an installed package is no link. */
export async function createApplication(folder: string): Promise<void> {
  const installed = join(folder, "node_modules/rwkv");
  await mkdir(installed, { recursive: true });
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text);
  for (const name of ["package.json", "dist", "embedded"]) {
    await cp(join(root, name), join(installed, name), { recursive: true });
  }
  const { dependencies } = JSON.parse(await readFile(join(root, "package.json"), "utf8"));
  for (const name of Object.keys(dependencies)) {
    const target = join(folder, "node_modules", name);
    await mkdir(join(target, ".."), { recursive: true });
    await symlink(join(root, "node_modules", name), target);
  }
}

/** Builds the application into a folder. */
export type Bundler = (folder: string, output: string) => Promise<void>;

/** The versions of Vite that are tested; both take this. */
const vites = { "Vite 8": vite.build, "Vite 7": vite7.build as unknown as typeof vite.build };
const viteServers = {
  "Vite 8": vite.createServer,
  "Vite 7": vite7.createServer as unknown as typeof vite.createServer,
};
export type ViteName = keyof typeof vites;

function viteConfig(folder: string): vite.InlineConfig {
  return { root: folder, configFile: false, logLevel: "silent", worker: { format: "es" } };
}

export const withVite =
  (version: ViteName): Bundler =>
  async (folder, output) => {
    const build = { outDir: output, emptyOutDir: true };
    await vites[version]({ ...viteConfig(folder), base: "./", build });
  };

export const withWebpack: Bundler = async (folder, output) => {
  const stats = await new Promise<import("webpack").Stats | undefined>((resolve, reject) => {
    webpack(
      {
        mode: "production",
        context: folder,
        entry: "./main.js",
        output: { path: output, filename: "main.js" },
        performance: { hints: false }, // of files larger than 244 KiB, as a model is
      },
      (error, result) => (error ? reject(error) : resolve(result)),
    );
  });
  if (stats?.hasErrors() || stats?.hasWarnings()) throw new Error(stats.toString("errors-warnings"));
  await cp(join(folder, "index.html"), join(output, "index.html"));
};

export const withEsbuild: Bundler = async (folder, output) => {
  const plugin = pathToFileURL(join(folder, "node_modules/rwkv/dist/bundlers/esbuild.js")).href;
  const { rwkv } = (await import(/* @vite-ignore */ plugin)) as typeof import("../../src/bundlers/esbuild.js");
  const { warnings } = await esbuild({
    entryPoints: [join(folder, "main.js"), join(folder, "in-worker.js")],
    absWorkingDir: folder,
    bundle: true,
    splitting: true,
    minify: true,
    format: "esm",
    outdir: output,
    plugins: [rwkv()],
    logLevel: "silent",
  });
  if (warnings.length > 0) throw new Error(warnings.map(({ text }) => text).join("\n"));
  await cp(join(folder, "index.html"), join(output, "index.html"));
};

/** Starts Vite's development server for the application. */
export async function startViteServer(
  version: ViteName,
  folder: string,
  headers: Record<string, string>,
): Promise<{ url: string; close(): Promise<void> }> {
  const server = await viteServers[version]({
    ...viteConfig(folder),
    cacheDir: join(folder, "node_modules/.vite"),
    optimizeDeps: { force: true }, // the versions share the folder
    server: { headers, host: "127.0.0.1", port: await freePort(), watch: null },
  });
  await server.listen();
  return { url: server.resolvedUrls?.local[0] as string, close: () => server.close() };
}

async function freePort(): Promise<number> {
  const server = createNetServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  return port;
}
