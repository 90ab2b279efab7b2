// A process may end at any moment, with models loaded and passes in flight, and nobody has called dispose().

import { describe, expect, it } from "vitest";
import { type Ending, runScript } from "./node-process.js";

const load = `
  const { load } = await import(new URL("index.js", dist));
  const options = { backend: "native", threads: 2 };
`;
const generated = `${load}
  const model = await load(undefined, options);
  await model.generate("Once", { maxTokens: 5, seed: 1 }).text();
`;
/** Passes from now on until the end. */
const busy = `${generated}
  const state = model.createState();
  const tokens = new Array(500).fill(1);
  (async () => { for (;;) await model.forward([{ state, tokens }]); })().catch(() => {});
  await new Promise((resolve) => setTimeout(resolve, 50));
`;

/** The script runs in a worker, which posts a message when it is at `parentPort.postMessage`. */
const inWorker = (script: string, then: string) => `
  import { Worker } from "node:worker_threads";
  const text = ${JSON.stringify(script)};
  const worker = new Worker(
    "const { parentPort } = require('node:worker_threads');" +
    "(async () => { const dist = " + JSON.stringify(dist) + ";" + text + " parentPort.postMessage('ready'); })();",
    { eval: true, execArgv: [] },
  );
  const posted = new Promise((resolve) => worker.once("message", resolve));
  worker.on("error", (error) => { console.error(error); process.exitCode = 3; });
  ${then}
`;

function expectCleanEnd(ending: Ending, code = 0): void {
  expect(ending).toEqual({ code, signal: null, output: ending.output, errors: "" });
}

describe("a process that does not dispose of its models", () => {
  it("ends by itself", async () => {
    for (let i = 0; i < 4; i++) expectCleanEnd(await runScript(generated));
  });

  it("ends by itself with several models", async () => {
    expectCleanEnd(
      await runScript(
        `${generated} await load(undefined, options); await load(undefined, { ...options, threads: 5 });`,
      ),
    );
  });

  it("ends by process.exit(), idle and with a pass in flight", async () => {
    expectCleanEnd(await runScript(`${generated} process.exit(7);`), 7);
    for (let i = 0; i < 4; i++) expectCleanEnd(await runScript(`${busy} process.exit(7);`), 7);
  });

  it("ends by an uncaught error, idle and with a pass in flight", async () => {
    for (const script of [generated, busy]) {
      const ending = await runScript(`${script} setTimeout(() => { throw new Error("on purpose"); });`);
      expect(ending).toMatchObject({ code: 1, signal: null });
      expect(ending.errors).toContain("on purpose");
    }
  });

  it.runIf(process.platform !== "win32")("ends by signals, idle and with a pass in flight", async () => {
    for (const signal of ["SIGINT", "SIGTERM"] as const) {
      for (const script of [generated, busy]) {
        const ending = await runScript(`${script} setInterval(() => {}, 1000); console.log("ready");`, { signal });
        expect(ending).toMatchObject({ code: null, signal, errors: "" });
      }
    }
  });

  it("ends while a model is being loaded", async () => {
    expectCleanEnd(await runScript(`${load} void load(undefined, options); setTimeout(() => process.exit(7), 30);`), 7);
  });
});

describe("a worker that does not dispose of its models", () => {
  const ended = `worker.on("exit", (code) => console.log("worker", code));`;

  it("ends by itself", async () => {
    const ending = await runScript(inWorker(generated, ended));
    expectCleanEnd(ending);
    expect(ending.output).toBe("worker 0\n");
  });

  it("is terminated, idle and with a pass in flight", async () => {
    for (const script of [`${generated} setInterval(() => {}, 1000);`, busy]) {
      const ending = await runScript(inWorker(script, `${ended} worker.on("message", () => worker.terminate());`));
      expectCleanEnd(ending);
      expect(ending.output).toBe("worker 1\n");
    }
  });

  it("throws with a pass in flight", async () => {
    const ending = await runScript(inWorker(`${busy} setTimeout(() => { throw new Error("on purpose"); });`, ended));
    expect(ending).toMatchObject({ code: 3, signal: null });
    expect(ending.errors).toContain("on purpose");
  });

  it("is ended with its process", async () => {
    expectCleanEnd(await runScript(inWorker(busy, `worker.on("message", () => process.exit(7));`)), 7);
  });

  it("leaves the models of the main thread alone", async () => {
    const script = `${busy} parentPort.on("message", () => {});`;
    const main = `
      ${generated}
      const before = await model.generate("Once", { maxTokens: 20, seed: 1 }).text();
      const pass = model.generate("Once", { maxTokens: 200, seed: 1 }).text();
      await posted;
      await worker.terminate();
      if (!(await pass).startsWith(before)) throw new Error("another text");
    `;
    expectCleanEnd(await runScript(inWorker(script, main)));
  });
});
