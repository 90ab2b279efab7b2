// How rwkv.cpp's converter lays out tensors, against RWKV-LM: the names are RWKV-LM's, but some tensors are transposed,
// stacked, or functions of the original. Source: rwkv.cpp, python/convert_pytorch_to_ggml.py.

import type { Checkpoint, StoredTensor } from "../checkpoints/checkpoint.js";
import { inElements, mapped } from "../checkpoints/computed-views.js";
import { reshaped, sliced, transposed } from "../checkpoints/views.js";
import { elementCount } from "../dtypes.js";
import { CheckpointError } from "../errors.js";

/** What undoes the converter's work on a tensor. */
interface Rule {
  /** Of the name behind `blocks.<layer>.` */
  readonly name: RegExp;
  /** Versions that it holds for, as `versionOf` numbers them. */
  readonly versions: readonly Version[];
  readonly undo: (tensor: StoredTensor) => StoredTensor;
}

type Version = "4" | "5" | "5.2" | "6" | "7";

const lowRank = (tensor: StoredTensor) => (tensor.shape.length >= 2 ? transposed(inElements(tensor)) : tensor);
const flat = (tensor: StoredTensor) => reshaped(tensor, [1, 1, elementCount(tensor.shape)]);

/** Beyond these exp(-exp(x)) is 1 or 0 in float32; the inverse would be infinite there. */
const [leastDecay, largestDecay] = [-30, 6];
/** x of exp(-exp(x)). Near 1 it is as exact as the stored number is: what is computed from it is that number again. */
const decayExponent = (w: number) => Math.min(largestDecay, Math.max(leastDecay, Math.log(-Math.log(w))));

const rules: readonly Rule[] = [
  // -exp(x)
  { name: /^att\.time_decay$/, versions: ["4"], undo: (tensor) => mapped(tensor, (w) => Math.log(-w)) },
  { name: /^att\.time_decay$/, versions: ["5", "5.2"], undo: (tensor) => mapped(withoutLast(tensor), decayExponent) },
  { name: /^att\.time_first$/, versions: ["5"], undo: (tensor) => mapped(withoutLast(tensor), Math.log) },
  { name: /^att\.time_faaaa$/, versions: ["5.2", "6"], undo: withoutLast },
  { name: /^att\.time_decay$/, versions: ["6"], undo: flat },
  { name: /^att\.(time_maa_w[12]|time_decay_w[12])$/, versions: ["6"], undo: lowRank },
  { name: /^att\.[wavg][12]$/, versions: ["7"], undo: lowRank },
];

/** [..., 1] to [...]. */
function withoutLast(tensor: StoredTensor): StoredTensor {
  const shape = tensor.shape.at(-1) === 1 && tensor.shape.length > 1 ? tensor.shape.slice(0, -1) : tensor.shape;
  return reshaped(tensor, shape.length === 2 && shape[1] === 1 ? shape.slice(0, 1) : shape);
}

/** The factors of RWKV-7's token shift, in the order in which they are stacked. */
const factors = ["r", "w", "k", "v", "a", "g"];

/**
 * The model of a file of rwkv.cpp as RWKV-LM lays it out, as views of its tensors.
 *
 * @throws CheckpointError for stacked tensors of another number
 */
export function officialTensorsOfGgml(checkpoint: Checkpoint): Checkpoint {
  const version = versionOf(checkpoint);
  const tensors = new Map<string, StoredTensor>();
  for (const [name, tensor] of checkpoint.tensors) {
    const [, block = "", part = ""] = /^(blocks\.\d+\.)(.*)$/.exec(name) ?? [];
    if (part === "att.x_rwkvag") {
      for (const [factor, vector] of unstacked(checkpoint.name, tensor)) {
        const official = `${block}att.x_${factor}`;
        tensors.set(official, { ...vector, name: official });
      }
      continue;
    }
    const rule = rules.find((each) => each.name.test(part) && each.versions.includes(version));
    tensors.set(name, rule ? rule.undo(tensor) : tensor);
  }
  return { ...checkpoint, tensors };
}

/** The version as rwkv.cpp itself tells it, by the names in the first layer. */
function versionOf({ tensors }: Checkpoint): Version {
  const has = (name: string) => tensors.has(`blocks.0.att.${name}`);
  if (has("r_k")) return "7";
  if (has("time_maa_x")) return "6";
  if (has("time_faaaa")) return "5.2";
  return has("ln_x.weight") ? "5" : "4";
}

function unstacked(file: string, tensor: StoredTensor): [factor: string, vector: StoredTensor][] {
  const { name, shape } = tensor;
  if (shape.length < 2 || shape[0] !== factors.length) {
    throw new CheckpointError(file, `tensor ${name}: expected ${factors.length} vectors, found [${shape.join(", ")}]`);
  }
  return factors.map((factor, i) => [factor, sliced(inElements(tensor), 0, i, i + 1)]);
}
