// The recurrence wkv7: a workgroup some rows of a head's matrix, one each of its invocations, which hold them while they walk through
// the tokens of a sequence.

import { type RowNode, type StateVector, statesOf } from "../../../graph/graph.js";
import type { Kernel } from "../operands.js";
import { makeShader, oneVariant, passLayout, type Shader } from "../shader.js";
import { lines } from "../wgsl.js";

const workgroup = 32;

/** Rows of a token that all rows of a matrix need, in the memory of the workgroup. */
const shared = ["receptance", "decay", "key", "removal", "replacement"] as const;

function wkv7Shader(size: number): Shader {
  // Vectors with names of their own, since compilers keep those in registers where they would not an array.
  const quads = Math.ceil(size / 4);
  const load = (i: number) => {
    const element = (j: number) => (4 * i + j < size ? `states[state + ${4 * i + j}u]` : "0.0");
    return `  var s${i} = vec4<f32>(${[0, 1, 2, 3].map(element).join(", ")});`;
  };
  const store = (i: number) =>
    lines(Math.min(4, size - 4 * i), (j) => `    states[state + ${4 * i + j}u] = s${i}[${j}];`);
  return makeShader({
    label: `wkv7, heads of ${size}`,
    fields: [...shared, "value", "result", "width", "matrix"],
    workgroup,
    declarations: `${lines(shared.length, (i) => `var<workgroup> ${shared[i]}: array<vec4<f32>, ${quads}>;`)}
// 0 behind a head's channels.
fn elementAt(first: u32, i: u32) -> f32 { return select(0.0, arena[first + i], i < ${size}u); }`,
    body: `
  let groups = ${Math.ceil(size / workgroup)}u;
  let first = tile / groups * ${size}u;
  let own = tile % groups * ${workgroup}u + lane;
  let isMine = own < ${size}u;
  let mine = min(own, ${size - 1}u);
  let sequence = ${passLayout.segments}u + 4u * row;
  let start = given[sequence];
  let end = start + given[sequence + 1u];
  let state = given[sequence + 2u] + p.matrix + (first + mine) * ${size}u;
${lines(quads, load)}
  for (var t = start; t < end; t++) {
    let at = t * p.width + first;
    workgroupBarrier();
    for (var quad = lane; quad < ${quads}u; quad += ${workgroup}u) {
      ${lines(shared.length, (i) => {
        const name = shared[i] as string;
        const element = (j: number) =>
          size % 4 === 0 ? `arena[p.${name} + at + 4u * quad + ${j}u]` : `elementAt(p.${name} + at, 4u * quad + ${j}u)`;
        return `${name}[quad] = vec4<f32>(${[0, 1, 2, 3].map(element).join(", ")});`;
      })}
    }
    workgroupBarrier();
    let v = arena[p.value + at + mine];
    var removed = 0.0;
${lines(quads, (i) => `    removed += dot(s${i}, removal[${i}]);`)}
    var result = 0.0;
${lines(
  quads,
  (i) => `    s${i} = s${i} * decay[${i}] - removed * replacement[${i}] + v * key[${i}];
    result += dot(s${i}, receptance[${i}]);`,
)}
    if (isMine) { arena[p.result + at + mine] = result; }
  }
  if (isMine) {
${lines(quads, store)}
  }`,
  });
}

export const wkv7: Kernel = ({ call, inputs }, operands) => {
  const names = call.operation.inputs;
  const { width } = inputs[0] as RowNode;
  const { heads } = call.operands as { heads: number };
  const size = width / heads;
  const places = Object.fromEntries(inputs.map((node, i) => [names[i] as string, operands.value(node)]));
  const matrix = operands.state(statesOf(call)[0] as StateVector);
  const fields = { ...places, result: operands.value(call.outputs[0] as RowNode), width, matrix };
  const variants = oneVariant(wkv7Shader(size), heads * Math.ceil(size / workgroup));
  return [{ over: "sequences", weights: undefined, fields, variants }];
};
