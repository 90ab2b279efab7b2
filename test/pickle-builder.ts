// Assembles pickles opcode by opcode, for tests of the unpickler.

/** Opcodes by their names in CPython's pickletools, each with its argument. */
export const op = {
  proto: (version = 2) => [0x80, version],
  stop: () => [0x2e],
  mark: () => [0x28],
  emptyDict: () => [0x7d],
  emptyList: () => [0x5d],
  emptyTuple: () => [0x29],
  tuple: () => [0x74],
  tuple1: () => [0x85],
  tuple2: () => [0x86],
  append: () => [0x61],
  appends: () => [0x65],
  setItem: () => [0x73],
  setItems: () => [0x75],
  reduce: () => [0x52],
  build: () => [0x62],
  none: () => [0x4e],
  false: () => [0x89],
  dup: () => [0x32],
  pop: () => [0x30],
  persistentId: () => [0x51],
  put: (index: number) => [0x72, ...uint32(index)],
  get: (index: number) => [0x6a, ...uint32(index)],
  int: (value: number) => [0x4a, ...uint32(value)],
  long: (value: bigint, length = 8) => [
    0x8a,
    length,
    ...Array.from({ length }, (_, i) => Number((value >> BigInt(8 * i)) & 255n)),
  ],
  text: (value: string) => [0x58, ...uint32(Buffer.byteLength(value)), ...Buffer.from(value)],
  global: (module: string, name: string) => [0x63, ...Buffer.from(`${module}\n${name}\n`)],
  stackGlobal: () => [0x93],
  inst: (module: string, name: string) => [0x69, ...Buffer.from(`${module}\n${name}\n`)],
  object: () => [0x6f],
  newObject: () => [0x81],
  extension: (code: number) => [0x82, code],
} as const;

export function pickle(...parts: readonly (readonly number[])[]): Uint8Array {
  return Uint8Array.from(parts.flat());
}

/** The call that rebuilds a tensor from storage `key`, as torch.save writes it. */
export function tensor(
  key: string,
  options: {
    storageClass?: string;
    length?: number;
    offset?: number;
    shape?: readonly number[][];
    strides?: readonly number[][];
  } = {},
): number[] {
  const { storageClass = "FloatStorage", length = 4, offset = 0, shape = [op.int(4)], strides = [op.int(1)] } = options;
  return [
    op.global("torch._utils", "_rebuild_tensor_v2"),
    op.mark(),
    op.mark(),
    op.text("storage"),
    op.global("torch", storageClass),
    op.text(key),
    op.text("cpu"),
    op.int(length),
    op.tuple(),
    op.persistentId(),
    op.int(offset),
    op.mark(),
    ...shape,
    op.tuple(),
    op.mark(),
    ...strides,
    op.tuple(),
    op.false(),
    op.global("collections", "OrderedDict"),
    op.emptyTuple(),
    op.reduce(),
    op.tuple(),
    op.reduce(),
  ].flat();
}

function uint32(value: number): number[] {
  return [value & 255, (value >>> 8) & 255, (value >>> 16) & 255, (value >>> 24) & 255];
}
