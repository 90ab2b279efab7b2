// RWKV-6 itself, as src/models/rwkv6.ts has it: a matrix for each head as the state, and decays that depend on the token.
//
// Paper: Peng et al., arXiv 2404.05892. Time grows as T, the state not at all.

import { rwkv6 as definition } from "../../models/rwkv6.js";
import { type RwkvArchitecture, rwkvArchitecture } from "./rwkv.js";

export const rwkv6: RwkvArchitecture = rwkvArchitecture(definition, {
  paper: "arXiv 2404.05892",
  complexity: { time: "O(Td²)", space: "O(d²)" },
  // The paper's ranks (section 4.2) are for models of 2048 channels and more; here they would be most of a layer.
  sizeOf: ({ layers, width, hidden, vocabulary, heads }) => ({
    layers,
    width,
    hidden,
    vocabulary,
    heads,
    mixRank: Math.min(32, Math.ceil(width / 8)),
    decayRank: Math.min(64, Math.ceil(width / 4)),
  }),
});
