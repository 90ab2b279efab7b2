// RWKV-4 itself, as src/models/rwkv4.ts has it.
//
// Paper: Peng et al., arXiv 2305.13048. Time grows as T, the state not at all.

import { rwkv4 as definition } from "../../models/rwkv4.js";
import type { Architecture } from "./architecture.js";

export const rwkv4: Architecture = {
  name: "rwkv4",
  title: "RWKV-4",
  paper: "arXiv 2305.13048",
  complexity: { time: "O(Td)", space: "O(d)" },
  theory: { training: 1, token: 0, state: 0 },
  build: ({ layers, width, hidden, vocabulary }) =>
    definition.build({ layers, width, hidden, vocabulary }, { layerNormEpsilon: 1e-5 }),
};
