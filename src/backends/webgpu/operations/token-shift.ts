// Token shift and the difference to the token before: an invocation a channel of a row. The first row of a sequence reads its state,
// and the same invocation then leaves the last row there, so that nobody reads what another has replaced.

import { type RowNode, type StateVector, statesOf, type Vector, vectorsOf } from "../../../graph/graph.js";
import type { Kernel, Operands } from "../operands.js";
import { type Invocation, makeShader, oneVariant, passLayout, type Shader } from "../shader.js";
import { lines } from "../wgsl.js";

const workgroup = 64;

/** @param results lines that store what is made of `value` and `before` at `at` */
function shiftShader(label: string, fields: readonly string[], results: string): Shader {
  return makeShader({
    label,
    fields: ["x", "width", "previous", ...fields],
    workgroup,
    body: `
  let c = tile * ${workgroup}u + lane;
  if (c >= p.width) { return; }
  let sequence = ${passLayout.segments}u + 4u * given[${passLayout.sequences}u + row];
  let start = given[sequence];
  let previous = given[sequence + 2u] + p.previous + c;
  let at = row * p.width + c;
  let value = arena[p.x + at];
  var before = 0.0;
  if (row == start) { before = states[previous]; } else { before = arena[p.x + at - p.width]; }
${results}
  if (row == start) { states[previous] = arena[p.x + (start + given[sequence + 1u] - 1u) * p.width + c]; }`,
  });
}

function invocation(
  shader: Shader,
  { x, previous }: { x: RowNode; previous: StateVector },
  operands: Operands,
  fields: Record<string, number>,
): Invocation {
  return {
    over: "tokens",
    weights: undefined,
    fields: { x: operands.value(x), width: x.width, previous: operands.state(previous), ...fields },
    variants: oneVariant(shader, Math.ceil(x.width / workgroup)),
  };
}

export const tokenShift: Kernel = ({ call, inputs, outputs }, operands) => {
  const [x] = inputs as [RowNode];
  const [previous] = statesOf(call) as [StateVector];
  const vectors = vectorsOf(call) as readonly Vector[];
  // Mixes that nobody reads have no place.
  const mixes = vectors.flatMap((factor, i) => {
    const result = call.outputs[i] as RowNode;
    return outputs.includes(result) ? [{ factor: operands.vector(factor), result: operands.value(result) }] : [];
  });
  const fields: Record<string, number> = {};
  for (const [i, { factor, result }] of mixes.entries()) {
    fields[`factor${i}`] = factor;
    fields[`result${i}`] = result;
  }
  const stores = lines(
    mixes.length,
    (i) => `  {
    let factor = vectors[p.factor${i} + c];
    arena[p.result${i} + at] = value * factor + before * (1.0 - factor);
  }`,
  );
  const shader = shiftShader(`tokenShift, ${mixes.length} factors`, Object.keys(fields), stores);
  return [invocation(shader, { x, previous }, operands, fields)];
};

const difference = shiftShader("shiftDifference", ["result"], "  arena[p.result + at] = before - value;");

export const shiftDifference: Kernel = ({ call, inputs }, operands) => {
  const [x] = inputs as [RowNode];
  const [previous] = statesOf(call) as [StateVector];
  return [invocation(difference, { x, previous }, operands, { result: operands.value(call.outputs[0] as RowNode) })];
};
