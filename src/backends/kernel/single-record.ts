// Runs one record by itself, without tokens or sequences: making blocks of a matrix, probing the machine.

import type { Block, KernelMachine } from "./kernel-machine.js";
import { encodeRecord, passSize, type RecordFields } from "./record.js";
import { runPass } from "./run-pass.js";

/** A record and its pass in a machine's memory, which can be run repeatedly. */
export class SingleRecord {
  readonly #machine: KernelMachine;
  #record: Block | undefined;
  readonly #pass: Block;

  constructor(machine: KernelMachine) {
    this.#machine = machine;
    this.#pass = machine.allocate(passSize);
  }

  async run(record: RecordFields): Promise<void> {
    const encoded = encodeRecord(record, this.#machine);
    if (!this.#record || this.#record.bytes.length < encoded.length)
      this.#record = this.#machine.allocate(encoded.length);
    this.#record.bytes.set(encoded);
    const nothing = { tokens: 0, tokenCount: 0, selected: 0, selectedCount: 0, segments: 0, segmentCount: 0 };
    const { threads } = this.#machine;
    await runPass(this.#machine, this.#pass, { ...nothing, records: this.#record.address, recordCount: 1, threads });
  }
}
