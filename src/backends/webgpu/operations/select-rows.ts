// The rows whose logits are wanted: an invocation an element.

import type { RowNode } from "../../../graph/graph.js";
import type { Kernel } from "../operands.js";
import { makeShader, oneVariant, passLayout } from "../shader.js";

const workgroup = 64;

const shader = makeShader({
  label: "selectRows",
  fields: ["x", "result", "width"],
  workgroup,
  body: `
  let c = tile * ${workgroup}u + lane;
  if (c >= p.width) { return; }
  arena[p.result + row * p.width + c] = arena[p.x + given[${passLayout.selected}u + row] * p.width + c];`,
});

export const selectRows: Kernel = ({ call, inputs }, operands) => {
  const [x] = inputs as [RowNode];
  const result = operands.value(call.outputs[0] as RowNode);
  const fields = { x: operands.value(x), result, width: x.width };
  const variants = oneVariant(shader, Math.ceil(x.width / workgroup));
  return [{ over: "selected", weights: undefined, fields, variants }];
};
