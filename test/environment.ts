// What tests need that run both in Node and in a page: fixtures by path or URL, and what there is to compute with.

import type { BackendName } from "rwkv";
import type { Backend } from "#rwkv/backends/backend";
import { openKernelRuntime } from "#rwkv/backends/kernel/kernel-runtime";
import { openKernelTraining } from "#rwkv/backends/kernel/kernel-training";
import type { OpenTraining } from "#rwkv/backends/training";
import type { KernelSet } from "#rwkv/backends/wasm/compiled-kernels";
import { lentWasmMachine } from "./machine-pool.js";

export const inBrowser: boolean = typeof window !== "undefined";

export function fixture(name: string): string {
  const url = new URL(/* @vite-ignore */ `./fixtures/${name}`, import.meta.url);
  return inBrowser ? url.href : decodeURIComponent(url.pathname).replace(/^\/(?=[A-Z]:)/, ""); // "/Z:/" on Windows
}

async function readBytes(path: string): Promise<Uint8Array> {
  if (inBrowser) return new Uint8Array(await (await fetch(path)).arrayBuffer());
  const { readFile } = await import("node:fs/promises");
  return new Uint8Array(await readFile(path));
}

export async function readFloats(path: string): Promise<Float32Array> {
  return new Float32Array((await readBytes(path)).slice().buffer);
}

export async function readJson<T>(path: string): Promise<T> {
  return JSON.parse(new TextDecoder().decode(await readBytes(path))) as T;
}

/** Largest absolute difference; NaN where lengths differ or a value is NaN, so that no comparison passes by accident. */
export function maxDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Number.NaN;
  let largest = 0;
  for (let i = 0; i < a.length; i++) {
    const difference = Math.abs((a[i] as number) - (b[i] as number));
    if (Number.isNaN(difference)) return Number.NaN;
    largest = Math.max(largest, difference);
  }
  return largest;
}

/** The length of the difference of two vectors over that of the second. */
export function relativeError(found: ArrayLike<number>, exact: ArrayLike<number>): number {
  if (found.length !== exact.length) return Number.NaN;
  let [difference, size] = [0, 0];
  for (let i = 0; i < exact.length; i++) {
    difference += ((found[i] as number) - (exact[i] as number)) ** 2;
    size += (exact[i] as number) ** 2;
  }
  return Math.sqrt(difference / size);
}

/** The backends that `load` takes here, with numbers of threads. */
export const loadable: readonly { backend: BackendName; threads: number }[] = [
  { backend: "reference", threads: 1 },
  ...(inBrowser ? [] : ([1, 2, 5] as const).map((threads) => ({ backend: "native" as const, threads }))),
  { backend: "wasm", threads: 1 },
  { backend: "wasm", threads: 2 },
  { backend: "wasm", threads: 3 },
];

/** The fastest of them. */
export const fastest: BackendName = inBrowser ? "wasm" : "native";

/** WebAssembly on workers over shared memory, or for one thread, as where memory cannot be shared. */
const wasmWith = (shared: boolean, set: KernelSet): Backend => ({
  name: "wasm",
  open: async (model, options) =>
    openKernelRuntime(await lentWasmMachine(options.threads, shared, set), model, options),
});

/** The levels of instruction sets that are tested and nothing else, where vitest.config.ts says which; all by default. */
const onlyLevels: readonly string[] | undefined = inBrowser ? undefined : process.env["TESTED_LEVELS"]?.split(",");

async function testedLevels(): Promise<readonly string[]> {
  const { supportedLevels } = await import("#rwkv/backends/native/native");
  return onlyLevels ?? supportedLevels();
}

async function nativeKernels(): Promise<{ label: string; backend: Backend; threads: number }[]> {
  if (inBrowser) return [];
  const { nativeBackend, nativeBackendAt } = await import("#rwkv/backends/native/native");
  const levels = await testedLevels();
  return [
    ...levels.map((level) => ({ label: `native (${level})`, backend: nativeBackendAt(level), threads: 1 })),
    { label: "native", backend: nativeBackend, threads: 3 },
  ];
}

/** Every kind of kernels that there is here: each level of instruction sets, and each build of WebAssembly. */
export const kernels: readonly { label: string; backend: Backend; threads: number }[] = [
  ...(await nativeKernels()),
  ...(onlyLevels
    ? []
    : [
        { label: "wasm", backend: wasmWith(true, "generation"), threads: 1 },
        { label: "wasm, two threads", backend: wasmWith(true, "generation"), threads: 2 },
        { label: "wasm, memory not shared", backend: wasmWith(false, "generation"), threads: 1 },
      ]),
];

/** Every kind of kernels with the operations of training and of the lab. */
export const allKernels: typeof kernels = [
  ...kernels.filter(({ label }) => label.startsWith("native")),
  ...(onlyLevels
    ? []
    : [
        { label: "wasm for training", backend: wasmWith(true, "training"), threads: 2 },
        { label: "wasm for training, memory not shared", backend: wasmWith(false, "training"), threads: 1 },
      ]),
];

async function nativeTrainers(): Promise<{ label: string; open: OpenTraining; threads: number }[]> {
  if (inBrowser) return [];
  const { createNativeMachine } = await import("#rwkv/backends/native/native");
  const open =
    (level?: string): OpenTraining =>
    async (model, options) =>
      openKernelTraining(await createNativeMachine(options.threads, level), model, options);
  const levels = await testedLevels();
  return [
    ...levels.map((level) => ({
      label: `native (${level})`,
      open: open(level),
      threads: 1,
    })),
    { label: "native, three threads", open: open(), threads: 3 },
  ];
}

const wasmTrainers: readonly { label: string; open: OpenTraining; threads: number }[] = [
  {
    label: "wasm, two threads",
    open: async (model, options) =>
      openKernelTraining(await lentWasmMachine(options.threads, true, "training"), model, options),
    threads: 2,
  },
  {
    label: "wasm, memory not shared",
    open: async (model, options) => openKernelTraining(await lentWasmMachine(1, false, "training"), model, options),
    threads: 1,
  },
];

/** Every kind of kernels that there is here, for training. */
export const trainers: readonly { label: string; open: OpenTraining; threads: number }[] = [
  ...(await nativeTrainers()),
  ...(onlyLevels ? [] : wasmTrainers),
];
