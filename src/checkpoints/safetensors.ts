// safetensors: eight bytes of header length, a JSON header that gives each tensor's dtype, shape and byte range, the
// data. Format: https://github.com/huggingface/safetensors#format
//
// The format has no type for quantized matrices. They are stored as bytes, U8 [groups, bytes of a group]. The
// header's __metadata__, which takes strings only, says what they are ("blocks/<tensor>": "q4 <outputs> <inputs>")
// and in which order their bytes are ("blocks.layout": "1").

import { type ByteSource, readRange } from "../byte-source.js";
import { type BlockType, bytesPerElement, type ElementType, elementCount } from "../dtypes.js";
import { CheckpointError } from "../errors.js";
import { blockLayout, groupOutputs } from "../quantization/blocks.js";
import { storedSize } from "../quantization/storage-types.js";
import {
  checkShape,
  contiguousStrides,
  type Directory,
  describeNumbers,
  type Metadata,
  type StoredTensor,
} from "./checkpoint.js";
import { parseHeader } from "./json-header.js";

/** Element types by their names in safetensors. */
export const safetensorsTypes: Readonly<Record<string, ElementType>> = {
  F64: "f64",
  F32: "f32",
  F16: "f16",
  BF16: "bf16",
  I64: "i64",
  I32: "i32",
  I16: "i16",
  I8: "i8",
  U8: "u8",
  BOOL: "bool",
};

/**
 * The largest header that is read, in bytes: enough for about 10,000 tensors, ten times those of the largest RWKV
 * models, and under 50 MiB when parsed.
 */
export const maxHeaderSize = 2 ** 20;

interface HeaderEntry {
  dtype?: unknown;
  shape?: unknown;
  data_offsets?: unknown;
}

/** Whether the file starts as a safetensors file does: a length that fits the file, then an opening brace. */
export function looksLikeSafetensors(start: Uint8Array): boolean {
  return start[8] === 0x7b;
}

/**
 * Reads the directory of a safetensors file.
 *
 * @throws CheckpointError
 */
export async function readSafetensors(source: ByteSource): Promise<Directory> {
  const { header, dataStart } = await readHeader(source);
  const metadata = textsOf(header["__metadata__"]);
  const tensors = new Map<string, StoredTensor>();
  const ranges: { name: string; begin: number; end: number }[] = [];
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const { tensor, begin, end } = storedTensor(source, name, entry as HeaderEntry, dataStart);
    tensors.set(name, inBlocks(source, tensor, metadata));
    ranges.push({ name, begin, end });
  }
  ranges.sort((a, b) => a.begin - b.begin || a.end - b.end);
  ranges.forEach((range, i) => {
    const before = ranges[i - 1];
    if (before && range.begin < before.end) {
      throw new CheckpointError(source.name, `tensors ${before.name} and ${range.name} overlap`);
    }
  });
  return { tensors, metadata: Object.fromEntries(Object.entries(metadata).filter(([key]) => !isOfFormat(key))) };
}

/** The texts in __metadata__. Other values, which the format does not allow, are skipped. */
function textsOf(value: unknown): Metadata {
  if (typeof value !== "object" || value === null) return {};
  return Object.fromEntries(Object.entries(value).filter(([, text]) => typeof text === "string"));
}

/** Whether a key of __metadata__ describes the file itself rather than the model in it. */
export function isOfFormat(key: string): boolean {
  return key === "format" || key === layoutKey || key.startsWith(blocksPrefix);
}

async function readHeader(source: ByteSource) {
  const prefix = await readRange(source, 0, 8);
  const length = new DataView(prefix.buffer).getBigUint64(0, true);
  if (length > BigInt(maxHeaderSize)) {
    throw new CheckpointError(source.name, `header claims ${length} bytes; expected at most ${maxHeaderSize}`);
  }
  const bytes = await readRange(source, 8, Number(length));
  let header: unknown;
  try {
    header = parseHeader(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    const reason = (cause as Error).message.slice(0, 200);
    throw new CheckpointError(source.name, `header is not JSON in UTF-8 as expected: ${reason}`, { cause });
  }
  if (typeof header !== "object" || header === null || Array.isArray(header)) {
    throw new CheckpointError(source.name, "header is not a JSON object");
  }
  return { header: header as Record<string, unknown>, dataStart: 8 + Number(length) };
}

function describeList(value: unknown): string {
  return Array.isArray(value) ? describeNumbers(value) : typeof value;
}

function storedTensor(source: ByteSource, name: string, entry: HeaderEntry, dataStart: number) {
  const type = typeof entry?.dtype === "string" ? entry.dtype : "";
  const dtype = Object.hasOwn(safetensorsTypes, type) ? safetensorsTypes[type] : undefined;
  const offsets = entry?.data_offsets;
  if (!dtype || !Array.isArray(entry.shape) || !Array.isArray(offsets) || offsets.length !== 2) {
    throw new CheckpointError(
      source.name,
      `tensor ${name.slice(0, 200)}: expected a dtype of ${Object.keys(safetensorsTypes).join(", ")}, a shape and two ` +
        "data_offsets, found " +
        `dtype "${type.slice(0, 20)}", shape ${describeList(entry?.shape)}, data_offsets ${describeList(offsets)}`,
    );
  }
  checkShape(source.name, name, entry.shape);
  const [begin, end] = offsets as [number, number];
  const expected = elementCount(entry.shape) * bytesPerElement[dtype];
  const inside =
    Number.isSafeInteger(begin) && Number.isSafeInteger(end) && begin >= 0 && dataStart + end <= source.size;
  if (!inside || end - begin !== expected) {
    throw new CheckpointError(
      source.name,
      `tensor ${name}: expected ${expected} bytes inside the file's ${source.size - dataStart}, found range ${begin} to ${end}` +
        (end - begin === expected && begin >= 0 ? " (the file is truncated)" : ""),
    );
  }
  const tensor: StoredTensor = {
    name,
    dtype,
    shape: entry.shape,
    strides: contiguousStrides(entry.shape),
    source,
    offset: dataStart + begin,
  };
  return { tensor, begin, end };
}

const blocksPrefix = "blocks/";
const layoutKey = "blocks.layout";

/** The entries of __metadata__ for a quantized matrix. */
export function blockMetadata(name: string, dtype: BlockType, [outputs, inputs]: readonly number[]): Metadata {
  return { [layoutKey]: String(blockLayout), [blocksPrefix + name]: `${dtype} ${outputs} ${inputs}` };
}

/** The shape with which a quantized matrix is stored. */
export function blockStorageShape(dtype: BlockType, [outputs, inputs]: readonly number[]): [number, number] {
  const groups = Math.ceil((outputs as number) / groupOutputs);
  return [groups, storedSize(dtype, [outputs as number, inputs as number]) / groups];
}

/** The tensor, as a quantized matrix where the metadata declare it to be one. */
function inBlocks(source: ByteSource, tensor: StoredTensor, metadata: Metadata): StoredTensor {
  const text = Object.hasOwn(metadata, blocksPrefix + tensor.name) ? metadata[blocksPrefix + tensor.name] : undefined;
  if (text === undefined) return tensor;
  // Files that were written before layouts had numbers have layout 1.
  const layout = Object.hasOwn(metadata, layoutKey) ? (metadata[layoutKey] as string) : "1";
  if (layout !== String(blockLayout)) {
    throw new CheckpointError(
      source.name,
      `tensor ${tensor.name}: expected blocks of layout ${blockLayout}, found layout ${JSON.stringify(layout.slice(0, 20))}, ` +
        "from another version of this package; convert the original checkpoint again",
    );
  }
  const [, type, outputs, inputs] = /^(q8|q4|q4k|q5k|q6k) (\d{1,9}) (\d{1,9})$/.exec(text) ?? [];
  const dtype = type as BlockType;
  const shape = [Number(outputs), Number(inputs)];
  const expected = type && blockStorageShape(dtype, shape).join();
  if (!expected || tensor.dtype !== "u8" || tensor.shape.join() !== expected) {
    throw new CheckpointError(
      source.name,
      `tensor ${tensor.name}: expected ${expected ? `U8 [${expected.replace(",", ", ")}]` : "q8 or q4, outputs and inputs"} ` +
        `for blocks of "${text.slice(0, 60)}", found ${tensor.dtype} [${tensor.shape.join(", ")}]`,
    );
  }
  return { ...tensor, dtype, shape, strides: contiguousStrides(shape) };
}
