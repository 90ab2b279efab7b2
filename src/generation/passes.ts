// Packs the tokens of several sequences into passes of limited size.

import type { PassSegment } from "../backends/backend.js";
import type { TokenChoice } from "../sampling/choose-token.js";
import type { Segment } from "./model.js";

/** A segment, and how the token after it is to be chosen, if it is. */
export type ChoosingSegment = Segment & { readonly choice?: TokenChoice };

/** A part of a pass, and which of the caller's segments it belongs to. */
export interface PassPart {
  readonly segment: PassSegment;
  readonly index: number;
  /** Rows of logits that it gives. */
  readonly rowCount: number;
}

/**
 * Splits segments into passes of at most `capacity` tokens. Segments fill a pass in order; one that does not fit goes on in
 * the next.
 */
export function packPasses(segments: readonly ChoosingSegment[], capacity: number): PassPart[][] {
  const passes: PassPart[][] = [];
  let pass: PassPart[] = [];
  let room = capacity;
  segments.forEach(({ state, tokens, logits = "last", choice }, index) => {
    for (let at = 0; at < tokens.length; ) {
      const piece = tokens.slice(at, at + room);
      at += piece.length;
      const wanted = logits === "last" && at < tokens.length ? "none" : logits;
      const rowCount = wanted === "all" ? piece.length : wanted === "last" ? 1 : 0;
      const segment = { state: state.runtimeState, tokens: piece, logits: wanted };
      pass.push({ segment: choice && wanted === "last" ? { ...segment, choice } : segment, index, rowCount });
      room -= piece.length;
      if (room === 0) {
        passes.push(pass);
        pass = [];
        room = capacity;
      }
    }
  });
  if (pass.length > 0) passes.push(pass);
  return passes;
}
