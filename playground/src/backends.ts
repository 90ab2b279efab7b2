// Where the page can compute. A further backend is a name here and in the type `Backend` of protocol.ts; where there is only one choice, the
// dialog of models offers none.

import type { Backend } from "./protocol.js";

export const backends: readonly Backend[] = ["auto"];
