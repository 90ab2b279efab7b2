// Says what a checkpoint is that cannot be run as a model: one that was converted for another program, a part of a model, or something
// else altogether.

import type { Checkpoint } from "../checkpoints/checkpoint.js";

/** Other things that are named like tensors of a model. */
const others: readonly (readonly [description: string, mark: RegExp])[] = [
  [
    "a checkpoint to resume training from, of rwkv train; the model is model.safetensors in the same folder",
    /^(weight|first|second)\/.*\bemb\.weight$/,
  ],
  [
    "an adapter (LoRA) without the model that it belongs to; open that model, and give this with --lora (in code lora)",
    /\.lora_[AB]\b/,
  ],
  [
    "a tuned state, which belongs to a model but is not one; load the model, and give this to --state or model.readState",
    /\.att\.time_state$/,
  ],
  [
    "an experiment with ROSA, the memory by a suffix automaton of RWKV-8, which this version of the package does not run",
    /(^|\.)rosa\w*\./,
  ],
];

/**
 * Why a checkpoint must not be run although its tensors look like a model's: ChatRWKV's convert_model.py folds, scales and
 * transposes them. It leaves its settings in the file, and integer weights have four vectors each.
 */
export function describeConverted(checkpoint: Checkpoint, names: Iterable<string>): string | undefined {
  const strategy = Object.hasOwn(checkpoint.metadata, "_strategy") ? checkpoint.metadata["_strategy"] : undefined;
  const integers = [...names].some((name) => /\.weight_[mr][xy]$/.test(name));
  if (strategy === undefined && !integers) return undefined;
  return (
    "weights that ChatRWKV's convert_model.py made for its strategy " +
    `${strategy === undefined ? "of integers" : JSON.stringify(strategy)}, ` +
    "which are folded, scaled and transposed; use the original .pth"
  );
}

/** What a checkpoint is, of which no version that can be run has such tensors. */
export function describeUnknown(names: readonly string[]): string {
  const other = others.find(([, mark]) => names.some((name) => mark.test(name)));
  if (other) return `this is ${other[0]}`;
  const sample = names
    .slice(0, 3)
    .map((name) => name.slice(0, 100))
    .join(", ");
  return `not an RWKV model: expected tensors such as blocks.0.att.time_first, found ${sample || "none"}`;
}

/** A remark for errors about a file that is, by its name, one of several. */
export function describeShard(checkpoint: Checkpoint): string {
  const files = new Set([...checkpoint.tensors.values()].map(({ source }) => source.name));
  const [, number, count] = /-(\d+)-of-(\d+)\.\w+(?:\?.*)?$/.exec([...files][0] ?? "") ?? [];
  if (files.size !== 1 || Number(count ?? 1) < 2) return "";
  return (
    ` (judging by its name, the file is shard ${Number(number)} of ${Number(count)}; open the index of all shards, ` +
    "which ends in .index.json)"
  );
}
