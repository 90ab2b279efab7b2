// Second forms of matrices, input by input, for products that skip zeros. kernels/by_input.h has the layout.

import { bytesPerElement, type ComputeType, isBlockType } from "../../dtypes.js";
import type { GraphPart, WeightNode } from "../../graph/graph.js";
import { blockInputs } from "../../quantization/blocks.js";
import { matrixUses } from "../matrix-uses.js";
import type { KernelMachine } from "./kernel-machine.js";
import type { PlacedMatrix } from "./matrices.js";
import { SingleRecord } from "./single-record.js";

/** Types that have such a form. */
const types: ReadonlySet<ComputeType> = new Set(["f32", "f16", "bf16", "q8", "q4"]);

const lineBytes = 64;
/** Rows a multiple of so many cache lines apart have a line more. */
const conflictingLines = 16;

/** Bytes of the form of a matrix [outputs, inputs] of a type; undefined where the type has none. */
export function formSize({ shape }: WeightNode, dtype: ComputeType | undefined): number | undefined {
  if (dtype === undefined || !types.has(dtype)) return undefined;
  const [outputs, inputs] = shape as readonly [number, number];
  const outputsOfLine = isBlockType(dtype) ? (dtype === "q8" ? 64 : 128) : lineBytes / bytesPerElement[dtype];
  const lines = Math.ceil(outputs / outputsOfLine);
  const rowBytes = (lines % conflictingLines === 0 ? lines + 1 : lines) * lineBytes;
  if (!isBlockType(dtype)) return inputs * rowBytes;
  const blocks = 2 * Math.ceil(inputs / (2 * blockInputs));
  return blocks * (lines * outputsOfLine * 2 + blockInputs * rowBytes);
}

/**
 * Makes the form of each matrix that rows of mostly zeros are multiplied by, on all threads, and adds it to `matrices`.
 *
 * @returns what stands for the form of each matrix
 */
export async function layByInput(
  machine: KernelMachine,
  graph: GraphPart,
  matrices: Map<WeightNode, PlacedMatrix>,
): Promise<Map<WeightNode, WeightNode>> {
  const record = new SingleRecord(machine);
  const forms = new Map<WeightNode, WeightNode>();
  for (const weight of matrixUses(graph).sparse) {
    const { address, dtype } = matrices.get(weight) as PlacedMatrix;
    const size = formSize(weight, dtype);
    if (size === undefined) continue;
    const [outputs, inputs] = weight.shape as readonly [number, number];
    const block = machine.allocate(size);
    await record.run({
      kernel: "layByInput",
      matrix: { dtype, rows: outputs, columns: inputs },
      width: outputs,
      inputs,
      addresses: [address, block.address],
    });
    const form = { ...weight, name: `${weight.name}, input by input` };
    forms.set(weight, form);
    matrices.set(form, { address: block.address, dtype, bytes: () => block.bytes });
  }
  return forms;
}
