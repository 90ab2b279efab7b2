// The recurrence wkv: an invocation a channel of a sequence.

import { type RowNode, statesOf, vectorsOf } from "../../../graph/graph.js";
import type { Kernel } from "../operands.js";
import { makeShader, none, oneVariant, passLayout } from "../shader.js";
import { expFunction } from "../wgsl.js";

const workgroup = 64;

const shader = makeShader({
  label: "wkv",
  fields: [
    ...["key", "value", "result", "width", "decay", "first", "numerator", "denominator", "maxExponent", "multiplier"],
  ],
  workgroup,
  declarations: expFunction,
  body: `
  let c = tile * ${workgroup}u + lane;
  if (c >= p.width) { return; }
  let sequence = ${passLayout.segments}u + 4u * row;
  let start = given[sequence];
  let end = start + given[sequence + 1u];
  let state = given[sequence + 2u] + c;
  var numerator = states[state + p.numerator];
  var denominator = states[state + p.denominator];
  var exponent = states[state + p.maxExponent];
  let w = vectors[p.decay + c];
  let u = vectors[p.first + c];
  for (var t = start; t < end; t++) {
    let at = t * p.width + c;
    let k = arena[p.key + at];
    let v = arena[p.value + at];
    var q = max(exponent, u + k);
    let past = expOf(exponent - q);
    let present = expOf(u + k - q);
    var result = (past * numerator + present * v) / (past * denominator + present);
    if (p.multiplier != ${none}u) { result *= arena[p.multiplier + at]; }
    arena[p.result + at] = result;
    q = max(exponent + w, k);
    let decayed = expOf(exponent + w - q);
    let added = expOf(k - q);
    numerator = decayed * numerator + added * v;
    denominator = decayed * denominator + added;
    exponent = q;
  }
  states[state + p.numerator] = numerator;
  states[state + p.denominator] = denominator;
  states[state + p.maxExponent] = exponent;`,
});

export const wkv: Kernel = ({ call, inputs, outputs, multiplier }, operands) => {
  const [key, value] = inputs as [RowNode, RowNode];
  const [decay, first] = vectorsOf(call).map((vector) => operands.vector(vector)) as [number, number];
  const states = statesOf(call).map((state) => operands.state(state)) as [number, number, number];
  return [
    {
      over: "sequences",
      weights: undefined,
      fields: {
        key: operands.value(key),
        value: operands.value(value),
        result: operands.value(outputs[0] as RowNode),
        width: key.width,
        decay,
        first,
        numerator: states[0],
        denominator: states[1],
        maxExponent: states[2],
        multiplier: multiplier ? operands.value(multiplier) : none,
      },
      variants: oneVariant(shader, Math.ceil(key.width / workgroup)),
    },
  ];
};
