// Writes a plan as the flat records that kernels walk. The layout is that of kernels/plan.h; the two change together.

import type { BlockType, WeightDType } from "../../dtypes.js";
import type { FusedOperation } from "../../graph/fusion.js";
import type { BinaryFunction, StateVector, UnaryFunction, Vector, WeightNode } from "../../graph/graph.js";
import type { Barrier, Plan, PlanNode } from "../../graph/plan.js";
import type { TokenChoice } from "../../sampling/choose-token.js";
import type { Block } from "./kernel-machine.js";

export const recordSize = 128;
export const passSize = 80;
export const segmentSize = 16;
export const choiceSize = 64;
export const adjustmentSize = 12;

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
] as const;
const barrierNumbers: readonly Barrier[] = ["never", "always", "fewRowsApart"];
const dtypeNumbers: readonly WeightDType[] = ["f32", "f16", "bf16", "q8", "q4"];
const activationNumbers = ["none", "sigmoid", "reluSquared"] as const;
const unaryNumbers: readonly UnaryFunction[] = ["sigmoid", "relu", "square", "exp", "negate"];
const binaryNumbers: readonly BinaryFunction[] = ["add", "multiply"];

/** Where the things that records point to lie. */
export interface Addresses {
  buffer(node: PlanNode): number;
  vector(vector: Vector): number;
  matrix(weight: WeightNode): { address: number; dtype: WeightDType };
  /** Offset in a sequence's block, in floats. */
  state(vector: StateVector): number;
}

/** Number of records of a plan. */
export function recordCount(plan: Plan): number {
  return plan.steps.reduce((sum, step) => sum + step.length, 0);
}

/** Writes all records, one after another; the last of each step has its barrier. */
export function writeRecords(plan: Plan, addresses: Addresses, target: Uint8Array): void {
  let at = 0;
  for (const [index, step] of plan.steps.entries()) {
    step.forEach((operation, i) => {
      writeRecord(
        operation,
        i === step.length - 1 ? (plan.barriers[index] as Barrier) : "never",
        addresses,
        new DataView(target.buffer, target.byteOffset + at, recordSize),
      );
      at += recordSize;
    });
  }
}

function writeRecord(operation: FusedOperation, barrier: Barrier, addresses: Addresses, view: DataView): void {
  const { main, outputs } = operation;
  const output = outputs[0] as PlanNode;
  const setAddress = (index: number, address: number) => view.setBigUint64(56 + 8 * index, BigInt(address), true);
  const setState = (index: number, state: StateVector) => view.setUint32(40 + 4 * index, addresses.state(state), true);
  const setFunction = (number: number) => view.setUint32(24, number, true);
  const optional = (node: PlanNode | undefined) => (node ? addresses.buffer(node) : 0);

  view.setUint32(0, kernelNumbers.indexOf(main.op), true);
  view.setUint32(4, barrierNumbers.indexOf(barrier), true);
  view.setUint32(8, main.rows === "selected" ? 1 : 0, true);
  view.setUint32(16, main.width, true);
  switch (main.op) {
    case "embedding": {
      const { address, dtype } = addresses.matrix(main.table);
      view.setUint32(12, dtypeNumbers.indexOf(dtype), true);
      setAddress(0, address);
      setAddress(1, addresses.buffer(output));
      break;
    }
    case "layerNorm":
      view.setFloat32(32, main.epsilon, true);
      setAddress(0, addresses.buffer(main.x));
      setAddress(1, addresses.vector(main.weight));
      setAddress(2, addresses.vector(main.bias));
      setAddress(3, addresses.buffer(output));
      break;
    case "tokenShift":
      view.setUint32(28, outputs.length, true);
      setState(0, main.previous);
      setAddress(0, addresses.buffer(main.x));
      outputs.forEach((mixed, i) => {
        const factor = mixed.op === "tokenShift" ? mixed.factors[mixed.output] : undefined;
        setAddress(1 + i, addresses.vector(factor as Vector));
        setAddress(5 + i, addresses.buffer(mixed));
      });
      break;
    case "matmul": {
      const { address, dtype } = addresses.matrix(main.weight);
      view.setUint32(12, dtypeNumbers.indexOf(dtype), true);
      view.setUint32(20, main.x.width, true);
      setFunction(activationNumbers.indexOf(operation.activation));
      setAddress(0, address);
      setAddress(1, addresses.buffer(operation.inputs[0] as PlanNode));
      setAddress(2, optional(operation.multiplier));
      setAddress(3, optional(operation.addend));
      setAddress(4, addresses.buffer(output));
      break;
    }
    case "wkv":
      setState(0, main.state.numerator);
      setState(1, main.state.denominator);
      setState(2, main.state.maxExponent);
      setAddress(0, addresses.buffer(main.key));
      setAddress(1, addresses.buffer(main.value));
      setAddress(2, addresses.vector(main.decay));
      setAddress(3, addresses.vector(main.first));
      setAddress(4, optional(operation.multiplier));
      setAddress(5, addresses.buffer(output));
      break;
    case "unary":
      setFunction(unaryNumbers.indexOf(main.function));
      setAddress(0, addresses.buffer(main.x));
      setAddress(1, addresses.buffer(output));
      break;
    case "binary":
      setFunction(binaryNumbers.indexOf(main.function));
      setAddress(0, addresses.buffer(main.a));
      setAddress(1, addresses.buffer(main.b));
      setAddress(2, addresses.buffer(output));
      break;
    case "quantizeRows":
      view.setUint32(20, main.x.width, true);
      setAddress(0, addresses.buffer(main.x));
      setAddress(1, addresses.buffer(output));
      break;
    case "selectRows":
      setAddress(0, addresses.buffer(main.x));
      setAddress(1, addresses.buffer(output));
      break;
  }
}

/** Writes the record that chooses tokens from logits (kernels/choose.c). */
export function writeChoose(
  vocabulary: number,
  choosers: number,
  addresses: readonly [logits: number, choices: number, room: number],
  target: Uint8Array,
): void {
  const view = new DataView(target.buffer, target.byteOffset, recordSize);
  view.setUint32(0, kernelNumbers.indexOf("choose"), true);
  view.setUint32(16, vocabulary, true);
  view.setUint32(28, choosers, true);
  addresses.forEach((address, i) => view.setBigUint64(56 + 8 * i, BigInt(address), true));
}

/** Writes how a row's token is to be chosen, or that none is. */
export function writeChoice(choice: TokenChoice | undefined, adjustments: Block, target: DataView): void {
  target.setUint32(0, choice ? 1 : 0, true);
  if (!choice) return;
  const { tokens, amounts } = choice.adjustments;
  target.setUint32(4, Math.min(choice.topK, 0xffffffff), true);
  target.setFloat64(8, choice.temperature, true);
  target.setFloat64(16, choice.topP, true);
  target.setFloat64(24, choice.minP, true);
  target.setFloat64(32, choice.uniform, true);
  target.setBigUint64(40, BigInt(adjustments.address), true);
  target.setUint32(48, tokens.length, true);
  const table = new DataView(adjustments.bytes.buffer, adjustments.bytes.byteOffset, adjustments.bytes.byteLength);
  tokens.forEach((token, i) => {
    table.setInt32(i * adjustmentSize, token, true);
    table.setFloat32(i * adjustmentSize + 4, amounts[i] as number, true);
  });
}

/** The token that was chosen; -1 where the logits are not numbers. */
export function readChosen(source: DataView): number {
  return source.getInt32(52, true);
}

/** Writes the record that quantizes a matrix [outputs, inputs] (kernels/quantize.c). */
export function writeQuantizeWeights(
  from: { address: number; dtype: WeightDType; outputs: number; inputs: number },
  to: { address: number; dtype: BlockType },
  target: Uint8Array,
): void {
  const view = new DataView(target.buffer, target.byteOffset, recordSize);
  view.setUint32(0, kernelNumbers.indexOf("quantizeWeights"), true);
  view.setUint32(12, dtypeNumbers.indexOf(from.dtype), true);
  view.setUint32(16, from.outputs, true);
  view.setUint32(20, from.inputs, true);
  view.setUint32(24, dtypeNumbers.indexOf(to.dtype), true);
  view.setBigUint64(56, BigInt(from.address), true);
  view.setBigUint64(64, BigInt(to.address), true);
}

/** Writes the record of a probe of the machine (kernels/probe.c). */
export function writeProbe(
  kernel: "probeRead" | "probeArithmetic",
  count: number,
  addresses: readonly [memory: number, result: number],
  target: Uint8Array,
): void {
  const view = new DataView(target.buffer, target.byteOffset, recordSize);
  view.setUint32(0, kernelNumbers.indexOf(kernel), true);
  view.setUint32(4, 1, true);
  view.setUint32(28, count, true);
  addresses.forEach((address, i) => view.setBigUint64(56 + 8 * i, BigInt(address), true));
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
}

/** Writes the pass record; the barrier behind these fields keeps its state from pass to pass. */
export function writePass(fields: PassFields, target: Uint8Array): void {
  const view = new DataView(target.buffer, target.byteOffset, passSize);
  view.setBigUint64(0, BigInt(fields.records), true);
  view.setBigUint64(8, BigInt(fields.tokens), true);
  view.setBigUint64(16, BigInt(fields.selected), true);
  view.setBigUint64(24, BigInt(fields.segments), true);
  view.setUint32(32, fields.recordCount, true);
  view.setUint32(36, fields.tokenCount, true);
  view.setUint32(40, fields.selectedCount, true);
  view.setUint32(44, fields.segmentCount, true);
  view.setUint32(48, fields.threads, true);
}
