// Machines for tests that run single records: each level of instruction sets, numbers of threads, and each build of WebAssembly.

import type { Block, KernelMachine } from "#rwkv/backends/kernel/kernel-machine";
import { createWasmMachine } from "#rwkv/backends/wasm/wasm";
import { inBrowser } from "./environment.js";

export interface MachineKind {
  readonly label: string;
  readonly create: () => Promise<KernelMachine>;
}

const onlyLevels: readonly string[] | undefined = inBrowser ? undefined : process.env["TESTED_LEVELS"]?.split(",");

async function nativeMachines(): Promise<MachineKind[]> {
  if (inBrowser) return [];
  const { createNativeMachine, supportedLevels } = await import("#rwkv/backends/native/native");
  const levels = onlyLevels ?? (await supportedLevels());
  return [
    ...levels.map((level) => ({ label: `native (${level})`, create: () => createNativeMachine(1, level) })),
    ...[2, 3].map((threads) => ({
      label: `native, ${threads} threads`,
      create: () => createNativeMachine(threads, levels.at(-1)),
    })),
  ];
}

const wasmMachines: readonly MachineKind[] = onlyLevels
  ? []
  : [
      { label: "wasm", create: () => createWasmMachine(1, true) },
      { label: "wasm, three threads", create: () => createWasmMachine(3, true) },
      { label: "wasm, memory not shared", create: () => createWasmMachine(1, false) },
    ];

/** Machines with the kernels of generation. */
export const machines: readonly MachineKind[] = [...(await nativeMachines()), ...wasmMachines];

/** Machines with those of training. */
export const trainingMachines: readonly MachineKind[] = [
  ...(await nativeMachines()),
  ...(onlyLevels
    ? []
    : [
        { label: "wasm for training, two threads", create: () => createWasmMachine(2, true, "training") },
        { label: "wasm for training, memory not shared", create: () => createWasmMachine(1, false, "training") },
      ]),
];

/** The floats of a block, made anew each time: a machine's memory may move. */
export function floatsOf({ bytes }: Block): Float32Array {
  return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
}
