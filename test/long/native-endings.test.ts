// Endings of processes and workers again and again, since what goes wrong in them goes wrong now and then.

import { expect, it } from "vitest";
import { runScript } from "../node-process.js";

it("loads and disposes 200 times", async () => {
  const ending = await runScript(`
    import { readdirSync } from "node:fs";
    const { load } = await import(new URL("index.js", dist));
    const threads = () => readdirSync("/proc/self/task").length;
    let before;
    for (let i = 0; i < 200; i++) {
      const model = await load(undefined, { backend: "native", threads: 3 });
      const text = model.generate("Once", { maxTokens: 3 }).text();
      if (i % 2) await text;
      else text.catch(() => {});
      await model.dispose();
      before ??= threads();
    }
    console.log(threads() - before);
  `);
  expect(ending).toEqual({ code: 0, signal: null, output: "0\n", errors: "" });
});

it("is terminated at any moment of a worker's life", async () => {
  const script = `
    import { Worker } from "node:worker_threads";
    const { load } = await import(new URL("index.js", dist));
    const options = { backend: "native", threads: 2 };
    const model = await load(undefined, options);
    const text = "import(" + JSON.stringify(new URL("index.js", dist).href) + ").then(async ({ load }) => {" +
      "const model = await load(undefined, " + JSON.stringify(options) + "); const state = model.createState();" +
      "for (;;) await model.forward([{ state, tokens: new Array(300).fill(1) }]); })";
    for (let i = 0; i < 40; i++) {
      const worker = new Worker(text, { eval: true, execArgv: [] });
      await new Promise((resolve) => setTimeout(resolve, i * 5));
      await worker.terminate();
      await model.generate("Once", { maxTokens: 3 }).text();
    }
    console.log("done");
  `;
  expect(await runScript(script)).toEqual({ code: 0, signal: null, output: "done\n", errors: "" });
});

it("exits at any moment of loading and generating", async () => {
  for (let i = 0; i < 25; i++) {
    const ending = await runScript(`
      const { load } = await import(new URL("index.js", dist));
      setTimeout(() => process.exit(7), ${i * 13});
      const model = await load(undefined, { backend: "native", threads: 2 });
      const state = model.createState();
      for (;;) await model.forward([{ state, tokens: new Array(300).fill(1) }]);
    `);
    expect(ending).toEqual({ code: 7, signal: null, output: "", errors: "" });
  }
});
