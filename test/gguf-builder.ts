// Builds GGUF files and those of rwkv.cpp, byte by byte: sound ones, and any that a hostile program could write.

/** A field of a header. */
export const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value >>> 0);
  return bytes;
};
export const u64 = (value: number | bigint): Buffer => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
};
export const f32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return bytes;
};
/** A text with its length, which may be a lie. */
export const text = (value: string, length: number | bigint = Buffer.byteLength(value)): Buffer =>
  Buffer.concat([u64(length), Buffer.from(value)]);

/** Entries of the metadata. */
export const entry = {
  uint32: (key: string, value: number): Buffer => Buffer.concat([text(key), u32(4), u32(value)]),
  float32: (key: string, value: number): Buffer => Buffer.concat([text(key), u32(6), f32(value)]),
  string: (key: string, value: string): Buffer => Buffer.concat([text(key), u32(8), text(value)]),
  array: (key: string, type: number, count: number | bigint, ...elements: Buffer[]): Buffer =>
    Buffer.concat([text(key), u32(9), u32(type), u64(count), ...elements]),
  strings: (key: string, values: readonly string[]): Buffer =>
    entry.array(key, 8, values.length, ...values.map((value) => text(value))),
  int32s: (key: string, values: readonly number[]): Buffer => entry.array(key, 5, values.length, ...values.map(u32)),
};

/** What is said of a tensor. */
export interface GgufTensor {
  readonly name: string;
  /** Rows first. */
  readonly shape: readonly (number | bigint)[];
  /** ggml's number. By default F32. */
  readonly type?: number;
  /** By default behind the data of all before it, aligned. */
  readonly offset?: number | bigint;
  readonly data?: Uint8Array;
}

export interface GgufParts {
  readonly version?: number;
  readonly entries?: readonly Buffer[];
  readonly tensors?: readonly GgufTensor[];
  readonly entryCount?: number | bigint;
  readonly tensorCount?: number | bigint;
  /** What data are aligned to; the metadata must say it, too. */
  readonly alignment?: number;
}

export function gguf({ version = 3, alignment = 32, ...parts }: GgufParts): Buffer {
  const { entries = [], tensors = [], entryCount, tensorCount } = parts;
  const infos: Buffer[] = [];
  const data: Buffer[] = [];
  let at = 0;
  for (const { name, shape, type = 0, offset = at, data: bytes = new Uint8Array(0) } of tensors) {
    infos.push(Buffer.concat([text(name), u32(shape.length), ...shape.toReversed().map(u64), u32(type), u64(offset)]));
    const size = Math.ceil(bytes.length / alignment) * alignment;
    data.push(Buffer.concat([bytes, Buffer.alloc(size - bytes.length)]));
    at += size;
  }
  const counts = [u64(tensorCount ?? tensors.length), u64(entryCount ?? entries.length)];
  const header = Buffer.concat([Buffer.from("GGUF"), u32(version), ...counts, ...entries, ...infos]);
  return Buffer.concat([header, Buffer.alloc((alignment - (header.length % alignment)) % alignment), ...data]);
}

/** Floats as the bytes of a tensor. */
export function floatBytes(values: readonly number[]): Uint8Array {
  return new Uint8Array(Float32Array.from(values).buffer);
}

/** A tensor of rwkv.cpp. @param shape rows first */
export function ggmlTensor(
  name: string,
  shape: readonly number[],
  data: Uint8Array,
  { type = 0, nameLength = name.length, dimensions = shape.length } = {},
): Buffer {
  return Buffer.concat([
    u32(dimensions),
    u32(nameLength),
    u32(type),
    ...shape.toReversed().map(u32),
    Buffer.from(name),
    data,
  ]);
}

/** A file of rwkv.cpp. @param sizes vocabulary, width, layers */
export function ggml(sizes: readonly number[], tensors: readonly Buffer[], version = 101): Buffer {
  return Buffer.concat([u32(0x67676d66), u32(version), ...sizes.map(u32), u32(0), ...tensors]);
}
