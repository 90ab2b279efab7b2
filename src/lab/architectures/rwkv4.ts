// RWKV-4 itself, as src/models/rwkv4.ts has it.
//
// Paper: Peng et al., arXiv 2305.13048. Time grows as T, the state not at all.

import { rwkv4 as definition } from "../../models/rwkv4.js";
import { type RwkvArchitecture, rwkvArchitecture } from "./rwkv.js";

export const rwkv4: RwkvArchitecture = rwkvArchitecture(definition, {
  paper: "arXiv 2305.13048",
  complexity: { time: "O(Td)", space: "O(d)" },
  sizeOf: ({ layers, width, hidden, vocabulary }) => ({ layers, width, hidden, vocabulary }),
});
