// The loss: cross-entropy of the targets, with RWKV-LM's penalty of the largest logit (L2Wrap).

import { operation } from "../operation.js";
import { zeros } from "../rows.js";

/**
 * The loss of each selected row, a column, and the gradient for the logits of the mean over the rows of the whole step. `logitPenalty` is what the
 * largest logit of each row is pulled down by.
 */
export const crossEntropy = operation({
  name: "crossEntropy",
  inputs: ["logits"],
  attributes: { logitPenalty: "number" },
  outputs: ["loss", "gradient"],
  inPlace: { output: "gradient", inputs: ["logits"] },
  shape: ({ logits }) => ({ loss: { rows: logits.rows, width: 1 }, gradient: logits }),
  reference({ logits, logitPenalty }, { targets, targetCount = targets.length }) {
    const loss = zeros(logits.rows, 1, logits.values);
    const gradient = zeros(logits.rows, logits.width, logits.values);
    targets.forEach((target, t) => {
      const row = logits.values.subarray(t * logits.width, (t + 1) * logits.width);
      let best = 0;
      for (let i = 1; i < row.length; i++) if ((row[i] as number) > (row[best] as number)) best = i;
      const most = row[best] as number;
      let sum = 0;
      for (const logit of row) sum += Math.exp(logit - most);
      loss.values[t] = most + Math.log(sum) - (row[target] as number);
      for (let i = 0; i < row.length; i++) {
        const probability = Math.exp((row[i] as number) - most) / sum;
        const penalty = i === best ? logitPenalty * most : 0;
        gradient.values[t * logits.width + i] = (probability - (i === target ? 1 : 0) + penalty) / targetCount;
      }
    });
    return { loss, gradient };
  },
  gradient: { none: "it is what gradients begin with" },
});
