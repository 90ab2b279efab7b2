// The records for sampling tokens from logits: the input of the kernel and its output (kernels/choose.c).

import type { TokenChoice } from "../../sampling/choose-token.js";
import { type RecordFields, setAddress } from "./record.js";

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

/** Memory for adjustments and masks, and how much of it is taken. */
export interface Operands {
  readonly address: number;
  readonly view: DataView;
  taken: number;
}

/**
 * Writes how a row's token is to be chosen.
 *
 * @param target the table of choices
 * @param at where that of the row lies in it
 */
export function writeChoice(
  { topK, temperature, topP, minP, uniform, adjustments, mask }: TokenChoice,
  vocabulary: number,
  operands: Operands,
  target: DataView,
  at: number,
): void {
  const { tokens, amounts } = adjustments;
  const { address, view } = operands;
  target.setUint32(at, 1, true);
  target.setUint32(at + 4, Math.min(topK, 0xffffffff), true);
  target.setFloat64(at + 8, temperature, true);
  target.setFloat64(at + 16, topP, true);
  target.setFloat64(at + 24, minP, true);
  target.setFloat64(at + 32, uniform, true);
  setAddress(target, at + 40, address + operands.taken);
  target.setUint32(at + 48, tokens.length, true);
  for (let i = 0; i < tokens.length; i++, operands.taken += adjustmentSize) {
    view.setInt32(operands.taken, tokens[i] as number, true);
    view.setFloat32(operands.taken + 4, amounts[i] as number, true);
  }
  setAddress(target, at + 56, mask ? address + operands.taken : 0);
  if (!mask) return;
  const end = operands.taken + maskSize(vocabulary);
  for (let i = 0; operands.taken < end; i++, operands.taken += 4) view.setUint32(operands.taken, mask[i] ?? 0, true);
}

/** Writes that no token is chosen from a row. */
export function writeNoChoice(target: DataView, at: number): void {
  target.setUint32(at, 0, true);
}

/** The token that was chosen; -1 where the logits are not numbers. */
export function readChosen(source: DataView, at: number): number {
  return source.getInt32(at + 52, true);
}
