// Finds the weights in a .pth. torch.save writes whatever it is given: the state dict itself, or a training program's
// dict that contains the state dict somewhere.

import type { ByteSource } from "../byte-source.js";
import { bytesPerElement } from "../dtypes.js";
import { CheckpointError } from "../errors.js";
import { checkShape, type Directory, describeNumbers, type StoredTensor } from "./checkpoint.js";
import { PickledTensor, UnreadableTensor } from "./torch-objects.js";
import type { PickleValue } from "./unpickler.js";

/** Keys under which training programs keep a state dict. They may be nested. */
const containers = [
  "state_dict",
  "model_state_dict",
  "model_state",
  "model",
  "module",
  "net",
  "network",
  "weights",
  "params",
  "ema",
];
const maxDepth = 4;
const maxFactLength = 1000;

/**
 * Finds the state dict, which is the dict with the most tensors at the top level or under the keys that training
 * programs use, and turns its tensors into directory entries. Texts and numbers beside them become metadata; other
 * values are skipped.
 *
 * @throws CheckpointError when there is no state dict, or a tensor cannot be read or reaches outside its storage
 */
export function readStateDict(source: ByteSource, root: PickleValue): Directory {
  const dict = findStateDict(root);
  if (!dict) {
    throw new CheckpointError(
      source.name,
      `expected a state dict (tensors by name) at the top level or under ${containers.slice(0, -1).join(", ")} or ` +
        `${containers.at(-1)}, ` +
        `found ${describeRoot(root)}`,
    );
  }
  const tensors = new Map<string, StoredTensor>();
  const metadata: Record<string, string> = {};
  for (const [name, value] of dict) {
    if (typeof name !== "string") continue;
    if (value instanceof PickledTensor) tensors.set(name, storedTensor(source, name, value));
    else if (value instanceof UnreadableTensor) {
      throw new CheckpointError(source.name, `tensor ${name.slice(0, 200)} cannot be read: ${value.reason}`);
    } else if (["string", "number", "boolean"].includes(typeof value) && name !== "__proto__") {
      metadata[name] = String(value).slice(0, maxFactLength);
    }
  }
  return { tensors, metadata };
}

function findStateDict(root: PickleValue): Map<PickleValue, PickleValue> | undefined {
  let found: Map<PickleValue, PickleValue> | undefined;
  let most = 0;
  const seen = new Set<PickleValue>();
  const look = (candidate: PickleValue, depth: number) => {
    if (!(candidate instanceof Map) || depth > maxDepth || seen.has(candidate)) return;
    seen.add(candidate);
    const count = tensorsIn(candidate);
    if (count > most) [found, most] = [candidate, count];
    for (const key of containers) look(candidate.get(key), depth + 1);
  };
  look(root, 0);
  return found;
}

function tensorsIn(dict: Map<PickleValue, PickleValue>): number {
  let count = 0;
  for (const [name, value] of dict) {
    if (typeof name === "string" && (value instanceof PickledTensor || value instanceof UnreadableTensor)) count++;
  }
  return count;
}

function describeRoot(root: PickleValue): string {
  if (root instanceof PickledTensor) return "a single unnamed tensor";
  if (Array.isArray(root)) return `a list of ${root.length}`;
  if (!(root instanceof Map))
    return root === null ? "None" : `a ${typeof root === "object" ? "Python object" : typeof root}`;
  if (root.has("param_groups")) return "the state of an optimizer; the weights are in another file of the run";
  if (root.size === 0) return "an empty dict";
  const keys = [...root.keys()].slice(0, 8).map((key) => (typeof key === "string" ? key.slice(0, 60) : typeof key));
  return `a dict with the keys ${keys.join(", ")}${root.size > keys.length ? ", ..." : ""}`;
}

function storedTensor(source: ByteSource, name: string, tensor: PickledTensor): StoredTensor {
  const { storage, start, shape, strides } = tensor;
  checkShape(source.name, name, shape);
  if (strides.length !== shape.length || !strides.every((s) => Number.isSafeInteger(s) && (s as number) >= 0)) {
    throw new CheckpointError(
      source.name,
      `tensor ${name}: expected ${shape.length} strides >= 0, found ${describeNumbers(strides)}`,
    );
  }
  const last = shape.reduce((sum, dimension, i) => sum + (dimension - 1) * (strides[i] as number), start);
  const empty = shape.includes(0);
  if (start < 0 || !Number.isSafeInteger(last) || (!empty && last >= storage.length)) {
    throw new CheckpointError(
      source.name,
      `tensor ${name}: shape ${describeNumbers(shape)}, strides ${describeNumbers(strides)}, offset ${start} reach outside the ` +
        `storage of ${storage.length} elements`,
    );
  }
  const size = bytesPerElement[storage.dtype];
  const elements = shape.reduce((product, dimension) => product * dimension, 1);
  if (elements * size > source.size) {
    throw new CheckpointError(
      source.name,
      `tensor ${name}: its ${elements} elements are more than the whole file can hold`,
    );
  }
  return {
    name,
    dtype: storage.dtype,
    shape,
    strides: strides as number[],
    source,
    offset: storage.offset + start * size,
    ...(storage.checksum && { checksum: storage.checksum }),
  };
}
