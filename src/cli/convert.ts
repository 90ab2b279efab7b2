// rwkv convert: rewrites a checkpoint in another format or element type.

import { basename } from "node:path";
import type { Command } from "commander";
import prettyBytes from "pretty-bytes";
import { matrixTypes } from "../backends/placement.js";
import { chatFormatFor } from "../chat/formats.js";
import { byteLengthOf, type Checkpoint, type Metadata, type StoredTensor } from "../checkpoints/checkpoint.js";
import { openCheckpoint } from "../checkpoints/open-checkpoint.js";
import { type GgufValue, writeGguf } from "../checkpoints/write-gguf.js";
import { writePth } from "../checkpoints/write-pth.js";
import { writeSafetensors } from "../checkpoints/write-safetensors.js";
import type { WritableTensor } from "../checkpoints/writer.js";
import { isBlockType, isElementType, isFloating, type WeightDType, weightDTypes } from "../dtypes.js";
import { CheckpointError, OptionError, RwkvError } from "../errors.js";
import { officialTensorsOf } from "../models/official-layout.js";
import { withOfficialTensors } from "../models/official-tensors.js";
import { bindModel, type RecognisedModel } from "../models/versions.js";
import { blockFormatOf, type StorageType } from "../quantization/storage-types.js";
import { convertedPieces, type Output } from "./converted-pieces.js";
import { copyTokenizer } from "./copy-tokenizer.js";
import { type ConvertedType, ggufFile, ggufMatrixTypes } from "./gguf-file.js";
import { placeOfModel } from "./named-model.js";
import { convertedTypeOption } from "./option-parsers.js";
import { QuantizingMachine } from "./quantizing-machine.js";
import { note, progressBar } from "./terminal.js";

export interface ConvertOptions {
  readonly dtype?: ConvertedType;
}

export function addConvert(program: Command): void {
  program
    .command("convert")
    .description("rewrite a checkpoint as .pth, .safetensors or .gguf, and put its tokenizer beside it")
    .argument("<in>", "a .pth, .safetensors, .gguf or rwkv.cpp .bin file, an index of shards, or a folder")
    .argument(
      "<out>",
      "file to write; its ending gives the format: .safetensors, .gguf, or PyTorch's for .pth, .pt and .bin",
    )
    .addOption(convertedTypeOption([...new Set([...weightDTypes, ...ggufMatrixTypes])]))
    .addHelpText(
      "after",
      `
Examples:
  $ rwkv convert RWKV-4-Pile-430M-20220808-8066.pth rwkv-430m.safetensors --dtype bf16
  $ rwkv convert RWKV-4-Pile-430M-20220808-8066.pth rwkv-430m-q4.safetensors --dtype q4
  $ rwkv convert rwkv7-g1-0.4b.pth rwkv7-g1-0.4b-Q8_0.gguf --dtype Q8_0
  $ rwkv convert model.safetensors.index.json whole.pth`,
    )
    .action((input: string, output: string, options: ConvertOptions) => convert(input, output, options));
}

/** The endings of files that can be written. */
export const writableEndings: RegExp = /\.(pth|pt|bin|safetensors|gguf)$/;

/**
 * Writes all of a checkpoint's tensors to a file, with what its config.json says of the model, since that stays behind; and
 * puts a model's tokenizer beside the file, or into it. .pth and .safetensors keep names and shapes, but for those that
 * other programs' converters made; GGUF has llama.cpp's.
 *
 * @throws RwkvError, CheckpointError; also where values are too large for the type that was asked for
 */
export async function convert(input: string, output: string, { dtype }: ConvertOptions = {}): Promise<void> {
  const [, ending] = writableEndings.exec(output) ?? [];
  if (!ending) throw new RwkvError(`${output}: expected a file name that ends in .pth, .safetensors or .gguf`);
  const checkpoint = await openCheckpoint(await placeOfModel(input));
  const bar = progressBar("writing");
  const quantizing = new QuantizingMachine();
  let done = 0;
  let total = 0;
  const writable = ({ name, tensor, dtype }: Output): WritableTensor => ({
    name,
    dtype,
    shape: tensor.shape,
    async *bytes() {
      for await (const piece of convertedPieces(tensor, dtype, quantizing)) {
        yield piece;
        done += piece.byteLength;
        bar.update(done, total);
      }
    },
  });
  const prepared = (outputs: readonly Output[]) => {
    const tensors = outputs.map(writable);
    total = tensors.reduce((sum, tensor) => sum + byteLengthOf(tensor), 0);
    return tensors;
  };
  try {
    let tensors: WritableTensor[];
    let copied: RecognisedModel | undefined;
    if (ending === "gguf") {
      const model = bindModel(checkpoint);
      const file = await ggufFile(checkpoint, model, dtype);
      tensors = prepared(file.outputs);
      await writeGguf(output, tensors, file.metadata satisfies ReadonlyMap<string, GgufValue>);
      if (!file.holdsTokenizer) copied = model;
    } else {
      const wanted = ownType(dtype);
      const official = withOfficialTensors(checkpoint);
      const model = recognise(checkpoint, wanted);
      tensors = prepared(outputsOf(official, model, wanted, ending === "safetensors"));
      const own = { ...official.metadata, ...model?.metadata };
      const metadata = model ? { ...own, ...nameThatTells(checkpoint.name, output, own) } : own;
      await (ending === "safetensors" ? writeSafetensors : writePth)(output, tensors, { metadata });
      copied = model;
    }
    const remark = ending === "bin" ? ", in PyTorch's format (rwkv.cpp's is only read)" : "";
    note(`${output}: ${tensors.length} tensors, ${prettyBytes(total)}${remark}`);
    if (copied) await copyTokenizer(checkpoint, output, copied.size.vocabulary);
  } finally {
    bar.stop();
    await quantizing.dispose();
    await checkpoint.close();
  }
}

/** The name of a model whose format of conversations only the old file's name tells, for the metadata of the new one. */
function nameThatTells(input: string, output: string, metadata: Metadata): Metadata {
  const formats = (source: string, metadata: Metadata) =>
    (["world", "huggingface"] as const)
      .map((kind) => chatFormatFor({ info: { source, metadata }, tokenizer: { kind } }))
      .join();
  const name = { "general.name": basename(input).replace(/\.\w+$/, "") };
  const before = formats(input, metadata);
  const isNeeded = formats(output, metadata) !== before && formats(output, { ...metadata, ...name }) === before;
  return isNeeded ? name : {};
}

function ownType(dtype: ConvertedType | undefined): WeightDType | undefined {
  if (dtype === undefined || isElementType(dtype) || isBlockType(dtype)) return dtype;
  throw new OptionError("dtype", dtype, `one of ${weightDTypes.join(", ")}, or a file that ends in .gguf`);
}

/** The model in a checkpoint; any other checkpoint is rewritten too, but blocks are made of a model's matrices only. */
function recognise(checkpoint: Checkpoint, wanted: WeightDType | undefined): RecognisedModel | undefined {
  try {
    return bindModel(checkpoint);
  } catch (error) {
    if (!(error instanceof CheckpointError) || (wanted && isBlockType(wanted))) throw error;
    note(`${error.message}\nits tensors are written as they are`);
    return undefined;
  }
}

/**
 * What to write, and with which types: blocks for the matrices of a model's products that are stored as they are
 * computed with, other types for whatever is floating. A head that config.json ties to the embedding becomes a tensor
 * of its own.
 *
 * @param holdsBlocks whether the format has types for blocks; one that does not says which it was given, as they are stored
 */
function outputsOf(
  checkpoint: Checkpoint,
  model: RecognisedModel | undefined,
  wanted: WeightDType | undefined,
  holdsBlocks: boolean,
): Output[] {
  const asWanted = ({ dtype }: StoredTensor): StorageType => {
    if (wanted && !isBlockType(wanted) && (isFloating(dtype) || !isElementType(dtype))) return wanted;
    // ggml's blocks are laid out as kernels read them, where those have the same numbers.
    return (holdsBlocks ? blockFormatOf(dtype)?.repack?.to : undefined) ?? dtype;
  };
  const isForeign = checkpoint.format === "gguf" || checkpoint.format === "ggml";
  const tensors = model && isForeign ? officialTensorsOf(model) : checkpoint.tensors;
  const outputs = new Map<string, Output>();
  for (const [name, tensor] of tensors) outputs.set(name, { name, tensor, dtype: asWanted(tensor) });
  if (!model) return [...outputs.values()];
  const types = wanted && isBlockType(wanted) ? matrixTypes(model.graph, model.tensors, wanted) : undefined;
  for (const { name, tensor, parts } of model.layout) {
    const [only] = parts;
    const type = parts.length === 1 && only?.location.isWhole ? types?.get(only.weight) : undefined;
    if (!tensor || (isForeign && !type)) continue;
    outputs.set(name, { name, tensor, dtype: type && isBlockType(type) ? type : asWanted(tensor) });
  }
  return [...outputs.values()];
}
