// How much there is in a pass, and which shaders it takes for as much.

import { type PassSegment, selectedCount } from "../backend.js";
import type { Dispatch } from "./program.js";
import type { Shader, Variant } from "./shader.js";

/** How much there is in a pass. */
export interface Counts {
  readonly tokens: number;
  readonly selected: number;
  readonly sequences: number;
}

export function countsOf(segments: readonly PassSegment[]): Counts {
  const tokens = segments.reduce((sum, segment) => sum + segment.tokens.length, 0);
  return { tokens, selected: selectedCount(segments), sequences: segments.length };
}

/** How many rows a dispatch has. */
export function rowsOf({ over }: Dispatch, counts: Counts): number {
  return typeof over === "number" ? over : counts[over];
}

/** How a dispatch carries out as many. */
export function variantFor({ variants }: Dispatch, rows: number): Variant {
  return variants.find(({ mostRows }) => rows <= mostRows) as Variant;
}

/** The shaders of a pass. */
export function shadersOf(dispatches: readonly Dispatch[], counts: Counts): Shader[] {
  return dispatches.flatMap((dispatch) => {
    const rows = rowsOf(dispatch, counts);
    return rows === 0 ? [] : [variantFor(dispatch, rows).shader];
  });
}
