// rwkv inspect: what a checkpoint holds. Tensors are passed through once, a few MiB at a time, to warn of values that are
// not numbers; nothing is loaded.

import type { Command } from "commander";
import { byteLengthOf, type Checkpoint, type StoredTensor } from "../checkpoints/checkpoint.js";
import { openCheckpoint } from "../checkpoints/open-checkpoint.js";
import { tensorPieces } from "../checkpoints/read-tensor.js";
import { type DType, elementCount } from "../dtypes.js";
import { CheckpointError } from "../errors.js";
import type { ModelSize } from "../models/model-definition.js";
import { bindModel } from "../models/versions.js";
import { formatBytes, note, progressBar } from "./terminal.js";

/** Above this size only the beginning of every tensor is looked at. */
const fullCheckLimit = 2 ** 30;
const sampledElements = 2 ** 18;

/** What --json prints. */
interface Inspection {
  file: string;
  format: string;
  /** null when the checkpoint is no model that can be run; `problem` says why. */
  version: string | null;
  problem?: string;
  layers?: number;
  width?: number;
  hidden?: number;
  vocabulary?: number;
  parameters: number;
  bytes: number;
  dtypes: Partial<Record<DType, number>>;
  warnings: string[];
  tensors: { name: string; dtype: DType; shape: readonly number[] }[];
}

export function addInspect(program: Command): void {
  program
    .command("inspect")
    .description("show what a checkpoint holds, without loading it")
    .argument("<file>", "a .pth or .safetensors file, an index of shards, or a folder")
    .option("--json", "print JSON")
    .addHelpText(
      "after",
      `
Examples:
  $ rwkv inspect RWKV-4-Pile-430M-20220808-8066.pth
  $ rwkv inspect model.safetensors --json | jq .parameters`,
    )
    .action(async (file: string, options: { json?: boolean }) => {
      const checkpoint = await openCheckpoint(file);
      try {
        const inspection = await inspect(checkpoint);
        process.stdout.write(options.json ? `${JSON.stringify(inspection, null, 2)}\n` : report(inspection));
        for (const warning of inspection.warnings) note(`warning: ${warning}`);
        if (inspection.problem) {
          note(`error: ${inspection.problem}`);
          process.exitCode = 1;
        }
      } finally {
        await checkpoint.close();
      }
    });
}

async function inspect(checkpoint: Checkpoint): Promise<Inspection> {
  const tensors = [...checkpoint.tensors.values()];
  const dtypes: Partial<Record<DType, number>> = {};
  for (const { dtype } of tensors) dtypes[dtype] = (dtypes[dtype] ?? 0) + 1;
  return {
    file: checkpoint.name,
    format: checkpoint.format,
    ...recognise(checkpoint),
    parameters: tensors.reduce((sum, tensor) => sum + elementCount(tensor.shape), 0),
    bytes: tensors.reduce((sum, tensor) => sum + byteLengthOf(tensor), 0),
    dtypes,
    warnings: await invalidValues(tensors),
    tensors: tensors.map(({ name, dtype, shape }) => ({ name, dtype, shape })),
  };
}

function recognise(checkpoint: Checkpoint): ({ version: string } & ModelSize) | { version: null; problem: string } {
  try {
    const { version, size } = bindModel(checkpoint);
    return { version, ...size };
  } catch (error) {
    if (!(error instanceof CheckpointError)) throw error;
    return { version: null, problem: error.message };
  }
}

/** A line for each tensor with NaN or infinite values. */
async function invalidValues(tensors: readonly StoredTensor[]): Promise<string[]> {
  const warnings: string[] = [];
  const total = tensors.reduce((sum, tensor) => sum + byteLengthOf(tensor), 0);
  const bar = progressBar("checking values");
  let done = 0;
  for (const tensor of tensors) {
    const part = total > fullCheckLimit ? beginningOf(tensor) : tensor;
    let invalid = 0;
    for await (const piece of tensorPieces(part, tensor.dtype)) invalid += countInvalid(piece, tensor.dtype);
    if (invalid > 0) {
      warnings.push(
        `tensor ${tensor.name} has ${part === tensor ? "" : "at least "}${invalid} values that are NaN or infinite`,
      );
    }
    done += byteLengthOf(tensor);
    bar.update(done, total);
  }
  bar.stop();
  return warnings;
}

function beginningOf(tensor: StoredTensor): StoredTensor {
  const width = tensor.shape.at(-1) ?? 1;
  return { ...tensor, shape: [Math.min(width, sampledElements)], strides: [tensor.strides.at(-1) ?? 1] };
}

/** Floats whose exponent bits are all set. */
function countInvalid(bytes: Uint8Array, dtype: DType): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let count = 0;
  if (dtype === "f32") {
    for (let at = 0; at < bytes.length; at += 4) if ((view.getUint32(at, true) & 0x7f800000) === 0x7f800000) count++;
  } else if (dtype === "f16" || dtype === "bf16") {
    const exponent = dtype === "f16" ? 0x7c00 : 0x7f80;
    for (let at = 0; at < bytes.length; at += 2) if ((view.getUint16(at, true) & exponent) === exponent) count++;
  } else if (dtype === "f64") {
    for (let at = 0; at < bytes.length; at += 8) if (!Number.isFinite(view.getFloat64(at, true))) count++;
  }
  return count;
}

function report(inspection: Inspection): string {
  const { version, layers, width, hidden, vocabulary, parameters, bytes, dtypes } = inspection;
  const types = Object.entries(dtypes).map(([dtype, count]) => `${dtype} (${count} tensors)`);
  const lines = [
    `file        ${inspection.file}`,
    `format      ${inspection.format}`,
    `version     ${version === null ? "not recognised" : `RWKV-${version}`}`,
    ...(version === null
      ? []
      : [`size        ${layers} layers, width ${width}, hidden ${hidden}, vocabulary ${vocabulary}`]),
    `parameters  ${parameters.toLocaleString("en-US")}`,
    `weights     ${formatBytes(bytes)}, ${types.join(", ")}`,
    "",
  ];
  const longest = Math.max(0, ...inspection.tensors.map(({ name }) => name.length));
  for (const { name, dtype, shape } of inspection.tensors) {
    lines.push(`${name.padEnd(longest)}  ${dtype.padEnd(4)}  [${shape.join(", ")}]`);
  }
  return `${lines.join("\n")}\n`;
}
