// The recurrence wkv6: a workgroup some columns of a head's matrix, one each of its invocations, which hold them while they walk
// through the tokens of a sequence.

import { type RowNode, type StateVector, statesOf } from "../../../graph/graph.js";
import type { Kernel } from "../operands.js";
import { makeShader, oneVariant, passLayout, type Shader } from "../shader.js";
import { lines } from "../wgsl.js";

const workgroup = 32;

/** Heads of more channels are read from and written to the state at each token. */
const mostHeld = 128;

/** Rows of a token that all columns need, in the memory of the workgroup. */
const shared = ["receptance", "decay", "key", "bonus"] as const;

function wkv6Shader(size: number, decayOfEach: boolean): Shader {
  const held = size <= mostHeld;
  const matrixAt = `state + i * ${size}u`;
  return makeShader({
    label: `wkv6, heads of ${size}${decayOfEach ? "" : ", one decay for all tokens"}`,
    fields: ["receptance", "decay", "key", "value", "bonus", "result", "width", "matrix"],
    workgroup,
    declarations: lines(shared.length, (i) => `var<workgroup> ${shared[i]}: array<f32, ${size}>;`),
    body: `
  let columns = ${Math.ceil(size / workgroup)}u;
  let first = tile / columns * ${size}u;
  let column = tile % columns * ${workgroup}u + lane;
  let isMine = column < ${size}u;
  let mine = min(column, ${size - 1}u);
  let sequence = ${passLayout.segments}u + 4u * row;
  let start = given[sequence];
  let end = start + given[sequence + 1u];
  let state = given[sequence + 2u] + p.matrix + first * ${size}u + mine;
  ${
    held
      ? `var s: array<f32, ${size}>;
  for (var i = 0u; i < ${size}u; i++) { s[i] = states[${matrixAt}]; }`
      : ""
  }
  for (var t = start; t < end; t++) {
    let at = t * p.width + first;
    workgroupBarrier();
    for (var i = lane; i < ${size}u; i += ${workgroup}u) {
      receptance[i] = arena[p.receptance + at + i];
      decay[i] = arena[p.decay + ${decayOfEach ? "at" : "first"} + i];
      key[i] = arena[p.key + at + i];
      bonus[i] = arena[p.bonus + first + i];
    }
    workgroupBarrier();
    let v = arena[p.value + at + mine];
    var result = 0.0;
    for (var i = 0u; i < ${size}u; i++) {
      let before = ${held ? "s[i]" : `states[${matrixAt}]`};
      let added = key[i] * v;
      result += receptance[i] * (before + bonus[i] * added);
      let after = decay[i] * before + added;
      ${held ? "s[i] = after;" : `if (isMine) { states[${matrixAt}] = after; }`}
    }
    if (isMine) { arena[p.result + at + mine] = result; }
  }
  ${held ? `if (isMine) { for (var i = 0u; i < ${size}u; i++) { states[${matrixAt}] = s[i]; } }` : ""}`,
  });
}

export const wkv6: Kernel = ({ call, inputs }, operands) => {
  const [decay, receptance, key, value, bonus] = inputs.map((node) => operands.value(node)) as [
    ...[number, number, number, number, number],
  ];
  const { width } = inputs[1] as RowNode;
  const { heads } = call.operands as { heads: number };
  const size = width / heads;
  const matrix = operands.state(statesOf(call)[0] as StateVector);
  const result = operands.value(call.outputs[0] as RowNode);
  const shader = wkv6Shader(size, (inputs[0] as RowNode).rows !== 1);
  return [
    {
      over: "sequences",
      weights: undefined,
      fields: { receptance, decay, key, value, bonus, result, width, matrix },
      variants: oneVariant(shader, heads * Math.ceil(size / workgroup)),
    },
  ];
};
