// How models are divided among memories of WebAssembly, by their headers, and what happens where an engine gives less memory or a listener ends
// it. Node only; test/divided.test.ts has what divided models compute.

import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { fileURLToPath } from "node:url";
import type { Worker } from "node:worker_threads";
import { type LoadOptions, openCheckpoint } from "rwkv";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { openKernelTraining } from "#rwkv/backends/kernel/kernel-training";
import { lastingBytes, passBytes } from "#rwkv/backends/kernel/memory-need";
import { divide } from "#rwkv/backends/wasm/division";
import { createWasmMachine, wasmBackend } from "#rwkv/backends/wasm/wasm";
import { largestMemory } from "#rwkv/backends/wasm/wasm-memory";
import { syntheticCheckpoint } from "#rwkv/bench/synthetic-checkpoint";
import type { Checkpoint } from "#rwkv/checkpoints/checkpoint";
import { shape } from "#rwkv/cli/option-parsers";
import { splitGraph } from "#rwkv/graph/split";
import { loadCheckpoint } from "#rwkv/load";
import { bindModel } from "#rwkv/models/versions";
import { openRuntime } from "#rwkv/open-runtime";
import { trainableModel } from "#rwkv/training/trainable-model";

const embedded = fileURLToPath(new URL("../embedded/model.safetensors", import.meta.url));

/** A model whose weights nobody can read, as its header is all that may be looked at. */
function unreadable(size: string): Checkpoint {
  const checkpoint = syntheticCheckpoint(shape(size), "bf16");
  const source = {
    name: size,
    size: 2 ** 40,
    readInto: () => Promise.reject(new Error("read")),
    close: async () => {},
  };
  const tensors = [...checkpoint.tensors].map(([name, tensor]) => [name, { ...tensor, source }] as const);
  return { ...checkpoint, tensors: new Map(tensors) };
}

describe("by its header", () => {
  test.each([
    ["7:32x2560x65536", {}, [16, 16]],
    ["7:32x2560x65536", { dtype: "q8" }, [32]],
    ["7:32x4096x65536", {}, [7, 9, 9, 7]],
    ["7:32x4096x65536", { dtype: "q4" }, [15, 17]],
    ["4:32x4096x50277", { dtype: "q8" }, [16, 16]],
    ["4:32x4096x50277", { dtype: "q8", skipZeros: true }, [10, 11, 11]],
  ] as const)("%s, %j: memories of 4 GiB have %j layers", (size, options, expected) => {
    const model = bindModel(unreadable(size));
    const layers = divide(model, largestMemory, options);
    expect(layers).toEqual(expected);
    const parts = splitGraph(model.graph, layers.slice(0, -1)).map(({ graph }) => ({ graph, tensors: model.tensors }));
    const needs = parts.map((part) => lastingBytes(part, options) + passBytes(part, options));
    expect(Math.max(...needs)).toBeLessThan(largestMemory);
    // As evenly as whole layers allow.
    expect(Math.max(...needs) - Math.min(...needs)).toBeLessThan(needs[0]! / layers[0]!);
  });

  test.each([
    [
      "7:4x32768x65536",
      "the model's matrices take 105.0 GiB",
      "28.3 GiB",
      "no dtype would fit: use the native backend",
    ],
    ["7:4x16384x65536", "the model's matrices take 28.4 GiB", "8.1 GiB", 'dtype "q4" (10.2 GiB) would fit'],
  ])(
    "%s: a layer that no memory holds is refused with the types that fit, and nothing is read",
    async (size, ...said) => {
      const [all, layer, fitting] = said;
      await expect(wasmBackend.open(bindModel(unreadable(size)), { threads: 1 })).rejects.toThrow(
        `${all}, those of one layer, embedding and head included, up to ${layer}, and WebAssembly has 4.0 GiB in one memory; ${fitting}`,
      );
    },
  );

  test.each([
    [30, "12.1", "no dtype would fit: give the part fewer layers"],
    [16, "6.7", 'dtype "q4" (2.4 GiB) would fit'],
  ])("a part of a strategy with %i layers is not divided further", async (layers, size, said) => {
    const options = { strategy: `wasm *${layers} -> wasm`, threads: 1 };
    await expect(openRuntime(bindModel(unreadable("7:32x4096x65536")), options)).rejects.toThrow(
      `the matrices of a part of the strategy take ${size} GiB, and WebAssembly has 4.0 GiB in one memory; ${said}`,
    );
  });
});

/** Makes the engine refuse memories of more pages than these, one after the other; the last number is for all that follow. */
function refusePages(most: readonly number[]): void {
  const { Memory } = WebAssembly;
  let made = 0;
  class Refusing extends Memory {
    constructor(descriptor: WebAssembly.MemoryDescriptor) {
      const limit = most[Math.min(made, most.length - 1)] as number;
      if (descriptor.shared && (descriptor.maximum ?? 0) > limit) throw new RangeError("could not allocate memory");
      super(descriptor);
      made++;
    }
  }
  vi.spyOn(WebAssembly, "Memory", "get").mockReturnValue(Refusing);
  onTestFinished(() => void vi.restoreAllMocks());
}

test("engines that give later memories half as much are asked for more of them", async () => {
  const pages = 2 ** 10;
  const checkpoint = syntheticCheckpoint(shape("4:8x512x500"), "bf16");
  const outputs = async (memory: number) => {
    const runtime = await wasmBackend.open(bindModel(checkpoint), { threads: 2, memoryLimit: memory });
    const { logits } = await runtime.run([{ state: runtime.createState(), tokens: [1, 2, 3], logits: "all" }]);
    const found = { layers: runtime.layers, logits: logits.slice() };
    await runtime.dispose();
    return found;
  };
  const { logits } = await outputs(largestMemory);
  refusePages([pages, pages / 2]);
  expect(await outputs(pages * 2 ** 16)).toEqual({ layers: new Array(8).fill(1), logits });
});

describe("of a model of 5.6 MB", () => {
  const limit = 2 ** 24 + 7 * 2 ** 20;
  const options = { backend: "wasm", threads: 2 } as const;
  const opening = async (given: LoadOptions = {}) => {
    return loadCheckpoint(await openCheckpoint(embedded), { ...options, ...given }, undefined, true, limit);
  };

  test("engines that share no more than one memory compute on one thread, where it is not shared", async () => {
    refusePages([limit / 2 ** 16, 0]);
    const warnings: string[] = [];
    const model = await opening({ onWarning: (line) => void warnings.push(line) });
    expect(model.info).toMatchObject({ threads: 1, strategy: "wasm *2 -> wasm *2" });
    expect(warnings.join()).toMatch(/no memory that threads can share.*computing on the calling thread/);
    await model.dispose();
  });

  test("the threads of all its memories end where loading is ended in the last", async () => {
    const [started, ended] = [new Set<Worker>(), new Set<Worker>()];
    const onWorker = (message: unknown) => {
      const { worker } = message as { worker: Worker };
      started.add(worker);
      worker.on("exit", () => ended.add(worker));
    };
    subscribe("worker_threads", onWorker);
    onTestFinished(() => void unsubscribe("worker_threads", onWorker));
    const aborted = opening({
      onProgress: (done, total) => {
        if (done / total > 0.9) throw new DOMException("no longer wanted", "AbortError");
      },
    });
    await expect(aborted).rejects.toThrow("no longer wanted");
    await vi.waitFor(() => expect(ended.size).toBe(started.size));
    expect(started.size).toBe(4);
  });
});

test("training takes one memory, and says so before anything is read where that is too little", async () => {
  const { graph, tensors } = bindModel(unreadable("4:2x128x300"));
  const model = trainableModel(graph, tensors, { weights: graph.weights, logitPenalty: 0 });
  const machine = await createWasmMachine(1, false, "training", undefined, 2 ** 22);
  await expect(openKernelTraining(machine, model, { threads: 1, maxTokens: 16, maxSegments: 2 })).rejects.toThrow(
    /^training takes 0\.0 GiB in one memory, and WebAssembly has 0\.0 GiB in one; lower the batch/,
  );
});
