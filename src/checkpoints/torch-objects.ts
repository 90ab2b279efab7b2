// The Python objects that a torch.save'd state dict is made of: storages, tensors as views of them, ordered dicts. This is
// the whole vocabulary that the unpickler is given. Sources: torch/_utils.py (_rebuild_tensor_v2), torch/serialization.py.

import { bytesPerElement, type ElementType } from "../dtypes.js";
import { CheckpointError } from "../errors.js";
import type { ByteSource } from "./byte-source.js";
import { checkShape, describeNumbers, type StoredTensor } from "./checkpoint.js";
import type { PickleGlobal, PickleValue } from "./unpickler.js";

/** A run of elements in the file that one or several tensors view. */
export interface Storage {
  readonly dtype: ElementType;
  readonly key: string;
  /** Number of elements. */
  readonly length: number;
  /** Position in the file, in bytes; a legacy file tells it only after the pickle, so it is filled in then. */
  offset: number;
}

/** A tensor as the pickle describes it: a strided view of a storage. */
export class PickledTensor {
  readonly storage: Storage;
  /** First element, strides: in elements of the storage. */
  readonly start: number;
  readonly shape: readonly unknown[];
  readonly strides: readonly unknown[];

  constructor(storage: Storage, start: number, shape: readonly unknown[], strides: readonly unknown[]) {
    this.storage = storage;
    this.start = start;
    this.shape = shape;
    this.strides = strides;
  }
}

/** Storage classes of PyTorch and their element types. */
export const storageClasses: Readonly<Record<string, ElementType>> = {
  FloatStorage: "f32",
  HalfStorage: "f16",
  BFloat16Storage: "bf16",
  DoubleStorage: "f64",
  LongStorage: "i64",
  IntStorage: "i32",
  ShortStorage: "i16",
  CharStorage: "i8",
  ByteStorage: "u8",
  BoolStorage: "bool",
};

/** The names that a state dict's pickle may use. */
export function torchGlobals(file: string): Map<string, PickleGlobal> {
  const rebuildTensor: PickleGlobal = ([storage, start, shape, strides]) => {
    if (!isStorage(storage) || !Number.isSafeInteger(start) || !Array.isArray(shape) || !Array.isArray(strides)) {
      throw new CheckpointError(
        file,
        "pickle: a tensor that is not built from a storage, an offset, a size and strides",
      );
    }
    return new PickledTensor(storage, start as number, shape, strides);
  };
  const rebuildParameter: PickleGlobal = ([tensor]) => {
    if (!(tensor instanceof PickledTensor)) throw new CheckpointError(file, "pickle: a parameter that is not a tensor");
    return tensor;
  };
  const orderedDict: PickleGlobal = ([items]) => {
    const dict = new Map<PickleValue, PickleValue>();
    if (Array.isArray(items)) for (const pair of items) if (Array.isArray(pair)) dict.set(pair[0], pair[1]);
    return dict;
  };
  const globals = new Map<string, PickleGlobal>([
    ["collections OrderedDict", orderedDict],
    ["torch._utils _rebuild_tensor", rebuildTensor],
    ["torch._utils _rebuild_tensor_v2", rebuildTensor],
    ["torch._utils _rebuild_parameter", rebuildParameter],
  ]);
  for (const name of Object.keys(storageClasses)) globals.set(`torch ${name}`, storageClass(file, name));
  return globals;
}

const dtypeOfClass = new WeakMap<object, ElementType>();

/** A storage class stands in persistent ids as a value; a state dict never calls it. */
function storageClass(file: string, name: string): PickleGlobal {
  const global: PickleGlobal = () => {
    throw new CheckpointError(file, `pickle: torch.${name} is called, which no state dict needs`);
  };
  dtypeOfClass.set(global, storageClasses[name] as ElementType);
  return global;
}

/**
 * Reads a persistent id: ("storage", class, key, location, element count, ...).
 *
 * @throws CheckpointError when it is anything else
 */
export function storageOf(file: string, id: PickleValue): Storage {
  if (Array.isArray(id) && id[0] === "storage") {
    const [, cls, key, , length] = id as unknown[];
    const dtype = typeof cls === "function" ? dtypeOfClass.get(cls) : undefined;
    if (dtype && typeof key === "string" && Number.isSafeInteger(length) && (length as number) >= 0) {
      return { dtype, key, length: length as number, offset: 0 };
    }
  }
  throw new CheckpointError(file, "pickle: a persistent id that is not a tensor's storage");
}

function isStorage(value: unknown): value is Storage {
  return typeof value === "object" && value !== null && "dtype" in value && "key" in value && "length" in value;
}

/**
 * Finds the state dict in what a file holds - at the top, or under `state_dict` or `model` - and turns its tensors into
 * directory entries. Values that are not tensors are passed over.
 *
 * @throws CheckpointError when there is none, or a tensor reaches outside its storage
 */
export function stateDictTensors(source: ByteSource, root: PickleValue): Map<string, StoredTensor> {
  const candidates = [root];
  if (root instanceof Map) candidates.push(root.get("state_dict"), root.get("model"));
  for (const candidate of candidates) {
    if (!(candidate instanceof Map)) continue;
    const tensors = new Map<string, StoredTensor>();
    for (const [name, value] of candidate) {
      if (typeof name === "string" && value instanceof PickledTensor)
        tensors.set(name, storedTensor(source, name, value));
    }
    if (tensors.size > 0) return tensors;
  }
  const found =
    root instanceof Map ? `a dict with ${root.size} other keys` : `a ${root === null ? "None" : typeof root}`;
  throw new CheckpointError(
    source.name,
    `expected a state dict (tensors by name) at the top or under state_dict or model, found ${found}`,
  );
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
    throw new CheckpointError(source.name, `tensor ${name}: ${elements} elements are more than the whole file holds`);
  }
  return {
    name,
    dtype: storage.dtype,
    shape,
    strides: strides as number[],
    source,
    offset: storage.offset + start * size,
  };
}
