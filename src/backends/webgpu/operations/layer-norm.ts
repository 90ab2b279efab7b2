// Layer normalization: a workgroup a row.

import { type RowNode, type Vector, vectorsOf } from "../../../graph/graph.js";
import type { Kernel } from "../operands.js";
import { makeShader, oneVariant } from "../shader.js";
import { floatBits } from "../wgsl.js";

const workgroup = 256;

const shader = makeShader({
  label: "layerNorm",
  fields: ["x", "result", "width", "weight", "bias", "epsilon"],
  workgroup,
  sum: "f32",
  body: `
  let x = p.x + row * p.width;
  var sum = 0.0;
  for (var c = lane; c < p.width; c += ${workgroup}u) { sum += arena[x + c]; }
  let mean = sumOf(lane, sum) / f32(p.width);
  var squares = 0.0;
  for (var c = lane; c < p.width; c += ${workgroup}u) {
    let centred = arena[x + c] - mean;
    squares += centred * centred;
  }
  let scale = 1.0 / sqrt(sumOf(lane, squares) / f32(p.width) + bitcast<f32>(p.epsilon));
  for (var c = lane; c < p.width; c += ${workgroup}u) {
    let normal = (arena[x + c] - mean) * scale;
    arena[p.result + row * p.width + c] = normal * vectors[p.weight + c] + vectors[p.bias + c];
  }`,
});

export const layerNorm: Kernel = ({ call, inputs }, operands) => {
  const [x] = inputs as [RowNode];
  const [weight, bias] = vectorsOf(call) as [Vector, Vector];
  const [result] = call.outputs as readonly [RowNode];
  return [
    {
      over: result.rows,
      weights: undefined,
      fields: {
        x: operands.value(x),
        result: operands.value(result),
        width: x.width,
        weight: operands.vector(weight),
        bias: operands.vector(bias),
        epsilon: floatBits(call.operands["epsilon"] as number),
      },
      variants: oneVariant(shader, 1),
    },
  ];
};
