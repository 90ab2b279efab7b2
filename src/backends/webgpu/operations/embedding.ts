// The embedding: the row of a table for each token, an invocation four channels. A table in several buffers takes an invocation for each,
// which leaves tokens alone whose rows are in another.

import { matricesOf, type RowNode, type WeightNode } from "../../../graph/graph.js";
import type { Kernel } from "../operands.js";
import { makeShader, oneVariant, passLayout } from "../shader.js";
import { weightsCode } from "../weight-types.js";

const workgroup = 64;

export const embedding: Kernel = ({ call }, operands) => {
  const [table] = matricesOf(call) as [WeightNode];
  const { dtype, stride, parts } = operands.matrix(table);
  const result = call.outputs[0] as RowNode;
  const shader = makeShader({
    label: `embedding, ${dtype}`,
    fields: ["result", "width", "weights", "stride", "first", "rows"],
    workgroup,
    declarations: weightsCode(dtype),
    body: `
  let unit = tile * ${workgroup}u + lane;
  let token = given[${passLayout.tokens}u + row] - p.first;
  if (4u * unit >= p.width || token >= p.rows) { return; }
  let values = weightsAt(p.weights, p.stride, token, unit);
  for (var i = 0u; i < min(4u, p.width - 4u * unit); i++) {
    arena[p.result + row * p.width + 4u * unit + i] = values[i];
  }`,
  });
  return parts.map(({ buffer, offset, firstRow, rows }) => ({
    over: "tokens" as const,
    weights: buffer,
    fields: { result: operands.value(result), width: result.width, weights: offset, stride, first: firstRow, rows },
    variants: oneVariant(shader, Math.ceil(result.width / 4 / workgroup)),
  }));
};
