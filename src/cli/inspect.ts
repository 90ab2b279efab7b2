// rwkv inspect: what a checkpoint holds. Its bytes are read, a few MiB at a time, to compare them with the checksums of the file
// and to warn of values that are not numbers or all zeros; nothing is loaded.

import type { Command } from "commander";
import prettyBytes from "pretty-bytes";
import type { BackendModel } from "../backends/backend.js";
import {
  countPlacements,
  describePlacements,
  matrixTypes,
  type PlacementCount,
  placementsOf,
} from "../backends/placement.js";
import { divide } from "../backends/wasm/division.js";
import { largestMemory } from "../backends/wasm/wasm-memory.js";
import { byteLengthOf, type Checkpoint, type Metadata, type StoredTensor } from "../checkpoints/checkpoint.js";
import { checksummedRanges, matchesChecksum } from "../checkpoints/checksums.js";
import { examineTensor } from "../checkpoints/examine-tensor.js";
import { openCheckpoint } from "../checkpoints/open-checkpoint.js";
import { elementCount } from "../dtypes.js";
import { BackendError, CheckpointError } from "../errors.js";
import { stateLayout } from "../graph/state-layout.js";
import { isHttpUrl } from "../http/urls.js";
import { describeSize, type ModelSize } from "../models/model-definition.js";
import { bindModel } from "../models/versions.js";
import { blockFormatOf, type StorageType } from "../quantization/storage-types.js";
import { strategyText } from "../strategy.js";
import { placeOfModel } from "./named-model.js";
import { note, progressBar } from "./terminal.js";
import { textTable } from "./text-table.js";

/** Above this size checksums are not compared, and only the beginning of every tensor is looked at. */
const fullCheckLimit = 2 ** 30;
/** Above this size a file on a web server is not fetched to be checked at all. */
const remoteCheckLimit = 64 * 2 ** 20;
const sampledElements = 2 ** 18;

/** What --json prints. */
interface Inspection {
  file: string;
  format: string;
  /** null when the checkpoint is not a model that can be run; `problem` says why. */
  version: string | null;
  problem?: string;
  /** The dimensions; --json prints them beside the other keys. */
  size?: ModelSize;
  /** Bytes that each session takes: its state. */
  stateBytes?: number;
  /** How matrices come into memory where files can be mapped, if no other type is asked for. */
  placement?: PlacementCount[];
  /** How WebAssembly divides it among several memories; absent where one of 4 GiB holds it, or where it cannot be divided. */
  strategy?: string;
  parameters: number;
  bytes: number;
  dtypes: Partial<Record<StorageType, number>>;
  /** Whether the bytes are those that were written; null where the file has no checksums, or is too large to compare them. */
  intact: boolean | null;
  /** What the file says beside its tensors. */
  metadata: Metadata;
  /** The vocabulary in the file: for which kind of tokenizer it is, and how many tokens it has. */
  vocabulary?: { kind: string; tokens: number };
  warnings: string[];
  tensors: { name: string; dtype: StorageType; shape: readonly number[] }[];
}

export function addInspect(program: Command): void {
  program
    .command("inspect")
    .description("show the contents of a checkpoint without loading it")
    .argument("<file>", "a .pth, .safetensors, .gguf or rwkv.cpp .bin file, an index of shards, or a folder")
    .option("--json", "print JSON")
    .addHelpText(
      "after",
      `
Examples:
  $ rwkv inspect RWKV-4-Pile-430M-20220808-8066.pth
  $ rwkv inspect model.safetensors --json | jq .parameters`,
    )
    .action(async (file: string, options: { json?: boolean }) => {
      const checkpoint = await openCheckpoint(await placeOfModel(file));
      try {
        const inspection = await inspect(checkpoint);
        process.stdout.write(options.json ? `${JSON.stringify(asJson(inspection), null, 2)}\n` : report(inspection));
        for (const warning of inspection.warnings) note(`warning: ${warning}`);
        if (inspection.problem) note(`error: ${inspection.problem}`);
        if (inspection.problem || inspection.intact === false) process.exitCode = 1;
      } finally {
        await checkpoint.close();
      }
    });
}

function asJson({ file, format, version, size, ...others }: Inspection): object {
  return { file, format, version, ...size, ...others };
}

async function inspect(checkpoint: Checkpoint): Promise<Inspection> {
  const tensors = [...checkpoint.tensors.values()];
  const dtypes: Partial<Record<StorageType, number>> = {};
  for (const { dtype } of tensors) dtypes[dtype] = (dtypes[dtype] ?? 0) + 1;
  const bytes = tensors.reduce((sum, tensor) => sum + byteLengthOf(tensor), 0);
  const isFar = isHttpUrl(checkpoint.name) && bytes > remoteCheckLimit;
  const damaged = isFar || bytes > fullCheckLimit ? undefined : await damagedTensors(tensors);
  return {
    file: checkpoint.name,
    format: checkpoint.format,
    ...recognise(checkpoint),
    parameters: tensors.reduce((sum, tensor) => sum + elementCount(tensor.shape), 0),
    bytes,
    dtypes,
    intact: damaged ? damaged.length === 0 : null,
    metadata: checkpoint.metadata,
    ...(checkpoint.vocabulary && {
      vocabulary: { kind: checkpoint.vocabulary.kind, tokens: checkpoint.vocabulary.tokens.length },
    }),
    warnings: [
      ...(damaged ?? []).map((names) => `${names}: the bytes do not match their checksum; the file is damaged`),
      ...(isFar ? [] : await suspiciousValues(tensors, bytes)),
    ],
    tensors: tensors.map(({ name, dtype, shape }) => ({ name, dtype, shape })),
  };
}

/** The names of tensors whose bytes are not those that were written; undefined where the file has no checksums. */
async function damagedTensors(tensors: readonly StoredTensor[]): Promise<string[] | undefined> {
  const ranges = checksummedRanges(tensors);
  if (ranges.length === 0) return undefined;
  const total = ranges.reduce((sum, { size }) => sum + size, 0);
  const bar = progressBar("comparing checksums");
  const damaged: string[] = [];
  let done = 0;
  for (const range of ranges) {
    const matches = await matchesChecksum(range, (read) => {
      done += read;
      bar.update(done, total);
    });
    if (!matches) damaged.push(`tensor ${range.tensors.join(", ")}`);
  }
  bar.stop();
  return damaged;
}

function recognise(
  checkpoint: Checkpoint,
): Pick<Inspection, "version" | "problem" | "size" | "stateBytes" | "placement" | "strategy"> {
  try {
    const { version, size, graph, tensors } = bindModel(checkpoint);
    const types = matrixTypes(graph, tensors, undefined);
    const placement = countPlacements(placementsOf(tensors, types, { maps: true }));
    const strategy = strategyOn({ graph, tensors });
    return { version, size, stateBytes: stateLayout(graph).length * 4, placement, ...(strategy && { strategy }) };
  } catch (error) {
    if (!(error instanceof CheckpointError)) throw error;
    return { version: null, problem: error.message };
  }
}

/** How WebAssembly divides a model; undefined where it need not, or cannot. */
function strategyOn(model: BackendModel): string | undefined {
  try {
    const parts = divide(model, largestMemory, {});
    return parts.length > 1 ? strategyText(parts.map((layers) => ({ backend: "wasm", layers }))) : undefined;
  } catch (error) {
    if (!(error instanceof BackendError)) throw error;
    return undefined;
  }
}

/** A line for each tensor with NaN or infinite values, and one about matrices of nothing but zeros. */
async function suspiciousValues(tensors: readonly StoredTensor[], total: number): Promise<string[]> {
  const warnings: string[] = [];
  const zeros: string[] = [];
  const isSampled = total > fullCheckLimit;
  const bar = progressBar("checking values");
  let done = 0;
  for (const tensor of tensors) {
    const { invalid, firstInvalid, allZero } = await examineTensor(isSampled ? beginningOf(tensor) : tensor);
    if (invalid > 0) {
      const what = blockFormatOf(tensor.dtype) ? "block" : "value";
      const where = tensor.shape.length === 2 && !isSampled ? `in row ${firstInvalid}` : `at ${firstInvalid}`;
      warnings.push(
        `tensor ${tensor.name} has ${isSampled ? "at least " : ""}${invalid} ${what}${invalid === 1 ? "" : "s"} ` +
          `that ${invalid === 1 ? "is" : "are"} NaN or infinite, the first ${where}`,
      );
    }
    if (allZero && tensor.shape.length === 2) zeros.push(tensor.name);
    done += byteLengthOf(tensor);
    bar.update(done, total);
  }
  bar.stop();
  if (zeros.length > 0) {
    const shown = zeros.slice(0, 5).join(", ");
    warnings.push(
      `${zeros.length} matri${zeros.length === 1 ? "x holds" : "ces hold"} only zeros ` +
        `(${shown}${zeros.length > 5 ? ", ..." : ""}): ` +
        "an untrained model, or a download that was not finished",
    );
  }
  return warnings;
}

/** The first elements of a tensor; of a matrix in blocks its first group. */
function beginningOf(tensor: StoredTensor): StoredTensor {
  const { dtype, shape, strides } = tensor;
  const format = blockFormatOf(dtype);
  if (format) return { ...tensor, shape: [Math.min(format.groupOutputs, shape[0] as number), shape[1] as number] };
  return { ...tensor, shape: [Math.min(shape.at(-1) ?? 1, sampledElements)], strides: [strides.at(-1) ?? 1] };
}

function describeIntact(intact: boolean | null): string {
  if (intact === null) return "not compared: the file has none, or is too large to be read as a whole";
  return intact ? "match" : "do not match: the file is damaged";
}

/** Text from a file, without characters that would steer the terminal. */
function printable(text: string): string {
  return text.replace(/\p{Cc}+/gu, " ");
}

function report(inspection: Inspection): string {
  const { version, size, stateBytes, placement, strategy, parameters, bytes, dtypes, intact } = inspection;
  const { metadata, vocabulary } = inspection;
  const types = Object.entries(dtypes).map(([dtype, count]) => `${dtype} (${count} tensors)`);
  const lines = [
    `file        ${inspection.file}`,
    `format      ${inspection.format}`,
    `version     ${version === null ? "not recognised" : `RWKV-${version}`}`,
    ...(size ? [`size        ${describeSize(size)}`] : []),
    `parameters  ${parameters.toLocaleString("en-US")}`,
    `weights     ${prettyBytes(bytes)}, ${types.join(", ")}`,
    ...(stateBytes === undefined ? [] : [`session     ${prettyBytes(stateBytes)} for its state`]),
    ...(placement ? [`loading     matrices: ${describePlacements(placement)}`] : []),
    ...(strategy === undefined ? [] : [`in a page   ${strategy}, in memories of 4 GiB`]),
    ...(inspection.format === "pth" ? [`checksums   ${describeIntact(intact)}`] : []),
    ...(vocabulary ? [`tokens      ${vocabulary.tokens} (${printable(vocabulary.kind).slice(0, 100)})`] : []),
    ...Object.entries(metadata).map(([key, text]) => `${printable(key)}  ${printable(text).slice(0, 100)}`),
    "",
  ];
  const rows = inspection.tensors.map(({ name, dtype, shape }) => [printable(name), dtype, `[${shape.join(", ")}]`]);
  lines.push(...textTable(rows));
  return `${lines.join("\n")}\n`;
}
