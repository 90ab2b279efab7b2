// The reference backend: walks the graph node by node in plain TypeScript, float32 weights, one thread. It is the truth
// that tests hold the kernels against, and slow on purpose.

import { describeClamped, describeOverflow, tensorPieces } from "../../checkpoints/read-tensor.js";
import {
  type BlockType,
  bytesPerElement,
  convertElements,
  elementCount,
  isBlockType,
  noOverflow,
  type WeightDType,
} from "../../dtypes.js";
import { BackendError } from "../../errors.js";
import { rootsOf, topologicalOrder, type WeightNode } from "../../graph/graph.js";
import type { MatrixRows, RowRange } from "../../graph/rows.js";
import { initialState, stateLayout } from "../../graph/state-layout.js";
import { groupOutputs } from "../../quantization/blocks.js";
import { clampedBlocks, layoutOf, quantizeGroup } from "../../quantization/quantize.js";
import type { StorageType } from "../../quantization/storage-types.js";
import { chooseToken, type TokenChoice } from "../../sampling/choose-token.js";
import {
  type Backend,
  type BackendModel,
  choicesOf,
  type OpenOptions,
  type PassResult,
  type PassSegment,
  type Runtime,
  type RuntimeState,
  selectedCount,
} from "../backend.js";
import { matrixTypes, treatmentOf } from "../placement.js";
import { readVectors, tensorOf, vectorValues } from "../weights.js";
import { type Context, evaluate } from "./evaluate.js";

const maxTokens = 128;

export const referenceBackend: Backend = { name: "reference", open };

async function open(model: BackendModel, options: OpenOptions): Promise<Runtime> {
  const { graph } = model;
  const types = matrixTypes(graph, model.tensors, options.dtype);
  const matrices = await readMatrices(model, types, options);
  const vectors = await readVectors(graph, model.tensors);
  const layout = stateLayout(graph);
  const initial = initialState(graph, (weight) => vectorValues(weight, vectors));
  const order = topologicalOrder(...rootsOf(graph));
  const context: Context = {
    matrix: (weight) => matrices.get(weight) as MatrixRows,
    vector: (vector) => vectorValues(vector, vectors),
    offset: (state) => layout.offsets[state.index] as number,
  };

  async function run(segments: readonly PassSegment[], given: readonly Float32Array[] = []): Promise<PassResult> {
    const ranges: RowRange[] = [];
    const tokens: number[] = [];
    const selected: number[] = [];
    for (const { state, tokens: own, logits } of segments) {
      const values = valuesOf(state);
      ranges.push({ start: tokens.length, count: own.length, state: values, nextState: values });
      for (let i = 0; i < own.length; i++) tokens.push(own[i] as number);
      const first = logits === "all" ? own.length : logits === "last" ? 1 : 0;
      for (let i = first; i > 0; i--) selected.push(tokens.length - i);
    }
    const rows = given.map((values) => ({ rows: tokens.length, width: values.length / tokens.length, values }));
    const of = evaluate(order, context, { ranges, tokens, selected, targets: [], seed: 0, given: rows });
    if (graph.handedOn) {
      const handedOn = graph.handedOn.map((node) => of(node).values as Float32Array);
      return { logits: new Float32Array(0), tokens: [], handedOn };
    }
    const logits = selectedCount(segments) === 0 ? new Float32Array(0) : (of(graph.output).values as Float32Array);
    const { width } = graph.output;
    const chosen = choicesOf(segments).map(({ choice, row }) =>
      tokenOrNone(logits.subarray(row * width, (row + 1) * width), choice),
    );
    return { logits, tokens: chosen };
  }

  const states = new WeakMap<RuntimeState, Float32Array>();
  function valuesOf(state: RuntimeState): Float32Array {
    const values = states.get(state);
    if (!values) throw new BackendError("the state was disposed, or belongs to another model");
    return values;
  }

  return {
    threads: 1,
    maxTokens,
    stateLength: layout.length,
    createState(values = initial) {
      const state: RuntimeState = { release: () => void states.delete(state) };
      states.set(state, values.slice());
      return state;
    },
    readState: async (state) => valuesOf(state).slice(),
    writeState: (state, values) => valuesOf(state).set(values),
    run,
    async dispose() {},
  };
}

/** The token that is chosen, or -1 where logits are not numbers. */
function tokenOrNone(logits: Float32Array, choice: TokenChoice): number {
  try {
    return chooseToken(logits, choice);
  } catch {
    return -1;
  }
}

/** Reads matrices as float32; where another working type is wanted, rounded to it first. */
async function readMatrices(
  model: BackendModel,
  types: ReadonlyMap<WeightNode, WeightDType>,
  options: OpenOptions,
): Promise<Map<WeightNode, MatrixRows>> {
  const matrices = new Map<WeightNode, MatrixRows>();
  const total = [...types.keys()].reduce((sum, weight) => sum + elementCount(weight.shape) * 4, 0);
  let done = 0;
  for (const [weight, type] of types) {
    const tensor = tensorOf(model.tensors, weight);
    const [rows, width] = weight.shape as [number, number];
    const values = new Float32Array(rows * width);
    const bytes = new Uint8Array(values.buffer);
    const dtype = isBlockType(type) ? "f32" : type;
    let at = 0;
    const overflow = noOverflow();
    for await (const piece of tensorPieces(tensor, dtype, overflow)) {
      const target = bytes.subarray(at, at + (piece.byteLength / bytesPerElement[dtype]) * 4);
      convertElements(piece, dtype, target, "f32");
      at += target.byteLength;
    }
    if (overflow.count > 0) options.onNotice?.(describeOverflow(tensor, dtype, overflow));
    // What is stored in blocks of that type already has its values.
    if (isBlockType(type) && treatmentOf(tensor, type, false) === "quantize") {
      const clamped = roundToBlocks(values, width, type, tensor.dtype);
      if (clamped > 0) options.onNotice?.(describeClamped(tensor, type, clamped));
    }
    matrices.set(weight, { rows, width, values, isInBlocks: isBlockType(type) });
    done += bytes.byteLength;
    options.onProgress?.(done, total);
  }
  return matrices;
}

/** Tells how many blocks have weights that are too large. */
function roundToBlocks(values: Float32Array, width: number, dtype: BlockType, stored: StorageType): number {
  let clamped = 0;
  for (let at = 0; at < values.length; at += groupOutputs * width) {
    const rows = values.subarray(at, at + groupOutputs * width);
    const group = quantizeGroup(rows, width, dtype, stored);
    clamped += clampedBlocks(group, dtype, width);
    layoutOf(dtype).decode(group, width, rows);
  }
  return clamped;
}
