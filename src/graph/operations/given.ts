// Rows that another graph has computed: where a graph is some layers of a model, what the layers before them hand on (split.ts). They are put
// in their place before a pass, so there is no work and no kernel.

import { shapeOf } from "../graph.js";
import { operation } from "../operation.js";
import type { Rows } from "../rows.js";

/** A row for every token of a pass. @param number which of the values that a pass is given */
export const given = operation({
  name: "given",
  attributes: { number: "count", width: "count" },
  outputs: ["result"],
  isGiven: true,
  shape: ({ width }) => ({ result: shapeOf("tokens", width) }),
  reference: ({ number }, { given: values = [] }) => ({ result: values[number] as Rows }),
  gradient: { none: "models in parts are not trained" },
});
