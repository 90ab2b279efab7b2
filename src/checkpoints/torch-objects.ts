// The Python objects that a saved state dict consists of (storages, tensors as views of them, ordered dicts), and
// those that training programs often keep beside it, of which only the name is used. This is the whole vocabulary of
// the unpickler. Sources: torch/_utils.py (_rebuild_tensor_v2), torch/serialization.py.

import type { ElementType } from "../dtypes.js";
import { CheckpointError } from "../errors.js";
import type { ChecksummedRange } from "./checkpoint.js";
import type { PickleGlobal, PickleValue } from "./unpickler.js";

/** A contiguous range of elements in the file, of which tensors are views. */
export interface Storage {
  readonly dtype: ElementType;
  readonly key: string;
  /** Number of elements. */
  readonly length: number;
  /** Position in the file, in bytes. In a legacy file it is known only after the pickle, and is filled in then. */
  offset: number;
  checksum?: ChecksummedRange;
}

/** A tensor as the pickle describes it: a strided view of a storage. */
export class PickledTensor {
  readonly storage: Storage;
  /** The first element, in elements of the storage, as are the strides. */
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

/** A tensor whose elements cannot be read. This is an error only if the tensor is one of the weights. */
export class UnreadableTensor {
  /** Why it cannot be read, as a phrase. */
  readonly reason: string;

  constructor(reason: string) {
    this.reason = reason;
  }
}

/** A value of a class that is known to be harmless and is not needed here. */
class SkippedValue {}

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

/**
 * PyTorch's element types, which occur in a pickle as values. Those in the last line have no storage class and are
 * not read.
 */
const elementTypes = [
  ...["float64", "float32", "float16", "bfloat16", "float", "double", "half", "complex64", "complex128"],
  ...["int64", "int32", "int16", "int8", "uint8", "long", "int", "short", "bool"],
  ...["float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "uint16", "uint32", "uint64"],
];

/** Calls that build kinds of tensors that are not read. */
const unreadableTensors: readonly (readonly [name: string, reason: string])[] = [
  ["torch._utils _rebuild_sparse_tensor", "it is sparse"],
  ["torch._utils _rebuild_nested_tensor", "it is nested"],
  ["torch._utils _rebuild_qtensor", "it is quantized by PyTorch"],
  ["torch._utils _rebuild_meta_tensor_no_storage", "it was saved from the meta device, without its values"],
  ["torch._utils _rebuild_device_tensor_from_numpy", "it is stored as a NumPy array"],
  [
    "torch._utils _rebuild_device_tensor_from_cpu_tensor",
    "it is on a device whose tensors PyTorch stores in another form",
  ],
  ["torch._utils _rebuild_wrapper_subclass", "it is of a wrapper class"],
];

/**
 * Classes of the values that training programs keep beside a state dict: options, numbers, devices. The values are
 * never built; the result has a `SkippedValue` in their place. Nothing here could do harm in Python either. A file
 * that names anything else is refused, since it is unknown what that would do.
 */
const skippedClasses = [
  "argparse Namespace",
  "types SimpleNamespace",
  "collections Counter",
  "collections deque",
  ...["builtins", "__builtin__"].flatMap((module) =>
    [
      "bool",
      "bytearray",
      "bytes",
      "complex",
      "dict",
      "float",
      "frozenset",
      "int",
      "list",
      "set",
      "slice",
      "str",
      "tuple",
    ].map((name) => `${module} ${name}`),
  ),
  ...[
    "pytorch_lightning.utilities.parsing",
    "lightning.pytorch.utilities.parsing",
    "lightning.fabric.utilities.data",
  ].map((module) => `${module} AttributeDict`),
  "_codecs encode",
  "datetime datetime",
  "datetime timedelta",
  "pathlib PosixPath",
  "pathlib PurePosixPath",
  "pathlib WindowsPath",
  ...["numpy.core.multiarray", "numpy._core.multiarray"].flatMap((module) => [
    `${module} scalar`,
    `${module} _reconstruct`,
  ]),
  "numpy dtype",
  "numpy ndarray",
  "torch Size",
  "torch device",
  "torch Tensor",
  "torch.nn.parameter Parameter",
  "torch.serialization _get_layout",
];

/** The names that the pickle of a state dict may use. */
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
    if (tensor instanceof PickledTensor || tensor instanceof UnreadableTensor) return tensor;
    throw new CheckpointError(file, "pickle: a parameter that is not a tensor");
  };
  const orderedDict: PickleGlobal = ([items]) => {
    const dict = new Map<PickleValue, PickleValue>();
    if (Array.isArray(items)) for (const pair of items) if (Array.isArray(pair)) dict.set(pair[0], pair[1]);
    return dict;
  };
  // A tensor of a subclass or with attributes: the call that rebuilds it, its type, and the arguments.
  const rebuildFromType: PickleGlobal = ([rebuild, , args]) => {
    if (typeof rebuild !== "function" || rebuild === rebuildFromType || !Array.isArray(args)) {
      throw new CheckpointError(file, "pickle: a tensor that is not built by a call");
    }
    return (rebuild as PickleGlobal)(args);
  };
  const globals = new Map<string, PickleGlobal>([
    ["collections OrderedDict", orderedDict],
    ["collections defaultdict", () => new Map()],
    ["torch._utils _rebuild_tensor", rebuildTensor],
    ["torch._utils _rebuild_tensor_v2", rebuildTensor],
    [
      "torch._utils _rebuild_tensor_v3",
      ([, , , , , , type]) => new UnreadableTensor(`its elements are ${nameOf(type)}`),
    ],
    ["torch._utils _rebuild_parameter", rebuildParameter],
    ["torch._utils _rebuild_parameter_with_state", rebuildParameter],
    ["torch._tensor _rebuild_from_type_v2", rebuildFromType],
  ]);
  for (const [name, reason] of unreadableTensors) globals.set(name, () => new UnreadableTensor(reason));
  for (const name of skippedClasses) globals.set(name, () => new SkippedValue());
  const types = new Map<unknown, string>();
  const nameOf = (type: unknown) => types.get(type) ?? "of an unknown type";
  for (const name of elementTypes) {
    const type: PickleGlobal = () => new SkippedValue();
    types.set(type, name);
    globals.set(`torch ${name}`, type);
  }
  for (const [name, dtype] of Object.entries(storageClasses)) {
    globals.set(`torch ${name}`, storageClass(file, name, dtype));
  }
  globals.set("torch.storage UntypedStorage", storageClass(file, "UntypedStorage", "u8"));
  return globals;
}

const dtypeOfClass = new WeakMap<object, ElementType>();

/** A storage class is a value in persistent ids. A state dict never calls it. */
function storageClass(file: string, name: string, dtype: ElementType): PickleGlobal {
  const global: PickleGlobal = () => {
    throw new CheckpointError(file, `pickle: it calls torch.${name}, which no state dict needs`);
  };
  dtypeOfClass.set(global, dtype);
  return global;
}

/**
 * Reads a persistent id: ("storage", class, key, location, element count, ...).
 *
 * @throws CheckpointError when the value is not such an id
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
