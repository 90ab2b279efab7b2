// The log-probabilities of a prompt's own tokens, for requests that ask for the prompt back with them.

import type { Model } from "../generation/model.js";
import type { Snapshot } from "../generation/snapshot.js";
import { logProbabilities } from "../sampling/log-probability.js";
import { type TokenLogprob, tokenText } from "./token-text.js";

/** Rows of logits that are held at once. */
const rowsAtOnce = 32;

/** A token of a prompt; the first has nothing before it that it could be expected after. */
export type PromptToken =
  | TokenLogprob
  | (Omit<TokenLogprob, "logprob" | "top_logprobs"> & { readonly logprob: null; readonly top_logprobs: null });

/**
 * Reads a prompt once more, with the logits after every token.
 *
 * @param top how many of the most probable tokens to tell in each place
 * @param firstState the state that the prompt begins with
 * @throws the signal's reason when it is aborted
 */
export async function promptLogprobs(
  model: Model,
  tokens: Int32Array,
  top: number,
  firstState: Uint8Array | Snapshot | undefined,
  signal: AbortSignal,
): Promise<PromptToken[]> {
  if (tokens.length === 0) return [];
  const { tokenizer } = model;
  const { vocabulary } = model.info;
  const first = tokenText(tokenizer, tokens[0] as number, 0);
  const told: PromptToken[] = [{ ...first, logprob: null, top_logprobs: null }];
  const state = model.createState(firstState);
  try {
    // The logits after the last token are of the text that follows.
    for (let at = 0; at < tokens.length - 1; at += rowsAtOnce) {
      signal.throwIfAborted();
      const piece = tokens.subarray(at, Math.min(at + rowsAtOnce, tokens.length - 1));
      const [rows] = await model.forward([{ state, tokens: piece, logits: "all" }]);
      for (let i = 0; i < piece.length; i++) {
        const token = tokens[at + i + 1] as number;
        const row = (rows as Float32Array).subarray(i * vocabulary, (i + 1) * vocabulary);
        const { chosen, top: best } = logProbabilities(row, token, top);
        const top_logprobs = best.map((one) => tokenText(tokenizer, one.token, one.logProbability));
        told.push({ ...tokenText(tokenizer, token, chosen), top_logprobs });
      }
    }
    return told;
  } finally {
    await state.dispose();
  }
}
