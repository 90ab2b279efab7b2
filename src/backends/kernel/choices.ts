// Sampling inside a pass: choices are written before the pass and the sampled tokens read after it.

import { choicesOf, type PassSegment, rowsWanted } from "../backend.js";
import {
  adjustmentSize,
  choiceSize,
  chooseRecord,
  chooserWorkspace,
  maskSize,
  readChosen,
  writeChoice,
  writeNoChoice,
} from "./choice-records.js";
import type { Block, KernelMachine } from "./kernel-machine.js";
import { encodeRecord } from "./record.js";

/** The number of threads that sample; each needs scratch memory for a vocabulary. */
const maxChoosers = 4;

/** The memory of choices and its contents. */
export class Choices {
  readonly #machine: KernelMachine;
  readonly #vocabulary: number;
  readonly #table: Block;
  readonly #workspace: Block;
  readonly #choosers: number;
  /** Adjustments of all rows, then their masks; replaced by a larger one when a pass needs it. */
  #operands: Block;

  /** @param rows most rows of logits in a pass */
  constructor(machine: KernelMachine, vocabulary: number, rows: number) {
    this.#machine = machine;
    this.#vocabulary = vocabulary;
    this.#choosers = Math.min(maxChoosers, machine.threads);
    this.#table = machine.allocate(rows * choiceSize);
    this.#workspace = machine.allocate(this.#choosers * chooserWorkspace(vocabulary));
    this.#operands = machine.allocate(1024 * adjustmentSize);
  }

  /** The record that makes the choices, after all others, from logits at this address. */
  record(logits: number): Uint8Array {
    const addresses = [logits, this.#table.address, this.#workspace.address] as const;
    return encodeRecord(chooseRecord(this.#vocabulary, this.#choosers, addresses), this.#machine);
  }

  /** Writes what each row of the pass asks for. May allocate. */
  write(segments: readonly PassSegment[]): void {
    const masks = maskSize(this.#vocabulary);
    let size = 0;
    for (const { choice } of segments) {
      if (choice) size += choice.adjustments.tokens.length * adjustmentSize + (choice.mask ? masks : 0);
    }
    if (size > this.#operands.bytes.length) this.#operands = this.#machine.allocate(2 * size);
    const operands = { address: this.#operands.address, view: viewOf(this.#operands), taken: 0 };
    const table = viewOf(this.#table);
    let at = 0;
    for (const segment of segments) {
      const { choice } = segment;
      for (let i = rowsWanted(segment); i > 0; i--, at += choiceSize) {
        if (choice && i === 1) writeChoice(choice, this.#vocabulary, operands, table, at);
        else writeNoChoice(table, at);
      }
    }
  }

  /** The tokens that were chosen; -1 where logits are not numbers. */
  read(segments: readonly PassSegment[]): number[] {
    const table = viewOf(this.#table);
    return choicesOf(segments).map(({ row }) => readChosen(table, row * choiceSize));
  }
}

/** A new view each time: a machine's memory may move. */
function viewOf({ bytes }: Block): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
