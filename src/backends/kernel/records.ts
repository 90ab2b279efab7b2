// Writes a plan as the flat records that kernels walk: for each operation which kernel, and where what it reads and writes lies.

import type { WeightDType } from "../../dtypes.js";
import type { FusedOperation } from "../../graph/fusion.js";
import type {
  AttentionFree,
  BinaryFunction,
  RowNode,
  StateVector,
  UnaryFunction,
  Vector,
  WeightNode,
} from "../../graph/graph.js";
import type { Barrier, Plan, PlanNode } from "../../graph/plan.js";
import { type RecordFields, recordSize, writeRecord } from "./record.js";

const activationNumbers = ["none", "sigmoid", "reluSquared"] as const;
const unaryNumbers: readonly UnaryFunction[] = ["sigmoid", "reluSquared", "exp", "negate", "eluPlusOne"];
const scaleNumber = unaryNumbers.length;
const binaryNumbers: readonly BinaryFunction[] = [
  "add",
  "multiply",
  "sigmoidGradient",
  "reluSquaredGradient",
  "eluPlusOneGradient",
];

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
      const barrier = i === step.length - 1 ? (plan.barriers[index] as Barrier) : "never";
      const record = { ...recordOf(operation, addresses), barrier };
      // Between meetings of all threads wkv is shared by sequences, too.
      const alone = plan.barriers[index] === "always" && (plan.barriers[index - 1] ?? "always") === "always";
      writeRecord(record.kernel === "wkv" ? { ...record, function: alone ? 1 : 0 } : record, target.subarray(at));
      at += recordSize;
    });
  }
}

/** The record that computes a function of a vector, such as of a weight that training changes. */
export function vectorFunctionRecord(fn: UnaryFunction, width: number, from: number, to: number): RecordFields {
  return {
    kernel: "unary",
    barrier: "always",
    rows: 1,
    width,
    function: unaryNumbers.indexOf(fn),
    addresses: [from, to],
  };
}

function recordOf(operation: FusedOperation, addresses: Addresses): RecordFields {
  const { main, outputs } = operation;
  const output = addresses.buffer(outputs[0] as PlanNode);
  const buffer = (node: RowNode) => (node.op === "vectorRow" ? addresses.vector(node.vector) : addresses.buffer(node));
  const optional = (node: PlanNode | undefined) => (node ? addresses.buffer(node) : 0);
  const named = (name: string) =>
    optional(outputs.find((node) => "output" in node && node.output === name) as PlanNode | undefined);
  const { rows, width } = main;
  switch (main.op) {
    case "embedding": {
      const { address, dtype } = addresses.matrix(main.table);
      return {
        kernel: main.op,
        rows,
        width,
        dtype,
        inputs: main.table.shape[0] as number,
        addresses: [address, output],
      };
    }
    case "layerNorm":
      return {
        kernel: main.op,
        rows,
        width,
        factor: main.epsilon,
        addresses: [buffer(main.x), addresses.vector(main.weight), addresses.vector(main.bias), output],
      };
    case "tokenShift": {
      const list = new Array<number>(9).fill(0);
      list[0] = buffer(main.x);
      (outputs as (typeof main)[]).forEach((mixed, i) => {
        list[1 + i] = addresses.vector(mixed.factors[mixed.output] as Vector);
        list[5 + i] = addresses.buffer(mixed);
      });
      const states = [addresses.state(main.previous)];
      return { kernel: main.op, rows, width, count: outputs.length, states, addresses: list };
    }
    case "matmul": {
      const { address, dtype } = addresses.matrix(main.weight);
      const x = addresses.buffer(operation.inputs[0] as PlanNode);
      return {
        kernel: main.op,
        rows,
        width,
        dtype,
        inputs: main.x.width,
        function: activationNumbers.indexOf(operation.activation),
        addresses: [address, x, optional(operation.multiplier), optional(operation.addend), output],
      };
    }
    case "wkv":
      return {
        kernel: main.op,
        rows,
        width,
        states: statesOf(main.state, addresses),
        addresses: [
          buffer(main.key),
          buffer(main.value),
          addresses.vector(main.decay),
          addresses.vector(main.first),
          optional(operation.multiplier),
          output,
        ],
      };
    case "attention":
      return {
        kernel: main.op,
        width,
        inputs: main.cache.capacity,
        count: main.heads,
        states: [main.cache.count, main.cache.keys, main.cache.values].map((state) => addresses.state(state)),
        addresses: [buffer(main.query), buffer(main.key), buffer(main.value), output],
      };
    case "aft":
      return {
        ...attentionFreeFields(main, addresses),
        kernel: main.op,
        addresses: [buffer(main.key), buffer(main.value), addresses.matrix(main.bias).address, output],
      };
    case "elman":
      return {
        kernel: main.op,
        width,
        states: [addresses.state(main.state)],
        addresses: [buffer(main.x), addresses.matrix(main.weight).address, output],
      };
    case "gru":
      return {
        kernel: main.op,
        width,
        states: [addresses.state(main.state)],
        addresses: [
          ...[main.update, main.reset, main.candidate].map(buffer),
          ...main.weights.map((weight) => addresses.matrix(weight).address),
          ...["state", "update", "reset", "candidate", "left"].map(named),
        ],
      };
    case "linearAttention":
      return {
        kernel: main.op,
        width,
        count: main.heads,
        states: [main.sums, main.normalizer].map((state) => addresses.state(state)),
        addresses: [buffer(main.query), buffer(main.key), buffer(main.value), output],
      };
    case "addPosition": {
      const { address, dtype } = addresses.matrix(main.table);
      return {
        kernel: main.op,
        width,
        dtype,
        inputs: main.table.shape[0] as number,
        states: [addresses.state(main.position)],
        addresses: [buffer(main.x), address, output],
      };
    }
    case "unary":
      return {
        kernel: main.op,
        rows,
        width,
        function: unaryNumbers.indexOf(main.function),
        addresses: [buffer(main.x), output],
      };
    case "scale":
      return {
        kernel: "unary",
        rows,
        width,
        function: scaleNumber,
        factor: main.factor,
        addresses: [buffer(main.x), output],
      };
    case "binary":
      return {
        kernel: main.op,
        rows,
        width,
        function: binaryNumbers.indexOf(main.function),
        addresses: [buffer(main.a), buffer(main.b), output],
      };
    case "dropout":
      return {
        kernel: main.op,
        rows,
        width,
        count: main.index,
        factor: main.rate,
        addresses: [buffer(main.x), output],
      };
    case "quantizeRows":
      return { kernel: main.op, rows, width, inputs: main.x.width, addresses: [buffer(main.x), output] };
    case "selectRows":
    case "scatterRows":
      return { kernel: main.op, rows, width, addresses: [buffer(main.x), output] };
    case "crossEntropy":
      return {
        kernel: main.op,
        rows,
        inputs: main.logits.width,
        factor: main.logitPenalty,
        addresses: [buffer(main.logits), named("loss"), named("gradient")],
      };
    case "transposedMatmul": {
      const { address, dtype } = addresses.matrix(main.weight);
      return {
        kernel: main.op,
        rows,
        width,
        dtype,
        inputs: main.x.width,
        addresses: [address, buffer(main.x), output],
      };
    }
    case "weightGradient":
      return {
        kernel: main.op,
        rows,
        width,
        inputRows: main.x.rows,
        addresses: [buffer(main.x), buffer(main.gradient), output],
      };
    case "embeddingGradient":
      return { kernel: main.op, rows, width, addresses: [buffer(main.gradient), output] };
    case "layerNormGradient":
      return {
        kernel: main.op,
        rows,
        width,
        factor: main.epsilon,
        addresses: [buffer(main.x), addresses.vector(main.weight), buffer(main.gradient), output],
      };
    case "rowMoments":
      return {
        kernel: main.op,
        rows,
        width,
        inputs: main.x.width,
        factor: main.epsilon,
        addresses: [buffer(main.x), output],
      };
    case "layerNormWeightGradient":
      return {
        kernel: main.op,
        rows,
        width,
        inputRows: main.x.rows,
        addresses: [buffer(main.x), buffer(main.moments), buffer(main.gradient), output],
      };
    case "segmentSums":
      return {
        kernel: main.op,
        rows,
        width,
        inputs: main.x.width,
        count: main.part * width,
        addresses: [buffer(main.x), output],
      };
    case "columnSums":
      return { kernel: main.op, rows, width, inputRows: main.x.rows, addresses: [buffer(main.x), output] };
    case "tokenShiftGradient": {
      const list = new Array<number>(15).fill(0);
      list[0] = buffer(main.x);
      list[9] = named("x");
      list[14] = named("state");
      main.factors.forEach((factor, i) => {
        list[1 + i] = addresses.vector(factor);
        list[5 + i] = buffer(main.gradients[i] as RowNode);
        list[10 + i] = named(`factor${i}`);
      });
      const states = [addresses.state(main.previous)];
      return { kernel: main.op, width, count: main.factors.length, states, addresses: list };
    }
    case "wkvGradient":
      return {
        kernel: main.op,
        width: main.key.width,
        states: statesOf(main.state, addresses),
        addresses: [
          buffer(main.key),
          buffer(main.value),
          addresses.vector(main.decay),
          addresses.vector(main.first),
          buffer(main.gradient),
          ...["totals", "key", "value"].map(named),
        ],
      };
    case "aftGradient":
      return {
        ...attentionFreeFields(main, addresses),
        kernel: main.op,
        addresses: [
          ...[main.key, main.value].map(buffer),
          addresses.matrix(main.bias).address,
          ...[main.gradient, main.result].map(buffer),
          ...["key", "value", "moments"].map(named),
        ],
      };
    case "aftBiasGradient":
      return {
        ...attentionFreeFields(main, addresses),
        kernel: main.op,
        addresses: [
          ...[main.key, main.value].map(buffer),
          addresses.matrix(main.bias).address,
          ...[main.gradient, main.result, main.moments].map(buffer),
          output,
        ],
      };
    case "elmanGradient":
      return {
        kernel: main.op,
        width,
        addresses: [addresses.matrix(main.weight).address, buffer(main.result), buffer(main.gradient), output],
      };
    case "gruGradient":
      return {
        kernel: main.op,
        width,
        states: [addresses.state(main.state)],
        addresses: [
          ...main.weights.map((weight) => addresses.matrix(weight).address),
          ...[main.result, main.update, main.reset, main.candidate, main.gradient].map(buffer),
          ...["update", "reset", "candidate"].map(named),
        ],
      };
    case "previousRows":
      return {
        kernel: main.op,
        width,
        states: [addresses.state(main.state)],
        addresses: [buffer(main.x), output],
      };
    case "attentionGradient":
      return {
        kernel: main.op,
        width,
        inputs: main.cache.capacity,
        count: main.heads,
        states: [main.cache.count, main.cache.keys, main.cache.values].map((state) => addresses.state(state)),
        addresses: [
          ...[main.query, main.key, main.value, main.result, main.gradient].map(buffer),
          ...["query", "key", "value"].map(named),
        ],
      };
    case "linearAttentionGradient":
      return {
        kernel: main.op,
        width: main.key.width,
        count: main.heads,
        states: [main.sums, main.normalizer].map((state) => addresses.state(state)),
        addresses: [
          ...[main.query, main.key, main.value, main.result, main.gradient].map(buffer),
          ...["shares", "query", "key", "value"].map(named),
        ],
      };
    case "positionGradient":
      return {
        kernel: main.op,
        rows,
        width,
        states: [addresses.state(main.position)],
        addresses: [buffer(main.gradient), output],
      };
    case "vectorRow":
      throw new RangeError("a vector is no operation: it lies where it is");
  }
}

/** What all kernels of the Attention Free Transformer read alike; their rows are those of the biases. */
function attentionFreeFields({ bias, heads, state, key }: AttentionFree, addresses: Addresses) {
  return {
    rows: bias.shape[0] as number,
    width: key.width,
    dtype: addresses.matrix(bias).dtype,
    inputs: bias.shape[1] as number,
    function: state.slots,
    count: heads,
    states: [state.count, state.keys, state.values, state.past.numerator].map((vector) => addresses.state(vector)),
  };
}

function statesOf(
  state: { numerator: StateVector; denominator: StateVector; maxExponent: StateVector },
  addresses: Addresses,
): number[] {
  return [state.numerator, state.denominator, state.maxExponent].map((vector) => addresses.state(vector));
}
