// What the machine can do: bytes read and operations done per second, by all threads, through the kernels themselves.

import type { Block, KernelMachine } from "../backends/kernel/kernel-machine.js";
import { SingleRecord } from "../backends/kernel/single-record.js";

/** Well beyond the last level cache. */
const readMebibytes = 256;
const arithmeticCount = 2000;
/** Chains of the arithmetic probe times its inner loop times two operations; see kernels/probe.c. */
const operationsPerCount = 10 * 1024 * 2;

/** Measures one machine; probes can be repeated between other measurements. */
export class MachineProbes {
  readonly #machine: KernelMachine;
  readonly #memory: Block;
  readonly #result: Block;
  readonly #record: SingleRecord;

  constructor(machine: KernelMachine) {
    this.#machine = machine;
    this.#memory = machine.allocate(readMebibytes * 2 ** 20);
    this.#memory.bytes.fill(1); // untouched pages would all be one page of zeros, in the cache
    this.#result = machine.allocate(machine.threads * 64);
    this.#record = new SingleRecord(machine);
  }

  /** Bytes read per second. */
  async readBandwidth(): Promise<number> {
    return (readMebibytes * 2 ** 20) / (await this.#time("probeRead", readMebibytes));
  }

  /** Multiplications and additions of float32 per second. */
  async arithmeticRate(): Promise<number> {
    const operations = arithmeticCount * operationsPerCount * this.#machine.lanes * this.#machine.threads;
    return operations / (await this.#time("probeArithmetic", arithmeticCount));
  }

  dispose(): Promise<void> {
    return this.#machine.dispose();
  }

  /** Seconds of the fastest of three runs: a probe is of what the machine can do. */
  async #time(kernel: "probeRead" | "probeArithmetic", count: number): Promise<number> {
    let best = Number.POSITIVE_INFINITY;
    for (let i = 0; i < 3; i++) {
      const started = performance.now();
      const addresses = [this.#memory.address, this.#result.address];
      await this.#record.run({ kernel, barrierAfter: "always", attributes: [{ count }], addresses });
      best = Math.min(best, performance.now() - started);
    }
    return best / 1000;
  }
}
