// The operations that the backend can carry out, by their names: those that generating takes. A descriptor's name that is missing here is
// an operation that is only trained with, or the lab's.

import type { Kernel } from "../operands.js";
import { embedding } from "./embedding.js";
import { headNorm, headNormalize, headSum } from "./heads.js";
import { layerNorm } from "./layer-norm.js";
import { matmul } from "./matmul.js";
import { quantizeRows } from "./quantize-rows.js";
import { selectRows } from "./select-rows.js";
import { shiftDifference, tokenShift } from "./token-shift.js";
import { wkv } from "./wkv.js";
import { wkv6 } from "./wkv6.js";
import { wkv7 } from "./wkv7.js";

export const kernels: ReadonlyMap<string, Kernel> = new Map(
  Object.entries({
    embedding,
    headNorm,
    headNormalize,
    headSum,
    layerNorm,
    matmul,
    quantizeRows,
    selectRows,
    shiftDifference,
    tokenShift,
    wkv,
    wkv6,
    wkv7,
  }),
);
