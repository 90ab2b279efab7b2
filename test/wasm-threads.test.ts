// The threads and the memory of the wasm backend in Node, where something goes wrong: each fault is an error, never a hang, a
// crash or damaged memory.

import { execFile } from "node:child_process";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { BackendError, load } from "rwkv";
import { expect, onTestFinished, test, vi } from "vitest";
import type { Block, KernelMachine } from "#rwkv/backends/kernel/kernel-machine";
import { openKernelRuntime } from "#rwkv/backends/kernel/kernel-runtime";
import { vectorFunctionRecord } from "#rwkv/backends/kernel/records";
import { SingleRecord } from "#rwkv/backends/kernel/single-record";
import { compiledKernels } from "#rwkv/backends/wasm/compiled-kernels";
import { placeKernelStack } from "#rwkv/backends/wasm/kernel-stack";
import { SingleThreadMachine } from "#rwkv/backends/wasm/single-thread-machine";
import { createWasmMachine } from "#rwkv/backends/wasm/wasm";
import { control, type WorkerMessage } from "#rwkv/backends/wasm/worker-protocol";
import { WorkersMachine } from "#rwkv/backends/wasm/workers-machine";
import { bindModel } from "#rwkv/models/versions";
import { startWorker } from "#rwkv/platform/node/compute-workers";
import { syntheticRwkv4 } from "./synthetic-rwkv4.js";

const root = fileURLToPath(new URL("../", import.meta.url));
/** Where the number of times that all threads met is in a pass, in bytes (kernels/plan.h). */
const barrierGeneration = 76;
const size = { layers: 1, width: 64, hidden: 256, vocabulary: 100 };

/** What a Node process prints that runs a script of one string. */
async function run(flags: readonly string[], script: string, env: Record<string, string> = {}): Promise<string> {
  const options = { cwd: root, env: { ...process.env, ...env }, timeout: 60_000 };
  return (await promisify(execFile)(process.execPath, [...flags, script], options)).stdout;
}

const loadAndPrint = `
  import { load } from "rwkv";
  const model = await load(undefined, { backend: "wasm", threads: 2, onWarning: (line) => console.log("warned: " + line) });
  console.log((await model.generate("Once upon a time", { maxTokens: 3, seed: 1 }).text()).length > 0, model.info.threads);
  await model.dispose();`;

test.each([
  ["the type of a script in a string", ["--input-type=module", "-e"], {}],
  ["flags for the process alone", ["--title=x", "--stack-trace-limit=5", "--input-type=module", "-e"], {}],
  [
    "options in the environment",
    ["--input-type=module", "-e"],
    { NODE_OPTIONS: "--no-warnings --max-old-space-size=900" },
  ],
])("threads start whatever flags the process has: %s", async (_, flags, env) => {
  expect(await run(flags, loadAndPrint, env)).toBe("true 2\n");
});

test("where no worker may be started, the calling thread computes, and a warning says so", async () => {
  // Its name until it was stable, in Node 22.
  const permission = process.allowedNodeEnvironmentFlags.has("--permission")
    ? "--permission"
    : "--experimental-permission";
  const flags = [permission, "--allow-fs-read=*", "--no-warnings", "--input-type=module", "-e"];
  const output = await run(flags, loadAndPrint);
  expect(output).toMatch(/^warned: wasm backend: a compute thread failed .*computing on the calling thread\ntrue 1\n$/);
});

test.each([
  ["three threads", () => createWasmMachine(3, true)],
  ["one thread", () => createWasmMachine(1, false)],
] as const)("a pass that fails rejects, and so do later ones; no thread waits for ever: %s", async (_, create) => {
  const machine = await create();
  const record = new SingleRecord(machine);
  const { address } = machine.allocate(256);
  // A row of 64 channels is one thread's share: that one traps, while the others wait for it at the barrier.
  const sigmoidOf = (from: number) => record.run(vectorFunctionRecord("sigmoid", 64, from, address, machine));
  await sigmoidOf(address);
  await expect(sigmoidOf(0xffff_0000)).rejects.toThrow(BackendError);
  await expect(sigmoidOf(address)).rejects.toThrow(/thread failed|pass failed/);
  await machine.dispose();
});

test("threads meet at every barrier in code that was compiled a moment ago, too", async () => {
  // The engine's first compiler (Liftoff) alone: in that of Node 20 a branch table went wrong that said after which records they wait.
  const output = await run(
    ["--liftoff", "--no-wasm-tier-up", "--input-type=module", "-e"],
    `import { openKernelRuntime } from "./dist/backends/kernel/kernel-runtime.js";
     import { createWasmMachine } from "./dist/backends/wasm/wasm.js";
     import { openCheckpoint } from "./dist/checkpoints/open-checkpoint.js";
     import { planGraph } from "./dist/graph/plan.js";
     import { bindModel } from "./dist/models/versions.js";
     const model = bindModel(await openCheckpoint("test/fixtures/odd.pth"));
     const quantized = new Set(model.graph.weights.filter(({ op, name }) => op === "matrix" && name !== "emb.weight"));
     const { barriers } = planGraph([model.graph.output], 128, { quantized });
     const machine = await createWasmMachine(3);
     const block = machine.allocate(64);
     let pass = 0;
     const ordinary = machine.run.bind(machine);
     machine.run = (address) => ordinary((pass = address));
     const met = () => new Uint32Array(block.bytes.buffer)[(pass + ${barrierGeneration}) / 4];
     const runtime = await openKernelRuntime(machine, model, { threads: 3, dtype: "q8" });
     const tokens = Array.from({ length: 40 }, (_, i) => (i * 7) % 20);
     const meetings = [];
     for (let i = 0; i < 3; i++) {
       await runtime.run([{ state: runtime.createState(), tokens, logits: "all" }]);
       meetings.push(met());
     }
     await runtime.dispose();
     const each = barriers.filter((barrier) => barrier !== "never").length;
     console.log(JSON.stringify([meetings, [each, 2 * each, 3 * each]]));`,
  );
  const [found, expected] = JSON.parse(output);
  expect(found).toEqual(expected);
});

test("a thread that is woken without a pass to run sleeps on", async () => {
  const module = await compiledKernels(true, "generation");
  const memory = new WebAssembly.Memory({ initial: 64, maximum: 65536, shared: true });
  const numbers = new Int32Array(new SharedArrayBuffer(4 * control.length));
  const at = (address: number) => (size: number) => ({ address, bytes: new Uint8Array(memory.buffer, address, size) });
  const stack = placeKernelStack(at(1 << 20) as (size: number) => Block, 1 << 20);
  const start = { module, memory, control: numbers, thread: 0, threads: 1, stack };
  const messages: WorkerMessage[] = [];
  const worker = startWorker<WorkerMessage>(start, (message) => messages.push(message), console.error);
  await vi.waitFor(() => expect(messages).toEqual([{ kind: "ready" }]));
  Atomics.store(numbers, control.pass, 3 << 20); // zeros: a pass without records
  for (let i = 0; i < 20; i++) {
    await delay(5);
    Atomics.notify(numbers, control.generation);
  }
  expect(Atomics.load(numbers, control.finished)).toBe(0);
  Atomics.add(numbers, control.generation, 1);
  Atomics.notify(numbers, control.generation);
  await vi.waitFor(() => expect(messages.at(-1)).toEqual({ kind: "done" }));
  await worker.terminate();
});

test("a machine that is disposed during a pass fails it", async () => {
  const runtime = await openKernelRuntime(await createWasmMachine(2), bindModel(syntheticRwkv4(size, "f32")), {
    threads: 2,
  });
  const tokens = Array.from({ length: runtime.maxTokens }, (_, i) => i % 100);
  const pass = runtime.run([{ state: runtime.createState(), tokens, logits: "all" }]);
  const failed = expect(pass).rejects.toThrow("the model was disposed");
  await runtime.dispose();
  await failed;
});

test.each([
  ["one thread", async (stack: number) => SingleThreadMachine.create(await compiledKernels(false, "training"), stack)],
  ["two threads", async (stack: number) => WorkersMachine.create(await compiledKernels(true, "training"), 2, stack)],
] satisfies [string, (stack: number) => Promise<KernelMachine>][])(
  "kernels that need more than their stack are an error: %s",
  async (_, create) => {
    const model = bindModel(syntheticRwkv4(size, "f32"));
    const segment = { tokens: Array.from({ length: 128 }, (_, i) => i % 100), logits: "all" as const };
    const enough = await openKernelRuntime(await create(256 * 1024), model, { threads: 1 });
    await enough.run([{ ...segment, state: enough.createState() }]);
    await enough.dispose();
    const runtime = await openKernelRuntime(await create(64 * 1024), model, { threads: 1 });
    const pass = runtime.run([{ ...segment, state: runtime.createState() }]);
    await expect(pass).rejects.toThrow("needs more than its stack of 65536 bytes");
    await runtime.dispose();
  },
);

/** Makes the engine refuse memory that is shared and has more than this many pages. */
function refuseSharedPages(more: number): void {
  const { Memory } = WebAssembly;
  class Refusing extends Memory {
    constructor(descriptor: WebAssembly.MemoryDescriptor) {
      if (descriptor.shared && (descriptor.maximum ?? 0) > more) throw new RangeError("could not allocate memory");
      super(descriptor);
    }
  }
  vi.spyOn(WebAssembly, "Memory", "get").mockReturnValue(Refusing);
  onTestFinished(() => void vi.restoreAllMocks());
}

test("engines that refuse 4 GiB of shared memory are asked for less", async () => {
  refuseSharedPages(16384);
  const model = await load(undefined, { backend: "wasm", threads: 2 });
  expect(model.info.threads).toBe(2);
  expect(await model.generate("Once upon a time", { maxTokens: 3 }).text()).not.toBe("");
  await model.dispose();
});

test("engines that give no shared memory at all compute on one thread", async () => {
  refuseSharedPages(0);
  await expect(createWasmMachine(2)).rejects.toThrow(BackendError);
  const warnings: string[] = [];
  const model = await load(undefined, { backend: "wasm", threads: 2, onWarning: (line) => void warnings.push(line) });
  expect(model.info.threads).toBe(1);
  expect(warnings.join()).toMatch(/no memory that threads can share.*computing on the calling thread/);
  await model.dispose();
});

test("other tasks have their turn while one thread generates a long text", async () => {
  refuseSharedPages(0);
  const model = await load(undefined, { backend: "wasm", threads: 1, onWarning: () => {} });
  const controller = new AbortController();
  setTimeout(() => controller.abort(), 50);
  const generation = model.generate("Once upon a time", {
    maxTokens: 100_000,
    stopTokens: [],
    signal: controller.signal,
  });
  await generation.text();
  expect((await generation.result).finishReason).toBe("aborted");
  await model.dispose();
});

test("the workers of a model that was dropped without dispose() end", async () => {
  const output = await run(
    ["--expose-gc", "--input-type=module", "-e"],
    `import { setTimeout } from "node:timers/promises";
     import { subscribe } from "node:diagnostics_channel";
     import { load } from "rwkv";
     let [started, ended] = [0, 0];
     subscribe("worker_threads", ({ worker }) => { started++; worker.on("exit", () => ended++); });
     await (async () => {
       const model = await load(undefined, { backend: "wasm", threads: 2 });
       await model.generate("Once upon a time", { maxTokens: 3 }).text();
     })();
     for (let i = 0; i < 500 && ended < 2; i++) { gc(); await setTimeout(10); }
     console.log(started, ended);`,
  );
  expect(output).toBe("2 2\n");
});

test("a process ends by itself without dispose(), also in the middle of a pass", async () => {
  const output = await run(
    ["--input-type=module", "-e"],
    `import { load } from "rwkv";
     const model = await load(undefined, { backend: "wasm", threads: 2 });
     const state = model.createState();
     model.forward([{ state, tokens: Array(5000).fill(1) }]).catch(() => {});
     setTimeout(() => { console.log("left"); process.exit(0); }, 20);`,
  );
  expect(output).toBe("left\n");
});
