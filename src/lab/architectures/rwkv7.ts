// RWKV-7 itself, as src/models/rwkv7.ts has it: each token also removes what the state holds along its key.
//
// Paper: Peng et al., arXiv 2503.14456. Time grows as T, the state not at all.

import { rwkv7 as definition } from "../../models/rwkv7.js";
import { type RwkvArchitecture, rwkvArchitecture } from "./rwkv.js";

export const rwkv7: RwkvArchitecture = rwkvArchitecture(definition, {
  paper: "arXiv 2503.14456",
  complexity: { time: "O(Td²)", space: "O(d²)" },
  // Ranks as RWKV-LM has them before it rounds them to multiples of 32, which would be most of a narrow layer.
  sizeOf({ layers, width, hidden, vocabulary, heads }) {
    const rank = (factor: number) => Math.ceil(factor * Math.sqrt(width));
    const ranks = { decayRank: rank(2.5), learningRateRank: rank(2.5), gateRank: rank(5) };
    return { layers, width, hidden, vocabulary, heads, ...ranks, valueRank: layers > 1 ? rank(1.7) : 0 };
  },
});
