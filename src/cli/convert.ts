// rwkv convert: rewrites a checkpoint in another format or element type.

import type { Command } from "commander";
import { defaultThreads } from "#platform/backends";
import type { KernelMachine } from "../backends/kernel/kernel-machine.js";
import { Quantizer } from "../backends/kernel/quantizer.js";
import { createNativeMachine } from "../backends/native/native.js";
import { createWasmMachine } from "../backends/wasm/wasm.js";
import { matrixTypes } from "../backends/weights.js";
import { byteLengthOf, type Checkpoint, type StoredTensor } from "../checkpoints/checkpoint.js";
import { openCheckpoint } from "../checkpoints/open-checkpoint.js";
import { tensorPieces } from "../checkpoints/read-tensor.js";
import { writePth } from "../checkpoints/write-pth.js";
import { writeSafetensors } from "../checkpoints/write-safetensors.js";
import type { WritableTensor } from "../checkpoints/writer.js";
import { type BlockType, type DType, isBlockType, type WeightDType } from "../dtypes.js";
import { BackendError, RwkvError } from "../errors.js";
import { bindModel } from "../models/versions.js";
import { dtypeOption } from "./option-parsers.js";
import { formatBytes, note, progressBar } from "./terminal.js";

const floating = new Set(["f64", "f32", "f16", "bf16"]);

export function addConvert(program: Command): void {
  program
    .command("convert")
    .description("rewrite a checkpoint as .pth or .safetensors; names and shapes stay as they are")
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

/** @throws RwkvError, CheckpointError */
export async function convert(input: string, output: string, options: { dtype?: WeightDType } = {}): Promise<void> {
  const write = output.endsWith(".safetensors")
    ? writeSafetensors
    : /\.(pth|pt|bin)$/.test(output)
      ? writePth
      : undefined;
  if (!write) throw new RwkvError(`${output}: expected a file name that ends in .pth or .safetensors`);
  const checkpoint = await openCheckpoint(input);
  const bar = progressBar("writing");
  const quantizing = new QuantizingMachine();
  let done = 0;
  try {
    const types = writtenTypes(checkpoint, options.dtype);
    const tensors = [...checkpoint.tensors.values()].map((tensor): WritableTensor => {
      const dtype = types.get(tensor) as DType;
      return { name: tensor.name, dtype, shape: tensor.shape, bytes: () => counted(tensor, dtype) };
    });
    const total = tensors.reduce((sum, tensor) => sum + byteLengthOf(tensor), 0);
    await write(output, tensors);
    note(`${output}: ${tensors.length} tensors, ${formatBytes(total)}`);

    async function* counted(tensor: StoredTensor, dtype: DType) {
      const made = isBlockType(dtype) && tensor.dtype !== dtype;
      for await (const piece of made ? quantizing.blocksOf(tensor, dtype) : tensorPieces(tensor, dtype)) {
        yield piece;
        done += piece.byteLength;
        bar.update(done, total);
      }
    }
  } finally {
    bar.stop();
    await quantizing.dispose();
    await checkpoint.close();
  }
}

/** The type to write each tensor with: blocks for the matrices of a model's products, other types for whatever is floating. */
function writtenTypes(checkpoint: Checkpoint, wanted: WeightDType | undefined): Map<StoredTensor, DType> {
  const tensors = [...checkpoint.tensors.values()];
  if (!wanted) return new Map(tensors.map((tensor) => [tensor, tensor.dtype]));
  if (!isBlockType(wanted)) {
    return new Map(
      tensors.map((tensor) => [
        tensor,
        floating.has(tensor.dtype) || isBlockType(tensor.dtype) ? wanted : tensor.dtype,
      ]),
    );
  }
  const types = new Map<StoredTensor, DType>(tensors.map((tensor) => [tensor, tensor.dtype]));
  const { graph, tensors: bound } = bindModel(checkpoint);
  for (const [weight, type] of matrixTypes(graph, bound, wanted)) {
    if (isBlockType(type)) types.set(checkpoint.tensors.get(bound.get(weight.name)?.name ?? "") as StoredTensor, type);
  }
  return types;
}

/** A machine to quantize on, started when it is first needed: native, or WebAssembly where there is no compiler. */
class QuantizingMachine {
  #started: { machine: KernelMachine; quantizer: Quantizer; room?: { address: number; bytes: Uint8Array } } | undefined;

  async *blocksOf(tensor: StoredTensor, dtype: BlockType): AsyncGenerator<Uint8Array, void, void> {
    this.#started ??= await startQuantizer();
    const size = byteLengthOf({ dtype, shape: tensor.shape });
    let { room } = this.#started;
    if (!room || room.bytes.length < size) room = this.#started.machine.allocate(size);
    this.#started.room = room;
    await this.#started.quantizer.quantize(tensor, dtype, room.address);
    yield room.bytes.subarray(0, size);
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
