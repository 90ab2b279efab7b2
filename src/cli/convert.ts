// rwkv convert: rewrites a checkpoint in another format or element type.

import type { Command } from "commander";
import type { StoredTensor } from "../checkpoints/checkpoint.js";
import { openCheckpoint } from "../checkpoints/open-checkpoint.js";
import { tensorPieces } from "../checkpoints/read-tensor.js";
import { writePth } from "../checkpoints/write-pth.js";
import { writeSafetensors } from "../checkpoints/write-safetensors.js";
import type { WritableTensor } from "../checkpoints/writer.js";
import { bytesPerElement, elementCount, type WeightDType } from "../dtypes.js";
import { RwkvError } from "../errors.js";
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
  $ rwkv convert model.safetensors.index.json whole.pth`,
    )
    .action(convert);
}

async function convert(input: string, output: string, options: { dtype?: WeightDType }): Promise<void> {
  const write = output.endsWith(".safetensors")
    ? writeSafetensors
    : /\.(pth|pt|bin)$/.test(output)
      ? writePth
      : undefined;
  if (!write) throw new RwkvError(`${output}: expected a file name that ends in .pth or .safetensors`);
  const checkpoint = await openCheckpoint(input);
  const bar = progressBar("writing");
  let done = 0;
  let total = 0;
  try {
    const tensors = [...checkpoint.tensors.values()].map((tensor): WritableTensor => {
      const dtype = options.dtype && floating.has(tensor.dtype) ? options.dtype : tensor.dtype;
      total += elementCount(tensor.shape) * bytesPerElement[dtype];
      return { name: tensor.name, dtype, shape: tensor.shape, bytes: () => counted(tensor, dtype) };
    });
    await write(output, tensors);
    note(`${output}: ${tensors.length} tensors, ${formatBytes(total)}`);
  } finally {
    bar.stop();
    await checkpoint.close();
  }

  async function* counted(tensor: StoredTensor, dtype: WritableTensor["dtype"]) {
    for await (const piece of tensorPieces(tensor, dtype)) {
      yield piece;
      done += piece.byteLength;
      bar.update(done, total);
    }
  }
}
