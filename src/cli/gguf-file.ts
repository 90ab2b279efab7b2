// What rwkv convert writes into a GGUF file: a model's tensors as llama.cpp has them, their types, metadata, and the
// tokenizer. Sources: llama.cpp, conversion/base.py (metadata, tokenizer), src/llama-quant.cpp (which matrix gets which type).

import { basename } from "node:path";
import type { Checkpoint, StoredTensor } from "../checkpoints/checkpoint.js";
import type { GgufValue } from "../checkpoints/write-gguf.js";
import { isElementType, isFloatType, type WeightDType } from "../dtypes.js";
import { CheckpointError, TokenizerError } from "../errors.js";
import { type GgufModel, ggufModelOf } from "../models/gguf-tensors.js";
import { officialTensorsOf } from "../models/official-layout.js";
import type { RecognisedModel } from "../models/versions.js";
import { blockFormatOf, type StorageType } from "../quantization/storage-types.js";
import { byteTokenizer } from "../tokenizers/bytes.js";
import { tokenizerFor } from "../tokenizers/open-tokenizer.js";
import { vocabularyOf } from "../tokenizers/stored-tokenizer.js";
import { tokenizerOfTokens, type WorldTokenizer } from "../tokenizers/world.js";
import { ggmlTypeWithNumbersOf, type Output } from "./converted-pieces.js";
import { note } from "./terminal.js";

/** Types of blocks that a GGUF file is written with. */
export const ggufMatrixTypes = ["Q8_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K"] as const;

/** Types that can be asked for: any that models are loaded with, and for GGUF ggml's own. */
export type ConvertedType = WeightDType | (typeof ggufMatrixTypes)[number];

/** What general.file_type says of a file whose matrices have mostly this type (llama.h, enum llama_ftype). */
const fileTypes: Partial<Record<StorageType, number>> = {
  f32: 0,
  f16: 1,
  Q4_0: 2,
  Q4_1: 3,
  Q8_0: 7,
  Q5_0: 8,
  Q5_1: 9,
  Q2_K: 10,
  Q3_K: 12,
  Q4_K: 15,
  Q5_K: 17,
  Q6_K: 18,
  IQ4_NL: 25,
  IQ4_XS: 30,
  bf16: 32,
};

/** The contents of a GGUF file. */
export interface GgufFile {
  readonly outputs: readonly Output[];
  readonly metadata: ReadonlyMap<string, GgufValue>;
  /** Whether the model's tokenizer is in the metadata; else it must lie beside the file. */
  readonly holdsTokenizer: boolean;
}

/**
 * @param wanted the type of matrices; by default each as it is stored
 * @throws CheckpointError for a version, or a part of a model, that llama.cpp does not have
 */
export async function ggufFile(
  checkpoint: Checkpoint,
  model: RecognisedModel,
  wanted: ConvertedType | undefined,
): Promise<GgufFile> {
  const { version, size } = model;
  const gguf = ggufModelOf(version, officialTensorsOf(model));
  if (!gguf) throw new CheckpointError(checkpoint.name, `an RWKV-${version} model, for which GGUF has no architecture`);
  const [unplaced] = gguf.unplaced;
  if (unplaced !== undefined) {
    const more = gguf.unplaced.length > 1 ? ` (and ${gguf.unplaced.length - 1} more)` : "";
    throw new CheckpointError(
      checkpoint.name,
      `GGUF has no place for ${unplaced}${more}, without which it would be another model; write .pth or .safetensors`,
    );
  }
  const outputs = gguf.tensors.map(({ name, tensor, isMatrix }): Output => {
    const dtype = isMatrix ? nearestType(tensor, matrixType(name, tensor, wanted)) : "f32";
    return { name, tensor: { ...tensor, name }, dtype };
  });
  noteOtherTypes(checkpoint.name, gguf, wanted);

  const { architecture } = gguf;
  const metadata = new Map<string, GgufValue>();
  const number = (key: string, value: number) => void metadata.set(key, { type: "uint32", value });
  const text = (key: string, value: string) => void metadata.set(key, { type: "string", value });
  text("general.architecture", architecture);
  text("general.type", "model");
  text("general.name", basename(checkpoint.name).replace(/\.\w+$/, ""));
  for (const [key, value] of Object.entries(checkpoint.metadata)) if (isKept(key)) text(key, value);
  for (const [key, value] of Object.entries(gguf.numbers)) number(`${architecture}.${key}`, value);
  const epsilon = Number(model.metadata["rwkv.layer_norm_epsilon"] ?? 1e-5);
  metadata.set(`${architecture}.attention.layer_norm_epsilon`, { type: "float32", value: epsilon });
  const main = mainType(outputs);
  const fileType = fileTypes[main];
  if (fileType !== undefined) number("general.file_type", fileType);
  if (!isElementType(main)) number("general.quantization_version", 2);
  const tokenizer = await worldTokenizerFor(checkpoint, size.vocabulary);
  if (!tokenizer) note(`${checkpoint.name}: no World vocabulary beside it, so the file is written without a tokenizer`);
  for (const [key, value] of tokenizerMetadata(checkpoint, tokenizer, size.vocabulary)) metadata.set(key, value);
  return { outputs, metadata, holdsTokenizer: tokenizer !== undefined };
}

/** What a GGUF file or another says of where the model comes from, as texts that stay true. */
function isKept(key: string): boolean {
  return /^general\.(name|author|version|organization|basename|finetune|description|license|url|repo_url|source\.[\w.]+|tags)/.test(
    key,
  );
}

/**
 * As a matrix is stored, or as it is wanted. Every logit depends on the head, so that it gets no fewer bits than Q6_K has, as
 * llama.cpp does it.
 */
function matrixType(name: string, tensor: StoredTensor, wanted: ConvertedType | undefined): StorageType {
  const type = inGguf(wanted ?? tensor.dtype);
  const isFewer = wanted !== undefined && ["Q4_0", "Q4_K", "Q5_K"].includes(type);
  return name === "output.weight" && isFewer ? "Q6_K" : type;
}

/** The nearest type to one that a matrix's rows can be, since blocks take a multiple of their inputs. */
function nearestType(tensor: StoredTensor, type: StorageType): StorageType {
  const inputs = tensor.shape[1] as number;
  return [type, "Q8_0" as const].find((each) => inputs % inputsMultiple(each) === 0) ?? "f16";
}

function inputsMultiple(type: StorageType): number {
  return blockFormatOf(type)?.inputsMultiple ?? 1;
}

/** Says which matrices get another type than they should, a line for each pair of types. */
function noteOtherTypes(file: string, { tensors }: GgufModel, wanted: ConvertedType | undefined): void {
  const matrices = tensors.filter(({ isMatrix }) => isMatrix);
  const others = new Map<string, number>();
  for (const { name, tensor } of matrices) {
    const type = matrixType(name, tensor, wanted);
    const nearest = nearestType(tensor, type);
    if (nearest === type) continue;
    const line = `written as ${nearest}, since rows of ${type} have a multiple of ${inputsMultiple(type)} weights`;
    others.set(line, (others.get(line) ?? 0) + 1);
  }
  for (const [line, count] of others) note(`${file}: ${count} of ${matrices.length} matrices are ${line}`);
}

function inGguf(type: StorageType): StorageType {
  if (isElementType(type) && !isFloatType(type)) return "f32";
  return ggmlTypeWithNumbersOf(type) ?? type;
}

/** The type that most weights of matrices have. */
function mainType(outputs: readonly Output[]): StorageType {
  const counts = new Map<StorageType, number>();
  for (const { tensor, dtype } of outputs) {
    if (tensor.shape.length !== 2) continue;
    counts.set(dtype, (counts.get(dtype) ?? 0) + (tensor.shape[0] as number) * (tensor.shape[1] as number));
  }
  return [...counts].reduce((most, next) => (next[1] > most[1] ? next : most))[0];
}

function tokenizerMetadata(
  checkpoint: Checkpoint,
  tokenizer: WorldTokenizer | undefined,
  size: number,
): Map<string, GgufValue> {
  const metadata = new Map<string, GgufValue>();
  const ownTemplate = checkpoint.metadata[templateKey];
  if (!tokenizer) {
    if (ownTemplate !== undefined) metadata.set(templateKey, { type: "string", value: ownTemplate });
    return metadata.set("tokenizer.ggml.model", { type: "string", value: "none" });
  }
  const { kind, tokens, types } = vocabularyOf(tokenizer, size);
  metadata.set("tokenizer.ggml.model", { type: "string", value: kind });
  metadata.set("tokenizer.ggml.tokens", { type: "strings", value: tokens });
  metadata.set("tokenizer.ggml.token_type", { type: "int32s", value: types });
  metadata.set("tokenizer.ggml.bos_token_id", { type: "uint32", value: 0 });
  metadata.set("tokenizer.ggml.eos_token_id", { type: "uint32", value: 0 });
  // A turn of a conversation ends with an empty line.
  const turnEnd = tokens.indexOf("\\n\\n");
  if (turnEnd >= 0) metadata.set("tokenizer.ggml.eot_token_id", { type: "uint32", value: turnEnd });
  const template = ownTemplate ?? (turnEnd >= 0 ? "rwkv-world" : undefined);
  if (template !== undefined) metadata.set(templateKey, { type: "string", value: template });
  return metadata;
}

const templateKey = "tokenizer.chat_template";

/** The World tokenizer in or beside a checkpoint, or bytes; undefined where there is none or another. */
async function worldTokenizerFor(checkpoint: Checkpoint, size: number): Promise<WorldTokenizer | undefined> {
  const tokenizer = await tokenizerFor(checkpoint, size).catch((error) => {
    if (!(error instanceof TokenizerError)) throw error;
    return undefined;
  });
  if (tokenizer?.kind === "world") return tokenizer as WorldTokenizer;
  if (tokenizer?.kind !== "bytes") return undefined;
  const bytes = Array.from({ length: byteTokenizer().vocabularySize }, (_, byte) => Uint8Array.of(byte));
  return tokenizerOfTokens(checkpoint.name, bytes);
}
