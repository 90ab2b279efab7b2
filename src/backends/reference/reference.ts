// The reference backend: walks the graph node by node in plain TypeScript, float32 weights, one thread. It is the truth
// that tests hold the kernels against, and slow on purpose.

import { tensorPieces } from "../../checkpoints/read-tensor.js";
import {
  type BlockType,
  bytesPerElement,
  convertElements,
  elementCount,
  isBlockType,
  type WeightDType,
} from "../../dtypes.js";
import { type RowNode, topologicalOrder, type Vector, type WeightNode } from "../../graph/graph.js";
import { stateLayout } from "../../graph/state-layout.js";
import type { BoundModel } from "../../models/versions.js";
import { dequantizeGroup, groupOutputs, quantizeGroup } from "../../quantization/blocks.js";
import { chooseToken } from "../../sampling/choose-token.js";
import {
  type Backend,
  choicesOf,
  type OpenOptions,
  type PassResult,
  type PassSegment,
  type Runtime,
  selectedCount,
} from "../backend.js";
import { matrixTypes, readVectors, tensorOf, vectorValues } from "../weights.js";
import {
  binaryFunctions,
  gatherRows,
  layerNorm,
  matmul,
  matmulInBlocks,
  mixWithPrevious,
  type RowRange,
  type Rows,
  saveLastRow,
  unaryFunctions,
  wkv,
  zeros,
} from "./operations.js";

const maxTokens = 128;

export const referenceBackend: Backend = { name: "reference", open };

async function open(model: BoundModel, options: OpenOptions): Promise<Runtime> {
  const { graph } = model;
  const types = matrixTypes(graph, model.tensors, options.dtype);
  const matrices = await readMatrices(model, types, options);
  const vectors = await readVectors(graph, model.tensors);
  const layout = stateLayout(graph);
  const order = topologicalOrder(graph.output);

  async function run(segments: readonly PassSegment[]): Promise<PassResult> {
    const ranges: RowRange[] = [];
    const tokens: number[] = [];
    const selected: number[] = [];
    for (const { state, tokens: own, logits } of segments) {
      ranges.push({ start: tokens.length, count: own.length, state: state.values });
      tokens.push(...own);
      const first = logits === "all" ? own.length : logits === "last" ? 1 : 0;
      for (let i = first; i > 0; i--) selected.push(tokens.length - i);
    }
    const values = new Map<RowNode, Rows>();
    const of = (node: RowNode) => values.get(node) as Rows;
    const vector = (v: Vector) => vectorValues(v, vectors);
    const offset = (state: { index: number }) => layout.offsets[state.index] as number;
    for (const node of order) values.set(node, evaluate(node));
    const logits = selectedCount(segments) === 0 ? new Float32Array(0) : of(graph.output).values;
    const { width } = graph.output;
    const chosen = choicesOf(segments).map(({ choice, row }) =>
      chooseToken(logits.subarray(row * width, (row + 1) * width), choice),
    );
    return { logits, tokens: chosen };

    function evaluate(node: RowNode): Rows {
      switch (node.op) {
        case "embedding":
          return gatherRows(matrices.get(node.table) as Rows, tokens);
        case "layerNorm":
          return layerNorm(of(node.x), vector(node.weight), vector(node.bias), node.epsilon);
        case "tokenShift": {
          const mixed = mixWithPrevious(
            of(node.x),
            ranges,
            offset(node.previous),
            vector(node.factors[node.output] as Vector),
          );
          // The last output of the group to be evaluated moves the state on.
          const siblings = order.filter((other) => other.op === "tokenShift" && other.group === node.group);
          if (siblings.at(-1) === node) saveLastRow(of(node.x), ranges, offset(node.previous));
          return mixed;
        }
        case "matmul":
          return (isBlockType(types.get(node.weight) as WeightDType) ? matmulInBlocks : matmul)(
            matrices.get(node.weight) as Rows,
            of(node.x),
          );
        case "wkv":
          return wkv(of(node.key), of(node.value), vector(node.decay), vector(node.first), ranges, {
            numerator: offset(node.state.numerator),
            denominator: offset(node.state.denominator),
            maxExponent: offset(node.state.maxExponent),
          });
        case "unary": {
          const x = of(node.x);
          return { ...x, values: x.values.map(unaryFunctions[node.function]) };
        }
        case "binary": {
          const [a, b, f] = [of(node.a), of(node.b), binaryFunctions[node.function]];
          const out = zeros(a.rows, a.width);
          for (let i = 0; i < out.values.length; i++) out.values[i] = f(a.values[i] as number, b.values[i] as number);
          return out;
        }
        case "selectRows":
          return gatherRows(of(node.x), selected);
      }
    }
  }

  return {
    threads: 1,
    maxTokens,
    createState: () => ({ values: layout.initial.slice(), release() {} }),
    run,
    async dispose() {},
  };
}

/** Reads matrices as float32; where another working type is wanted, rounded to it first. */
async function readMatrices(
  model: BoundModel,
  types: ReadonlyMap<WeightNode, WeightDType>,
  options: OpenOptions,
): Promise<Map<WeightNode, Rows>> {
  const matrices = new Map<WeightNode, Rows>();
  const total = [...types.keys()].reduce((sum, weight) => sum + elementCount(weight.shape) * 4, 0);
  let done = 0;
  for (const [weight, type] of types) {
    const tensor = tensorOf(model.tensors, weight);
    const [rows, width] = weight.shape as [number, number];
    const values = new Float32Array(rows * width);
    const bytes = new Uint8Array(values.buffer);
    const dtype = isBlockType(type) ? "f32" : type;
    let at = 0;
    for await (const piece of tensorPieces(tensor, dtype)) {
      const target = bytes.subarray(at, at + (piece.byteLength / bytesPerElement[dtype]) * 4);
      convertElements(piece, dtype, target, "f32");
      at += target.byteLength;
    }
    // What is stored in blocks of that type already has its values.
    if (isBlockType(type) && tensor.dtype !== type) roundToBlocks(values, width, type);
    matrices.set(weight, { rows, width, values });
    done += bytes.byteLength;
    options.onProgress?.(done, total);
  }
  return matrices;
}

function roundToBlocks(values: Float32Array, width: number, dtype: BlockType): void {
  for (let at = 0; at < values.length; at += groupOutputs * width) {
    const rows = values.subarray(at, at + groupOutputs * width);
    dequantizeGroup(quantizeGroup(rows, width, dtype), width, dtype, rows);
  }
}
