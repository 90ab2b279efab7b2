// The layout of what kernels are told: records, passes, segments. That of kernels/plan.h; the two change together.

import type { WeightDType } from "../../dtypes.js";
import type { RowSet } from "../../graph/graph.js";
import type { Barrier } from "../../graph/plan.js";

export const recordSize = 192;
export const passSize = 88;
export const segmentSize = 24;

const kernelNumbers = [
  "embedding",
  "layerNorm",
  "tokenShift",
  "matmul",
  "wkv",
  "unary",
  "binary",
  "selectRows",
  "quantizeRows",
  "quantizeWeights",
  "choose",
  "probeRead",
  "probeArithmetic",
  "crossEntropy",
  "transposedMatmul",
  "weightGradient",
  "embeddingGradient",
  "layerNormGradient",
  "rowMoments",
  "layerNormWeightGradient",
  "columnSums",
  "tokenShiftGradient",
  "wkvGradient",
  "segmentSums",
  "dropout",
  "scatterRows",
  "sumOfSquares",
  "gradientNorm",
  "adam",
  "addPosition",
  "positionGradient",
  "attention",
  "attentionGradient",
  "linearAttention",
  "linearAttentionGradient",
  "aft",
  "aftGradient",
  "aftBiasGradient",
  "previousRows",
  "elman",
  "elmanGradient",
  "gru",
  "gruGradient",
  "convertWeights",
] as const;
export type KernelName = (typeof kernelNumbers)[number];

/** Types of elements that kernels read. */
type RecordDType = WeightDType | "f64";

const barrierNumbers: readonly Barrier[] = ["never", "always", "fewRowsApart"];
const dtypeNumbers: readonly RecordDType[] = ["f32", "f16", "bf16", "q8", "q4", "f64"];

/** The number of an element type. */
export function dtypeNumber(dtype: RecordDType): number {
  return dtypeNumbers.indexOf(dtype);
}

/** The fields of a record; those that a kernel does not read are left out. */
export interface RecordFields {
  readonly kernel: KernelName;
  readonly barrier?: Barrier;
  /** Rows of the output. */
  readonly rows?: RowSet;
  readonly dtype?: RecordDType;
  readonly width?: number;
  readonly inputs?: number;
  readonly function?: number;
  readonly count?: number;
  readonly factor?: number;
  readonly states?: readonly number[];
  /** Rows of the input, where a gradient sums over them. */
  readonly inputRows?: RowSet;
  /** 0 for what is absent. */
  readonly addresses: readonly number[];
}

/** Writes a record to the start of `target`. */
export function writeRecord(fields: RecordFields, target: Uint8Array): void {
  const view = new DataView(target.buffer, target.byteOffset, recordSize);
  const { rows = "tokens", inputRows = "tokens" } = fields;
  view.setUint32(0, kernelNumbers.indexOf(fields.kernel), true);
  view.setUint32(4, barrierNumbers.indexOf(fields.barrier ?? "never"), true);
  view.setUint32(8, rowSetNumber(rows), true);
  view.setUint32(12, dtypeNumber(fields.dtype ?? "f32"), true);
  view.setUint32(16, fields.width ?? 0, true);
  view.setUint32(20, fields.inputs ?? 0, true);
  view.setUint32(24, fields.function ?? 0, true);
  view.setUint32(28, fields.count ?? 0, true);
  view.setFloat32(32, fields.factor ?? 0, true);
  view.setUint32(36, typeof rows === "number" ? rows : 0, true);
  fields.states?.forEach((offset, i) => void view.setUint32(40 + 4 * i, offset, true));
  view.setUint32(56, rowSetNumber(inputRows), true);
  fields.addresses.forEach((address, i) => void view.setBigUint64(64 + 8 * i, BigInt(address), true));
}

function rowSetNumber(rows: RowSet): number {
  return rows === "tokens" ? 0 : rows === "selected" ? 1 : 2;
}

/** What changes from pass to pass. */
export interface PassFields {
  readonly records: number;
  readonly recordCount: number;
  readonly tokens: number;
  readonly tokenCount: number;
  readonly selected: number;
  readonly selectedCount: number;
  readonly segments: number;
  readonly segmentCount: number;
  readonly threads: number;
  /** Address of what should have been predicted; in training. */
  readonly targets?: number;
  /** Of dropout. */
  readonly seed?: number;
}

const statusOffset = 64;

/** How a pass went (run-pass.ts has the meaning). */
export function passStatus(pass: Uint8Array): number {
  return new DataView(pass.buffer, pass.byteOffset, passSize).getUint32(statusOffset, true);
}

/** Writes the pass record; the barrier behind these fields keeps its state from pass to pass. */
export function writePass(fields: PassFields, target: Uint8Array): void {
  const view = new DataView(target.buffer, target.byteOffset, passSize);
  view.setBigUint64(0, BigInt(fields.records), true);
  view.setBigUint64(8, BigInt(fields.tokens), true);
  view.setBigUint64(16, BigInt(fields.selected), true);
  view.setBigUint64(24, BigInt(fields.segments), true);
  view.setBigUint64(32, BigInt(fields.targets ?? 0), true);
  view.setUint32(40, fields.recordCount, true);
  view.setUint32(44, fields.tokenCount, true);
  view.setUint32(48, fields.selectedCount, true);
  view.setUint32(52, fields.segmentCount, true);
  view.setUint32(56, fields.threads, true);
  view.setUint32(60, fields.seed ?? 0, true);
  view.setUint32(statusOffset, 0, true);
}

/** Writes one segment: consecutive rows of a sequence, and the addresses of its state before and after them. */
export function writeSegment(
  start: number,
  count: number,
  state: number,
  nextState: number,
  target: DataView,
  index: number,
): void {
  const at = index * segmentSize;
  target.setUint32(at, start, true);
  target.setUint32(at + 4, count, true);
  target.setBigUint64(at + 8, BigInt(state), true);
  target.setBigUint64(at + 16, BigInt(nextState), true);
}
