// Writes a plan as the flat records that kernels walk: for each operation its kernel and the addresses that it reads and writes.
// All records are made in the same way, from the operation's descriptor; kernels/plan.h has the layout.

import type { Chain } from "../../graph/chains.js";
import type { FusedCall, FusedOperation } from "../../graph/fusion.js";
import {
  type Call,
  inputsOf,
  matricesOf,
  type RowNode,
  type StateVector,
  statesOf,
  type Vector,
  vectorsOf,
  type WeightNode,
} from "../../graph/graph.js";
import { vectorIn } from "../../graph/operations/leaves.js";
import type { Plan } from "../../graph/plan.js";
import type { KernelNumbers } from "./kernel-machine.js";
import { encodeProgram } from "./program.js";
import { type Attribute, encodeRecord, type RecordFields, type RecordMatrix } from "./record.js";

/** Where the things that records point to are. */
export interface Addresses {
  buffer(node: RowNode): number;
  vector(vector: Vector): number;
  matrix(weight: WeightNode): { address: number; dtype: RecordMatrix["dtype"] };
  /** Offset in a sequence's block, in floats. */
  state(vector: StateVector): number;
}

/** All records of a plan, in their order; the last of each step has its barrier. */
export function recordsOf(plan: Plan, addresses: Addresses, numbers: KernelNumbers): Uint8Array[] {
  return plan.steps.flatMap((step, index) =>
    step.map((operation, i) =>
      encodeRecord(
        {
          ...fieldsOf(operation, addresses, numbers),
          barrierBefore: i === 0 ? (plan.barriers[index - 1] ?? "always") : "never",
          barrierAfter: i === step.length - 1 ? (plan.barriers[index] ?? "always") : "never",
        },
        numbers,
      ),
    ),
  );
}

/** The record that computes a function of a vector, such as of a weight that training changes. */
export function vectorFunctionRecord(
  fn: string,
  width: number,
  from: number,
  to: number,
  numbers: KernelNumbers,
): RecordFields {
  const inputs = [{ oneRow: false, repeat: 1 }];
  const instructions = [{ function: fn, a: 0, b: 0, result: 1 }];
  return {
    kernel: "elementwise",
    barrierAfter: "always",
    rows: 1,
    width,
    attributes: [{ count: 0 }],
    addresses: [from, to],
    program: encodeProgram({ inputs, constants: [], outputCount: 1, slotCount: 0, instructions }, numbers),
  };
}

function fieldsOf(operation: FusedOperation, addresses: Addresses, numbers: KernelNumbers): RecordFields {
  return operation.chain
    ? chainFields(operation.chain, operation.sharedBy !== undefined, addresses, numbers)
    : callFields(operation, addresses);
}

function callFields(fused: FusedCall, addresses: Addresses): RecordFields {
  const { call, activation, multiplier, addend } = fused;
  const { operation } = call;
  const own = inputsOf(call);
  // What it reads in the place of its inputs, such as quantized rows; their width is that of the rows that they are of.
  const inputs = fused.inputs.slice(0, own.length);
  const matrices = matricesOf(call);
  const written = new Set(fused.outputs);
  const [first] = own;
  const [output] = call.outputs as readonly [RowNode];
  const optional = (node: RowNode | undefined) => (node ? addresses.buffer(node) : 0);
  // The result of an operation with an epilogue is what comes after it.
  const results = operation.epilogue ? fused.outputs : call.outputs;
  return {
    kernel: operation.name,
    rows: output.rows,
    width: output.width,
    ...(first && { inputRows: first.rows, inputs: first.width }),
    ...(matrices[0] && { matrix: matrixFields(matrices[0], addresses) }),
    ...(activation !== undefined && { activation }),
    listLength: listLengthOf(call),
    attributes: Object.entries(operation.attributes).map(
      ([name, type]) => ({ [type]: call.operands[name] }) as unknown as Attribute,
    ),
    states: statesOf(call).map((state) => addresses.state(state)),
    addresses: [
      ...inputs.map((node) => addresses.buffer(node)),
      ...vectorsOf(call).map((vector) => addresses.vector(vector)),
      ...matrices.map((weight) => addresses.matrix(weight).address),
      ...(operation.epilogue ? [optional(multiplier), optional(addend)] : []),
      ...results.map((node) => (written.has(node) ? addresses.buffer(node) : 0)),
    ],
  };
}

function chainFields(
  chain: Chain,
  sharesChannels: boolean,
  addresses: Addresses,
  numbers: KernelNumbers,
): RecordFields {
  const [output] = chain.outputs as readonly [RowNode];
  return {
    kernel: "elementwise",
    rows: output.rows,
    width: output.width,
    attributes: [{ count: sharesChannels ? 1 : 0 }],
    addresses: [
      ...chain.inputs.map(({ node }) => addressOf(node, addresses)),
      ...chain.outputs.map((node) => addresses.buffer(node)),
    ],
    program: encodeProgram({ ...chain, outputCount: chain.outputs.length }, numbers),
  };
}

/** The address of a value: that of a vector itself, or a place in the arena. */
function addressOf(node: RowNode, addresses: Addresses): number {
  const vector = vectorIn(node);
  return vector ? addresses.vector(vector) : addresses.buffer(node);
}

function matrixFields(weight: WeightNode, addresses: Addresses): RecordMatrix {
  const [rows, columns] = weight.shape as readonly [number, number];
  return { dtype: addresses.matrix(weight).dtype, rows, columns };
}

/** How many operands the lists of a call have; all of them have as many. */
function listLengthOf({ operation, operands }: Call): number {
  const name = [...operation.inputs, ...operation.vectors].find((each) => each.startsWith("..."));
  return name === undefined ? 0 : (operands[name.slice(3)] as readonly unknown[]).length;
}
