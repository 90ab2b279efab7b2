// GGUF, the format of llama.cpp: a magic number, the version, counts; metadata as keys with typed values; for each
// tensor its name, dimensions (the fastest first), type and offset; the data, aligned. Versions 2 and 3, little-endian.
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
//
// Metadata become texts, as those of the other formats are. Of arrays only the vocabulary is kept; others are passed over.

import type { ByteSource } from "../byte-source.js";
import { CheckpointError } from "../errors.js";
import type { StoredVocabulary } from "../stored-vocabulary.js";
import { byteLengthOf, checkShape, contiguousStrides, type Directory, type StoredTensor } from "./checkpoint.js";
import { ggmlTypeOf, ggufTypes } from "./ggml-types.js";
import { SequentialReader } from "./sequential-reader.js";

const magic = [0x47, 0x47, 0x55, 0x46]; // "GGUF"
/** What the file is aligned to where it does not say. */
export const defaultAlignment = 32;
const largestAlignment = 2 ** 16;

/** Limits: several times what the largest models have (vocabularies of 256,000 tokens and their merges, 2,000 tensors). */
const maxHeaderSize = 32 * 2 ** 20;
const maxTensors = 20_000;
const maxEntries = 10_000;
const maxTokens = 2 ** 20;
const maxKeyLength = 1024;
const maxTextLength = 2 ** 20;
const maxDimensions = 4;

/** Types of metadata values by number: how many bytes they take, and how to read one as a text. */
const scalars: Readonly<Record<number, { readonly size: number; text(view: DataView, at: number): string }>> = {
  0: { size: 1, text: (view, at) => String(view.getUint8(at)) },
  1: { size: 1, text: (view, at) => String(view.getInt8(at)) },
  2: { size: 2, text: (view, at) => String(view.getUint16(at, true)) },
  3: { size: 2, text: (view, at) => String(view.getInt16(at, true)) },
  4: { size: 4, text: (view, at) => String(view.getUint32(at, true)) },
  5: { size: 4, text: (view, at) => String(view.getInt32(at, true)) },
  6: { size: 4, text: (view, at) => singleAsText(view.getFloat32(at, true)) },
  7: { size: 1, text: (view, at) => String(view.getUint8(at) !== 0) },
  10: { size: 8, text: (view, at) => String(view.getBigUint64(at, true)) },
  11: { size: 8, text: (view, at) => String(view.getBigInt64(at, true)) },
  12: { size: 8, text: (view, at) => String(view.getFloat64(at, true)) },
};
const [stringType, arrayType] = [8, 9];

const tokensKey = "tokenizer.ggml.tokens";
const typesKey = "tokenizer.ggml.token_type";

/** Whether the file starts as a GGUF file does. */
export function looksLikeGguf(start: Uint8Array): boolean {
  return magic.every((byte, i) => start[i] === byte);
}

/**
 * Reads the directory of a GGUF file.
 *
 * @throws CheckpointError
 */
export async function readGguf(source: ByteSource): Promise<Directory> {
  const reader = new SequentialReader(source, maxHeaderSize);
  reader.skip(magic.length);
  checkVersion(source, await reader.uint32());
  const tensorCount = await count(source, reader, "tensors", maxTensors, 24);
  const entryCount = await count(source, reader, "metadata entries", maxEntries, 13);
  const { texts, vocabulary } = await readMetadata(source, reader, entryCount);
  const infos: TensorInfo[] = [];
  for (let i = 0; i < tensorCount; i++) infos.push(await readTensorInfo(source, reader, i));
  const alignment = alignmentIn(source, texts);
  const dataStart = Math.ceil(reader.position / alignment) * alignment;
  const tensors = placed(source, infos, dataStart, alignment);
  return { tensors, metadata: Object.fromEntries(texts), ...(vocabulary && { vocabulary }) };
}

function checkVersion(source: ByteSource, version: number): void {
  if (version === 2 || version === 3) return;
  const found =
    version === 1
      ? "version 1, whose lengths have 32 bits; convert the original anew"
      : (version & 0xffff) === 0 && version !== 0
        ? "a big-endian file, made for another kind of machine"
        : `version ${version}`;
  throw new CheckpointError(source.name, `GGUF: expected version 2 or 3, little-endian, found ${found}`);
}

/** @param leastSize bytes that each takes at least */
async function count(source: ByteSource, reader: SequentialReader, what: string, most: number, leastSize: number) {
  const value = await reader.uint64(`number of ${what}`);
  if (value <= most && value * leastSize <= reader.left) return value;
  const limit = Math.min(most, Math.floor(reader.left / leastSize));
  throw new CheckpointError(
    source.name,
    `expected at most ${limit} ${what} in a file of this size, found ${value} (truncated or damaged)`,
  );
}

async function readMetadata(source: ByteSource, reader: SequentialReader, entries: number) {
  const texts = new Map<string, string>();
  const keys = new Set<string>();
  let tokens: string[] | undefined;
  let types: number[] | undefined;
  for (let i = 0; i < entries; i++) {
    const key = await readText(reader, maxKeyLength, `key ${i} of the metadata`);
    if (keys.has(key)) throw new CheckpointError(source.name, `metadata ${key} occurs twice`);
    keys.add(key);
    const type = await reader.uint32();
    const scalar = scalars[type];
    if (scalar) texts.set(key, await reader.field(scalar.size, scalar.text));
    else if (type === stringType) texts.set(key, await readText(reader, maxTextLength, `metadata ${key}`));
    else if (type !== arrayType) {
      throw new CheckpointError(source.name, `metadata ${key}: expected a type of 0 to 12, found ${type}`);
    } else {
      const array = await readArrayStart(source, reader, key);
      if (key === tokensKey && array.type === stringType) {
        checkTokenCount(source, key, array.length);
        tokens = await reader.texts(array.length, maxTextLength, (id) => `token ${id}`);
      } else if (key === typesKey && array.size === 4) {
        checkTokenCount(source, key, array.length);
        types = await reader.uint32s(array.length);
      } else await passOver(reader, array, key);
    }
  }
  const kind = texts.get("tokenizer.ggml.model");
  const vocabulary: StoredVocabulary | undefined =
    kind !== undefined && tokens ? { kind, tokens, ...(types && { types }) } : undefined;
  if (tokens && types && types.length !== tokens.length) {
    throw new CheckpointError(source.name, `expected ${tokens.length} types of tokens, found ${types.length}`);
  }
  return { texts, vocabulary };
}

interface ArrayStart {
  readonly type: number;
  readonly length: number;
  /** Bytes of an element; undefined for texts. */
  readonly size: number | undefined;
}

async function readArrayStart(source: ByteSource, reader: SequentialReader, key: string): Promise<ArrayStart> {
  const type = await reader.uint32();
  const size = scalars[type]?.size;
  if (size === undefined && type !== stringType) {
    const found = type === arrayType ? "arrays, which are not read" : `type ${type}`;
    throw new CheckpointError(
      source.name,
      `metadata ${key}: expected an array of numbers or texts, found one of ${found}`,
    );
  }
  const length = await reader.uint64(`metadata ${key}: length of an array`);
  if (length * (size ?? 8) > reader.left) {
    throw new CheckpointError(
      source.name,
      `metadata ${key}: its array of ${length} elements reaches past the end of the file (truncated or damaged)`,
    );
  }
  return { type, length, size };
}

function checkTokenCount(source: ByteSource, key: string, length: number): void {
  if (length <= maxTokens) return;
  throw new CheckpointError(source.name, `metadata ${key}: expected at most ${maxTokens} tokens, found ${length}`);
}

async function passOver(reader: SequentialReader, { length, size }: ArrayStart, key: string): Promise<void> {
  if (size !== undefined) return reader.skip(length * size);
  for (let i = 0; i < length; i++) reader.skip(await reader.uint64(`metadata ${key}: length of a text`));
}

async function readText(reader: SequentialReader, most: number, what: string): Promise<string> {
  return reader.text(await reader.uint64(`${what}: its length`), most, what);
}

interface TensorInfo {
  readonly name: string;
  readonly shape: readonly number[];
  readonly type: number;
  /** From the beginning of the data. */
  readonly offset: number;
}

async function readTensorInfo(source: ByteSource, reader: SequentialReader, index: number): Promise<TensorInfo> {
  const name = await readText(reader, maxKeyLength, `name of tensor ${index}`);
  const dimensions = await reader.uint32();
  if (dimensions > maxDimensions) {
    throw new CheckpointError(
      source.name,
      `tensor ${name}: expected at most ${maxDimensions} dimensions, found ${dimensions}`,
    );
  }
  const shape: number[] = [];
  for (let i = 0; i < dimensions; i++) shape.unshift(await reader.uint64(`tensor ${name}: a dimension`));
  const type = await reader.uint32();
  const offset = await reader.uint64(`tensor ${name}: its offset`);
  return { name, shape, type, offset };
}

function alignmentIn(source: ByteSource, texts: ReadonlyMap<string, string>): number {
  const text = texts.get("general.alignment") ?? String(defaultAlignment);
  const alignment = Number(text);
  if (Number.isInteger(Math.log2(alignment)) && alignment >= 1 && alignment <= largestAlignment) return alignment;
  throw new CheckpointError(
    source.name,
    `metadata general.alignment: expected a power of two up to ${largestAlignment}, found ${JSON.stringify(text.slice(0, 60))}`,
  );
}

/** The tensors, each of which lies inside the file, at an aligned place, and in no other. */
function placed(source: ByteSource, infos: readonly TensorInfo[], dataStart: number, alignment: number) {
  const tensors = new Map<string, StoredTensor>();
  const ranges: { readonly name: string; readonly begin: number; readonly end: number }[] = [];
  for (const { name, shape, type, offset } of infos) {
    if (tensors.has(name)) throw new CheckpointError(source.name, `there are two tensors ${name}`);
    checkShape(source.name, name, shape);
    const dtype = ggmlTypeOf(source.name, name, ggufTypes, type, shape);
    const size = byteLengthOf({ dtype, shape });
    const begin = dataStart + offset;
    if (offset % alignment !== 0 || begin + size > source.size) {
      throw new CheckpointError(
        source.name,
        `tensor ${name}: expected ${size} bytes at a multiple of ${alignment} inside the file's ` +
          `${Math.max(0, source.size - dataStart)} bytes of data, found offset ${offset}` +
          (offset % alignment === 0 ? " (the file is truncated or damaged)" : ""),
      );
    }
    tensors.set(name, { name, dtype, shape, strides: contiguousStrides(shape), source, offset: begin });
    ranges.push({ name, begin, end: begin + size });
  }
  ranges.sort((a, b) => a.begin - b.begin || a.end - b.end);
  ranges.forEach((range, i) => {
    const before = ranges[i - 1];
    if (before && range.begin < before.end) {
      throw new CheckpointError(source.name, `tensors ${before.name} and ${range.name} overlap`);
    }
  });
  return tensors;
}

/** The shortest text that stands for a float32: 1e-5 rather than 0.000009999999747378752. */
function singleAsText(value: number): string {
  for (let digits = 1; digits < 9; digits++) {
    const text = value.toPrecision(digits);
    if (Math.fround(Number(text)) === value) return String(Number(text));
  }
  return String(value);
}
