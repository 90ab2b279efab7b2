// The rows of the tokens whose logits are wanted, and their gradient.

import { type RowNode, shapeOf } from "../graph.js";
import { operation } from "../operation.js";
import { gatherRows, scatterAdd } from "../rows.js";
import { requireTokens } from "./checks.js";

/** The selected rows. */
export const selectRows = operation({
  name: "selectRows",
  inputs: ["x"],
  outputs: ["result"],
  shape({ x }) {
    requireTokens("selectRows", x);
    return { result: shapeOf("selected", x.width) };
  },
  reference: ({ x }, { selected }) => ({ result: gatherRows(x, selected) }),
  gradient({ operands: { x }, gradients }, context) {
    context.add(x, () => scatterRows.apply({ x: gradients.result as RowNode }).result);
  },
});

/** The selected rows where they came from, and 0 in the others. */
const scatterRows = operation({
  name: "scatterRows",
  inputs: ["x"],
  outputs: ["result"],
  shape: ({ x }) => ({ result: shapeOf("tokens", x.width) }),
  reference: ({ x }, { selected, tokens }) => ({ result: scatterAdd(x, selected, tokens.length) }),
  gradient: { none: "only gradients are built of it" },
});
