// Rows in blocks of 8 bits, for products with weights in blocks: an invocation four elements, eight a block. A row is its integers, four in a
// word, and then the scales of its blocks.

import type { RowNode } from "../../../graph/graph.js";
import type { Kernel } from "../operands.js";
import { makeShader, oneVariant } from "../shader.js";

const workgroup = 64;
/** Inputs whose blocks come in pairs, as those of weights do. */
const pairInputs = 64;

/** Where the parts of a row are, and how long it is, in words. */
export function quantizedRow(inputs: number): { scales: number; blocks: number } {
  const pairs = Math.ceil(inputs / pairInputs);
  return { scales: pairs * (pairInputs / 4), blocks: 2 * pairs };
}

const shader = makeShader({
  label: "quantizeRows",
  fields: ["x", "result", "width", "resultWidth", "scales"],
  workgroup,
  arena: "u32",
  declarations: `var<workgroup> largest: array<f32, ${workgroup}>;`,
  body: `
  let word = tile * ${workgroup}u + lane;
  var values = vec4<f32>();
  for (var i = 0u; i < 4u; i++) {
    let c = 4u * word + i;
    if (c < p.width) { values[i] = bitcast<f32>(arena[p.x + row * p.width + c]); }
  }
  let sizes = abs(values);
  largest[lane] = max(max(sizes.x, sizes.y), max(sizes.z, sizes.w));
  workgroupBarrier();
  var most = 0.0;
  for (var i = 0u; i < 8u; i++) { most = max(most, largest[(lane & ~7u) + i]); }
  if (word < p.scales) {
    let inverse = select(0.0, 127.0 / most, most > 0.0);
    let whole = vec4<i32>(round(values * inverse)) & vec4<i32>(255);
    let at = p.result + row * p.resultWidth;
    arena[at + word] = bitcast<u32>(whole.x | (whole.y << 8u) | (whole.z << 16u) | (whole.w << 24u));
    if ((word & 7u) == 0u) { arena[at + p.scales + word / 8u] = bitcast<u32>(most / 127.0); }
  }`,
});

export const quantizeRows: Kernel = ({ call, inputs }, operands) => {
  const [x] = inputs as [RowNode];
  const result = call.outputs[0] as RowNode;
  const { scales } = quantizedRow(x.width);
  return [
    {
      over: result.rows,
      weights: undefined,
      fields: {
        x: operands.value(x),
        result: operands.value(result),
        width: x.width,
        resultWidth: result.width,
        scales,
      },
      variants: oneVariant(shader, Math.ceil(scales / workgroup)),
    },
  ];
};
