// The types of tensors that ggml has, by the numbers that GGUF files and those of rwkv.cpp give them. Blocks are
// described in quantization/; a type that is not among those is known here by its name alone.

import { elementCount } from "../dtypes.js";
import { CheckpointError } from "../errors.js";
import { blockFormatOf, blockFormats, type StorageType } from "../quantization/storage-types.js";

/** Names by number in GGUF (ggml.h, enum ggml_type); numbers without a name were taken out again. */
export const ggufTypes: Readonly<Record<number, string>> = {
  0: "F32",
  1: "F16",
  2: "Q4_0",
  3: "Q4_1",
  6: "Q5_0",
  7: "Q5_1",
  8: "Q8_0",
  9: "Q8_1",
  10: "Q2_K",
  11: "Q3_K",
  12: "Q4_K",
  13: "Q5_K",
  14: "Q6_K",
  15: "Q8_K",
  16: "IQ2_XXS",
  17: "IQ2_XS",
  18: "IQ3_XXS",
  19: "IQ1_S",
  20: "IQ4_NL",
  21: "IQ3_S",
  22: "IQ2_S",
  23: "IQ4_XS",
  24: "I8",
  25: "I16",
  26: "I32",
  27: "I64",
  28: "F64",
  29: "IQ1_M",
  30: "BF16",
  31: "Q4_0_4_4",
  32: "Q4_0_4_8",
  33: "Q4_0_8_8",
  34: "TQ1_0",
  35: "TQ2_0",
  39: "MXFP4",
  40: "NVFP4",
  41: "Q1_0",
  42: "Q2_0",
};

/** Names by number in rwkv.cpp's files (rwkv_file_format.inc, enum rwkv_type). */
export const rwkvCppTypes: Readonly<Record<number, string>> = {
  0: "F32",
  1: "F16",
  2: "Q4_0",
  3: "Q4_1",
  4: "Q4_1_O",
  5: "Q4_2",
  6: "Q4_3",
  7: "Q5_0",
  8: "Q5_1",
  9: "Q8_0",
  10: "Q8_1",
  11: "Q2_K",
  12: "Q3_K",
  13: "Q4_K",
  14: "Q5_K",
  15: "Q6_K",
  16: "Q8_K",
};

const elementTypes: Readonly<Record<string, StorageType>> = {
  F32: "f32",
  F16: "f16",
  BF16: "bf16",
  F64: "f64",
  I8: "i8",
  I16: "i16",
  I32: "i32",
  I64: "i64",
};

/**
 * The type that a tensor has by a file's number for it.
 *
 * @param shape rows first
 * @throws CheckpointError for a type that cannot be read, by its name, and for a shape that a type of blocks cannot have
 */
export function ggmlTypeOf(
  file: string,
  tensor: string,
  types: Readonly<Record<number, string>>,
  id: number,
  shape: readonly number[],
): StorageType {
  const name = types[id];
  const dtype = elementTypes[name ?? ""] ?? (blockFormats.has(name ?? "") ? (name as StorageType) : undefined);
  if (name === undefined || dtype === undefined) {
    const readable = Object.values(types).filter((each) => each in elementTypes || blockFormats.has(each));
    throw new CheckpointError(
      file,
      `tensor ${tensor}: its type ${name ?? `${id}`} cannot be read; those that can are ${readable.join(", ")}`,
    );
  }
  const format = blockFormatOf(dtype);
  if (format && (shape.length !== 2 || (shape[1] as number) % format.inputsMultiple !== 0)) {
    throw new CheckpointError(
      file,
      `tensor ${tensor}: expected a matrix with rows of a multiple of ${format.inputsMultiple} for ${name}, ` +
        `found [${shape.join(", ")}], ${elementCount(shape)} elements`,
    );
  }
  return dtype;
}

/** The number of a type in GGUF. @throws RangeError for one that GGUF does not have */
export function ggufTypeNumber(dtype: StorageType): number {
  const entry = Object.entries(ggufTypes).find(([, name]) => name === dtype || elementTypes[name] === dtype);
  if (!entry) throw new RangeError(`GGUF has no type ${dtype}`);
  return Number(entry[0]);
}
