// The embedding: the row of a table for each token.

import { type RowNode, shapeOf } from "../graph.js";
import { operation } from "../operation.js";
import { gatherRows, scatterAdd } from "../rows.js";

/** result[t] = table[token t]; a table [vocabulary, width]. */
export const embedding = operation({
  name: "embedding",
  matrices: { table: "table" },
  outputs: ["result"],
  shape: ({ table }) => ({ result: shapeOf("tokens", table.shape[1] as number) }),
  reference: ({ table }, { tokens }) => ({ result: gatherRows(table, tokens) }),
  gradient({ operands: { table }, gradients }, context) {
    const vocabulary = table.shape[0] as number;
    context.addMatrix(table, () => {
      return embeddingGradient.apply({ gradient: gradients.result as RowNode, vocabulary }).result;
    });
  },
});

/** The gradient of a table: a row's is the sum of those of the tokens that are it. */
const embeddingGradient = operation({
  name: "embeddingGradient",
  inputs: ["gradient"],
  attributes: { vocabulary: "count" },
  outputs: ["result"],
  shape: ({ gradient, vocabulary }) => ({ result: { rows: vocabulary, width: gradient.width } }),
  reference: ({ gradient, vocabulary }, { tokens }) => ({ result: scatterAdd(gradient, tokens, vocabulary) }),
  gradient: { none: "only gradients are built of it" },
});
