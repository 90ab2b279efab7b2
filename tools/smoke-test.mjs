// Packs the package, installs the tarball into an empty folder as a user would, and uses it there: the API, the command
// line, and nothing from the repository. There is no compiler there and nothing in the user's cache, so on the platforms that
// the package has built kernels for they must be the ones that run.

import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "rwkv-smoke-"));
const hasPrebuilt = ["linux-x64", "linux-arm64"].includes(`${process.platform}-${process.arch}`);
const userEnv = hasPrebuilt
  ? { CC: "/bin/false", XDG_CACHE_HOME: join(folder, "cache"), RWKV_PREBUILT: undefined }
  : {};
const run = (command, args, cwd = folder, env = userEnv) =>
  execFileSync(command, args, {
    cwd,
    env: { ...process.env, ...env },
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
  });

try {
  run("npm", ["pack", "--loglevel=error", "--pack-destination", folder], root, {});
  const tarball = readdirSync(folder).find((name) => name.endsWith(".tgz"));
  writeFileSync(join(folder, "package.json"), '{ "name": "smoke", "private": true, "type": "module" }');
  run("npm", ["install", "--no-audit", "--no-fund", "--prefer-offline", `./${tarball}`]);

  writeFileSync(
    join(folder, "use.mjs"),
    `import { load } from "rwkv";
     const onWarning = (message) => { throw new Error(message); };
     const model = await load(undefined, { onWarning });
     if (model.info.backend !== "native") throw new Error("backend " + model.info.backend);
     const generation = model.generate("Once upon a time", { maxTokens: 40, seed: 1 });
     for await (const text of generation) process.stdout.write(text);
     const wasm = await load(undefined, { backend: "wasm" });
     const other = await wasm.generate("Once upon a time", { maxTokens: 40, seed: 1 }).text();
     if (other !== (await generation.result).text) throw new Error("backends differ: " + other);
     await model.dispose();
     await wasm.dispose();`,
  );
  const fromApi = run("node", ["use.mjs"]);
  const fromCommand = run("npx", ["rwkv", "generate", "Once upon a time", "--trials", "1", "-n", "40", "--seed", "1"]);
  if (fromApi.length < 30 || fromApi !== fromCommand.trimEnd()) {
    throw new Error(`the API wrote ${JSON.stringify(fromApi)}, the command ${JSON.stringify(fromCommand)}`);
  }
  writeFileSync(join(folder, "text.txt"), "The cat sat on the mat, and so did the dog. ".repeat(100));
  writeFileSync(
    join(folder, "train.mjs"),
    `import { load } from "rwkv";
     import { train } from "rwkv/training";
     const small = { layers: 1, width: 16, vocabulary: 260, context: 16, batch: 2, steps: 2 };
     const { folder } = await train({ data: "text.txt", out: "run", ...small });
     const model = await load(folder);
     process.stdout.write(\`\${model.info.layers} layer\`);
     await model.dispose();`,
  );
  if (run("node", ["train.mjs"]) !== "1 layer") throw new Error("training left no model");
  writeFileSync(
    join(folder, "playground.mjs"),
    `import { readFileSync } from "node:fs";
     import { load } from "rwkv";
     import { createApp } from "rwkv/server";
     const files = JSON.parse(readFileSync("node_modules/rwkv/playground/built/files.json", "utf8"));
     const model = await load();
     const app = createApp(model);
     for (const { name } of files) {
       const { status } = await app.fetch(new Request("http://localhost/" + name));
       if (status !== 200) throw new Error(name + ": status " + status);
     }
     await app.close();
     await model.dispose();
     process.stdout.write(files.length > 20 ? "all files" : "few files");`,
  );
  if (run("node", ["playground.mjs"]) !== "all files") throw new Error("the playground lacks files");
  if (readdirSync(join(folder, "node_modules")).includes("linkedom")) throw new Error("what is optional was installed");
  if (hasPrebuilt && readdirSync(folder).includes("cache")) throw new Error("kernels were compiled");
  const kernels = hasPrebuilt ? "with the kernels in the package" : "with kernels compiled here";
  process.stdout.write(`packed, installed and run ${kernels}: Once upon a time${fromApi}\n`);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
