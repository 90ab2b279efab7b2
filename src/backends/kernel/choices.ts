// The choices of tokens that a pass makes where its logits lie: written before it, read after it.

import { chooseToken, type TokenChoice } from "../../sampling/choose-token.js";
import { choicesOf, type PassSegment } from "../backend.js";
import { adjustmentSize, choiceSize, chooseRecord, chooserRoom, readChosen, writeChoice } from "./choice-records.js";
import type { Block, KernelMachine } from "./kernel-machine.js";
import { writeRecord } from "./record.js";

/** Threads that choose; each needs room for a vocabulary. */
const maxChoosers = 4;

/** The memory that choices need, and what stands there. */
export class Choices {
  readonly #machine: KernelMachine;
  readonly #vocabulary: number;
  readonly #table: Block;
  readonly #room: Block;
  readonly #choosers: number;
  #adjustments: Block;

  /** @param rows most rows of logits in a pass */
  constructor(machine: KernelMachine, vocabulary: number, rows: number) {
    this.#machine = machine;
    this.#vocabulary = vocabulary;
    this.#choosers = Math.min(maxChoosers, machine.threads);
    this.#table = machine.allocate(rows * choiceSize);
    this.#room = machine.allocate(this.#choosers * chooserRoom(vocabulary));
    this.#adjustments = machine.allocate(1024 * adjustmentSize);
  }

  /** Writes the record that makes the choices, after all others. */
  writeRecord(logits: number, target: Uint8Array): void {
    const addresses = [logits, this.#table.address, this.#room.address] as const;
    writeRecord(chooseRecord(this.#vocabulary, this.#choosers, addresses), target);
  }

  /** Writes what each row of the pass asks for. */
  write(segments: readonly PassSegment[], rows: number): void {
    const choices = new Map(choicesOf(segments).map(({ row, choice }) => [row, choice]));
    const count = [...choices.values()].reduce((sum, { adjustments }) => sum + adjustments.tokens.length, 0);
    if (count * adjustmentSize > this.#adjustments.bytes.length) {
      this.#adjustments = this.#machine.allocate(2 * count * adjustmentSize);
    }
    let at = 0;
    for (let row = 0; row < rows; row++) {
      const choice = choices.get(row);
      const { address, bytes } = this.#adjustments;
      writeChoice(choice, { address: address + at, bytes: bytes.subarray(at) }, this.#viewOf(row));
      at += (choice?.adjustments.tokens.length ?? 0) * adjustmentSize;
    }
  }

  /**
   * The tokens that were chosen.
   *
   * @throws RwkvError where logits are not numbers
   */
  read(segments: readonly PassSegment[], logits: Float32Array): number[] {
    return choicesOf(segments).map(({ row, choice }) => {
      const token = readChosen(this.#viewOf(row));
      return token >= 0 ? token : this.#explain(logits, row, choice);
    });
  }

  /** The plain form finds out what is wrong, and says so. */
  #explain(logits: Float32Array, row: number, choice: TokenChoice): number {
    return chooseToken(logits.subarray(row * this.#vocabulary, (row + 1) * this.#vocabulary), choice);
  }

  #viewOf(row: number): DataView {
    return new DataView(this.#table.bytes.buffer, this.#table.bytes.byteOffset + row * choiceSize, choiceSize);
  }
}
