// Sums and norms of heads: a workgroup a head of a row.

import type { RowNode } from "../../../graph/graph.js";
import type { Kernel } from "../operands.js";
import { makeShader, oneVariant, type Shader } from "../shader.js";
import { floatBits } from "../wgsl.js";

const workgroup = 64;

/** For each channel of a head; `x` is where the head begins. */
const overHead = (statement: string) =>
  `for (var c = lane; c < p.size; c += ${workgroup}u) { let value = arena[x + c]; ${statement} }`;

const begin = `
  let first = row * p.width + tile * p.size;
  let x = p.x + first;
  var sum = 0.0;`;

function headShader(label: string, body: string): Shader {
  const fields = ["x", "result", "width", "size", "epsilon"];
  return makeShader({ label, fields, workgroup, sum: "f32", body: `${begin}${body}` });
}

const shaders = {
  headSum: headShader(
    "headSum",
    `
  ${overHead("sum += value;")}
  let total = sumOf(lane, sum);
  if (lane == 0u) { arena[p.result + row * (p.width / p.size) + tile] = total; }`,
  ),
  headNorm: headShader(
    "headNorm",
    `
  ${overHead("sum += value;")}
  let mean = sumOf(lane, sum) / f32(p.size);
  var squares = 0.0;
  ${overHead("squares += (value - mean) * (value - mean);")}
  let scale = 1.0 / sqrt(sumOf(lane, squares) / f32(p.size) + bitcast<f32>(p.epsilon));
  ${overHead("arena[p.result + first + c] = (value - mean) * scale;")}`,
  ),
  headNormalize: headShader(
    "headNormalize",
    `
  ${overHead("sum += value * value;")}
  let scale = 1.0 / max(sqrt(sumOf(lane, sum)), bitcast<f32>(p.epsilon));
  ${overHead("arena[p.result + first + c] = value * scale;")}`,
  ),
};

function headKernel(shader: Shader): Kernel {
  return ({ call, inputs }, operands) => {
    const [x] = inputs as [RowNode];
    const [result] = call.outputs as readonly [RowNode];
    const { heads, epsilon } = call.operands as { heads: number; epsilon?: number };
    return [
      {
        over: result.rows,
        weights: undefined,
        fields: {
          x: operands.value(x),
          result: operands.value(result),
          width: x.width,
          size: x.width / heads,
          epsilon: floatBits(epsilon ?? 0),
        },
        variants: oneVariant(shader, heads),
      },
    ];
  };
}

export const headSum = headKernel(shaders.headSum);
export const headNorm = headKernel(shaders.headNorm);
export const headNormalize = headKernel(shaders.headNormalize);
