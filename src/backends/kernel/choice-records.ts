// What the kernel that chooses tokens from logits is told, and what it answers (kernels/choose.c).

import type { TokenChoice } from "../../sampling/choose-token.js";
import type { Block } from "./kernel-machine.js";
import type { RecordFields } from "./record.js";

export const choiceSize = 64;
export const adjustmentSize = 12;

/** Bytes that a thread needs to choose among a vocabulary: weights, those that a cut is looked for among, sums of blocks. */
export const chooserRoom = (vocabulary: number): number => 4 * (2 * vocabulary + Math.ceil(vocabulary / 1024));

/** The record that makes all choices of a pass. */
export function chooseRecord(
  vocabulary: number,
  choosers: number,
  addresses: readonly [logits: number, choices: number, room: number],
): RecordFields {
  return { kernel: "choose", width: vocabulary, count: choosers, addresses };
}

/** Writes how a row's token is to be chosen, or that none is. */
export function writeChoice(choice: TokenChoice | undefined, adjustments: Block, target: DataView): void {
  target.setUint32(0, choice ? 1 : 0, true);
  if (!choice) return;
  const { tokens, amounts } = choice.adjustments;
  target.setUint32(4, Math.min(choice.topK, 0xffffffff), true);
  target.setFloat64(8, choice.temperature, true);
  target.setFloat64(16, choice.topP, true);
  target.setFloat64(24, choice.minP, true);
  target.setFloat64(32, choice.uniform, true);
  target.setBigUint64(40, BigInt(adjustments.address), true);
  target.setUint32(48, tokens.length, true);
  const table = new DataView(adjustments.bytes.buffer, adjustments.bytes.byteOffset, adjustments.bytes.byteLength);
  tokens.forEach((token, i) => {
    table.setInt32(i * adjustmentSize, token, true);
    table.setFloat32(i * adjustmentSize + 4, amounts[i] as number, true);
  });
}

/** The token that was chosen; -1 where the logits are not numbers. */
export function readChosen(source: DataView): number {
  return source.getInt32(52, true);
}
