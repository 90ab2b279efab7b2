// The records for sampling tokens from logits: the input of the kernel and its output (kernels/choose.c).

import type { TokenChoice } from "../../sampling/choose-token.js";
import type { Block } from "./kernel-machine.js";
import type { RecordFields } from "./record.js";

export const choiceSize = 64;
export const adjustmentSize = 12;

/**
 * Bytes that a thread needs to choose among a vocabulary: weights, those that a cut is looked for among, logits that a mask was
 * applied to, sums of blocks.
 */
export const chooserWorkspace = (vocabulary: number): number => 4 * (3 * vocabulary + Math.ceil(vocabulary / 1024));

/** Bytes of a mask: a bit for each token. */
export const maskSize = (vocabulary: number): number => 4 * Math.ceil(vocabulary / 32);

/** The record that makes all choices of a pass. */
export function chooseRecord(
  vocabulary: number,
  choosers: number,
  addresses: readonly [logits: number, choices: number, scratch: number],
): RecordFields {
  return { kernel: "choose", width: vocabulary, attributes: [{ count: choosers }], addresses };
}

/** Writes how a row's token is to be chosen. */
export function writeChoice(choice: TokenChoice, adjustments: Block, mask: Block | undefined, target: DataView): void {
  target.setUint32(0, 1, true);
  const { tokens, amounts } = choice.adjustments;
  target.setUint32(4, Math.min(choice.topK, 0xffffffff), true);
  target.setFloat64(8, choice.temperature, true);
  target.setFloat64(16, choice.topP, true);
  target.setFloat64(24, choice.minP, true);
  target.setFloat64(32, choice.uniform, true);
  target.setBigUint64(40, BigInt(adjustments.address), true);
  target.setUint32(48, tokens.length, true);
  target.setBigUint64(56, BigInt(mask?.address ?? 0), true);
  const table = new DataView(adjustments.bytes.buffer, adjustments.bytes.byteOffset, adjustments.bytes.byteLength);
  tokens.forEach((token, i) => {
    table.setInt32(i * adjustmentSize, token, true);
    table.setFloat32(i * adjustmentSize + 4, amounts[i] as number, true);
  });
  if (mask && choice.mask) {
    const words = new DataView(mask.bytes.buffer, mask.bytes.byteOffset, mask.bytes.byteLength);
    for (let i = 0; i * 4 < mask.bytes.length; i++) words.setUint32(i * 4, choice.mask[i] ?? 0, true);
  }
}

/** The token that was chosen; -1 where the logits are not numbers. */
export function readChosen(source: DataView): number {
  return source.getInt32(52, true);
}
