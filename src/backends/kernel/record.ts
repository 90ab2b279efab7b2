// The layout of records, passes and segments for kernels. It must match kernels/plan.h; the two change together.

import type { WeightDType } from "../../dtypes.js";
import { BackendError } from "../../errors.js";
import type { Barrier } from "../../graph/barriers.js";
import type { RowSet } from "../../graph/graph.js";
import type { KernelNumbers } from "./kernel-machine.js";

export const passSize = 104;

/** Bytes of records for each of which a pass has a counter (kernels/claims.h). */
export const bytesOfClaim = 64;

export const segmentSize = 24;

/** Types of elements that kernels read. */
type RecordDType = WeightDType | "f64";

const barrierNumbers: readonly Barrier[] = ["never", "always", "fewRowsApart"];
const dtypeNumbers: readonly RecordDType[] = ["f32", "f16", "bf16", "q8", "q4", "q4k", "q5k", "q6k", "f64"];

/** The number of an element type. */
export function dtypeNumber(dtype: RecordDType): number {
  return dtypeNumbers.indexOf(dtype);
}

/** An operand that is a number, and how kernels read it. */
export type Attribute = { readonly count: number } | { readonly number: number };

/** The first matrix of an operation. */
export interface RecordMatrix {
  readonly dtype: RecordDType;
  readonly rows: number;
  readonly columns: number;
}

/**
 * The fields of a record; those that a kernel does not read are left out. Lists are in the order of the operation's descriptor.
 */
export interface RecordFields {
  readonly kernel: string;
  /** How the record before ends. */
  readonly barrierBefore?: Barrier;
  readonly barrierAfter?: Barrier;
  /** Rows of the output. */
  readonly rows?: RowSet;
  /** Floats in a row of the first output. */
  readonly width?: number;
  /** Rows of the first input. */
  readonly inputRows?: RowSet;
  /** Floats in a row of the first input. */
  readonly inputs?: number;
  readonly matrix?: RecordMatrix;
  /** The function that a product ends with. */
  readonly activation?: string;
  /** Operands in a list. */
  readonly listLength?: number;
  readonly attributes?: readonly Attribute[];
  /** Offsets in a sequence's block, in floats. */
  readonly states?: readonly number[];
  /** 0 for what is absent. */
  readonly addresses: readonly number[];
  /** What a chain of functions does (program.ts). */
  readonly program?: Uint8Array;
}

const attributeOffset = 64;
const stateOffset = 96;
const addressOffset = 128;
const most = 8; // attributes and states
const alignment = 64;
const activations = [undefined, "sigmoid", "reluSquared", "tanh"];

/** @throws BackendError for a kernel that the library does not have */
export function encodeRecord(fields: RecordFields, { kernels }: KernelNumbers): Uint8Array {
  const number = kernels.get(fields.kernel);
  if (number === undefined) throw new BackendError(`these kernels have no operation "${fields.kernel}"`);
  const { rows = "tokens", inputRows = "tokens", attributes = [], states = [], addresses, program } = fields;
  if (attributes.length > most || states.length > most) {
    throw new RangeError(`${fields.kernel}: at most ${most} attributes and states`);
  }
  const programOffset = addressOffset + 8 * addresses.length;
  const size = Math.ceil((programOffset + (program?.length ?? 0)) / alignment) * alignment;
  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  const words = [
    size,
    number,
    barrierNumbers.indexOf(fields.barrierBefore ?? "always"),
    barrierNumbers.indexOf(fields.barrierAfter ?? "never"),
    rowSetNumber(rows),
    typeof rows === "number" ? rows : 0,
    fields.width ?? 0,
    rowSetNumber(inputRows),
    typeof inputRows === "number" ? inputRows : 0,
    fields.inputs ?? 0,
    dtypeNumber(fields.matrix?.dtype ?? "f32"),
    fields.matrix?.rows ?? 0,
    fields.matrix?.columns ?? 0,
    activations.indexOf(fields.activation),
    fields.listLength ?? 0,
    program ? programOffset : 0,
  ];
  words.forEach((word, i) => void view.setUint32(4 * i, word, true));
  attributes.forEach((attribute, i) => {
    const at = attributeOffset + 4 * i;
    if ("count" in attribute) view.setUint32(at, attribute.count, true);
    else view.setFloat32(at, attribute.number, true);
  });
  states.forEach((offset, i) => void view.setUint32(stateOffset + 4 * i, offset, true));
  addresses.forEach((address, i) => void view.setBigUint64(addressOffset + 8 * i, BigInt(address), true));
  if (program) bytes.set(program, programOffset);
  return bytes;
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
  /** The seed of dropout. */
  readonly seed?: number;
  /** Address of counters, all 0, with which threads claim outputs; without them each has its share. */
  readonly claims?: number;
  /** Targets of the whole step, of which this pass may be a part; by default those of the pass. */
  readonly targetCount?: number;
  /** Rows of tokens of the step that come before those of the pass. */
  readonly firstRow?: number;
}

const statusOffset = 64;
const claimsOffset = 88;
const targetCountOffset = 96;
const firstRowOffset = 100;

/** How a pass went (run-pass.ts has the meaning). */
export function passStatus(pass: Uint8Array): number {
  return new DataView(pass.buffer, pass.byteOffset, passSize).getUint32(statusOffset, true);
}

/** Writes the pass record; the barrier among these fields keeps its state from pass to pass. */
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
  view.setBigUint64(claimsOffset, BigInt(fields.claims ?? 0), true);
  view.setUint32(targetCountOffset, fields.targetCount ?? fields.selectedCount, true);
  view.setUint32(firstRowOffset, fields.firstRow ?? 0, true);
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
  setAddress(target, at + 8, state);
  setAddress(target, at + 16, nextState);
}

/** Writes an address, without a BigInt for each. */
export function setAddress(target: DataView, at: number, address: number): void {
  target.setUint32(at, address % 2 ** 32, true);
  target.setUint32(at + 4, Math.floor(address / 2 ** 32), true);
}
