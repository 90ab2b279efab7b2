// rwkv convert: rewrites a checkpoint in another format or element type.

import type { Command } from "commander";
import prettyBytes from "pretty-bytes";
import { defaultThreads } from "#platform/backends";
import { writeFileAtomically } from "#platform/file-writer";
import { basename, dirname, fileSize, join, readBytes } from "#platform/files";
import type { KernelMachine } from "../backends/kernel/kernel-machine.js";
import { Quantizer } from "../backends/kernel/quantizer.js";
import { createNativeMachine } from "../backends/native/native.js";
import { matrixTypes } from "../backends/placement.js";
import { createWasmMachine } from "../backends/wasm/wasm.js";
import { byteLengthOf, type Checkpoint, type StoredTensor } from "../checkpoints/checkpoint.js";
import { openCheckpoint } from "../checkpoints/open-checkpoint.js";
import { describeClamped, describeOverflow, tensorPieces } from "../checkpoints/read-tensor.js";
import { writePth } from "../checkpoints/write-pth.js";
import { writeSafetensors } from "../checkpoints/write-safetensors.js";
import type { WritableTensor } from "../checkpoints/writer.js";
import { type BlockType, isBlockType, isElementType, isFloating, noOverflow, type WeightDType } from "../dtypes.js";
import { BackendError, CheckpointError, RwkvError, TokenizerError } from "../errors.js";
import { bindModel, type RecognisedModel } from "../models/versions.js";
import { clampedBlocks } from "../quantization/quantize.js";
import type { StorageType } from "../quantization/storage-types.js";
import { tokenizerFileFor } from "../tokenizers/open-tokenizer.js";
import { dtypeOption } from "./option-parsers.js";
import { note, progressBar } from "./terminal.js";

export function addConvert(program: Command): void {
  program
    .command("convert")
    .description(
      "rewrite a checkpoint as .pth or .safetensors, and put its tokenizer beside it; names and shapes stay as they are",
    )
    .argument("<in>", "a .pth or .safetensors file, an index of shards, or a folder")
    .argument("<out>", "file to write; its ending (.pth, .safetensors) gives the format")
    .addOption(dtypeOption("type of floating point tensors (default: as stored)"))
    .addHelpText(
      "after",
      `
Examples:
  $ rwkv convert RWKV-4-Pile-430M-20220808-8066.pth rwkv-430m.safetensors --dtype bf16
  $ rwkv convert RWKV-4-Pile-430M-20220808-8066.pth rwkv-430m-q4.safetensors --dtype q4
  $ rwkv convert model.safetensors.index.json whole.pth`,
    )
    .action((input: string, output: string, options: { dtype?: WeightDType }) => convert(input, output, options));
}

/** The endings of files that can be written. */
export const writableEndings: RegExp = /\.(pth|pt|bin|safetensors)$/;

/**
 * Writes all of a checkpoint's tensors to a file, with what its config.json says of the model, since that stays behind; and puts
 * a model's tokenizer beside the file.
 *
 * @throws RwkvError, CheckpointError; also where values are too large for the type that was asked for
 */
export async function convert(input: string, output: string, options: { dtype?: WeightDType } = {}): Promise<void> {
  const [, ending] = writableEndings.exec(output) ?? [];
  if (!ending) throw new RwkvError(`${output}: expected a file name that ends in .pth or .safetensors`);
  const write = ending === "safetensors" ? writeSafetensors : writePth;
  const checkpoint = await openCheckpoint(input);
  const bar = progressBar("writing");
  const quantizing = new QuantizingMachine();
  let done = 0;
  try {
    const model = recognise(checkpoint, options.dtype);
    const tensors = outputsOf(checkpoint, model, options.dtype).map(
      ({ name, tensor, dtype }): WritableTensor => ({
        name,
        dtype,
        shape: tensor.shape,
        bytes: () => counted(tensor, dtype),
      }),
    );
    const total = tensors.reduce((sum, tensor) => sum + byteLengthOf(tensor), 0);
    await write(output, tensors, { metadata: { ...checkpoint.metadata, ...model?.metadata } });
    note(`${output}: ${tensors.length} tensors, ${prettyBytes(total)}`);
    if (model) await copyTokenizer(input, output, model.size.vocabulary);

    async function* counted(tensor: StoredTensor, dtype: StorageType) {
      const overflow = noOverflow();
      const made = isBlockType(dtype) && tensor.dtype !== dtype;
      for await (const piece of made ? quantizing.blocksOf(tensor, dtype) : tensorPieces(tensor, dtype, overflow)) {
        yield piece;
        done += piece.byteLength;
        bar.update(done, total);
      }
      // A file outlives the warning that was printed when it was made, so this is an error, not a warning as it is for load.
      if (overflow.count > 0 && isElementType(dtype)) {
        throw new CheckpointError(checkpoint.name, describeOverflow(tensor, dtype, overflow));
      }
    }
  } finally {
    bar.stop();
    await quantizing.dispose();
    await checkpoint.close();
  }
}

/** Copies the tokenizer beside a model to a file written elsewhere, so that it can be used at once; never over another one. */
async function copyTokenizer(input: string, output: string, vocabulary: number): Promise<void> {
  const from = await tokenizerFileFor(input, vocabulary).catch((error) => {
    if (!(error instanceof TokenizerError)) throw error;
    return undefined; // there are some, but they do not fit
  });
  if (from === undefined) return;
  const to = join(dirname(output), basename(from));
  const bytes = await readBytes(from);
  if ((await fileSize(to)) === undefined) {
    await writeFileAtomically(to, (file) => file.append(bytes));
    note(`${to}: its tokenizer`);
  } else if (!Buffer.from(bytes).equals(await readBytes(to))) {
    note(`${to} is another tokenizer; use ${output} with --tokenizer ${from}`);
  }
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

/** A tensor to be written, under a name that need not be the one it was read under. */
interface Output {
  readonly name: string;
  readonly tensor: StoredTensor;
  readonly dtype: StorageType;
}

/**
 * What to write, and with which types: blocks for the matrices of a model's products that are stored as they are
 * computed with, other types for whatever is floating. A head that config.json ties to the embedding becomes a tensor
 * of its own.
 */
function outputsOf(
  checkpoint: Checkpoint,
  model: RecognisedModel | undefined,
  wanted: WeightDType | undefined,
): Output[] {
  const asWanted = ({ dtype }: StoredTensor): StorageType =>
    wanted && !isBlockType(wanted) && (isFloating(dtype) || !isElementType(dtype)) ? wanted : dtype;
  const outputs = new Map<string, Output>();
  for (const tensor of checkpoint.tensors.values()) {
    outputs.set(tensor.name, { name: tensor.name, tensor, dtype: asWanted(tensor) });
  }
  if (!model) return [...outputs.values()];
  const types = wanted && isBlockType(wanted) ? matrixTypes(model.graph, model.tensors, wanted) : undefined;
  for (const { name, tensor, parts } of model.layout) {
    const [only] = parts;
    const type = parts.length === 1 && only?.location.isWhole ? types?.get(only.weight) : undefined;
    if (tensor) outputs.set(name, { name, tensor, dtype: type && isBlockType(type) ? type : asWanted(tensor) });
  }
  return [...outputs.values()];
}

/** A machine to quantize on, started when it is first needed: native, or WebAssembly where there is no compiler. */
class QuantizingMachine {
  #started:
    | { machine: KernelMachine; quantizer: Quantizer; staging?: { address: number; bytes: Uint8Array } }
    | undefined;

  async *blocksOf(tensor: StoredTensor, dtype: BlockType): AsyncGenerator<Uint8Array, void, void> {
    this.#started ??= await startQuantizer();
    const size = byteLengthOf({ dtype, shape: tensor.shape });
    let { staging } = this.#started;
    if (!staging || staging.bytes.length < size) staging = this.#started.machine.allocate(size);
    this.#started.staging = staging;
    await this.#started.quantizer.quantize(tensor, dtype, staging.address);
    const blocks = staging.bytes.subarray(0, size);
    const clamped = clampedBlocks(blocks, dtype, tensor.shape[1] as number);
    if (clamped > 0) {
      throw new CheckpointError(tensor.source.name, describeClamped(tensor, dtype, clamped));
    }
    yield blocks;
  }

  async dispose(): Promise<void> {
    await this.#started?.machine.dispose();
  }
}

async function startQuantizer() {
  const threads = defaultThreads();
  const machine = await createNativeMachine(threads).catch((error) => {
    if (!(error instanceof BackendError)) throw error;
    return createWasmMachine(threads);
  });
  return { machine, quantizer: new Quantizer(machine) };
}
