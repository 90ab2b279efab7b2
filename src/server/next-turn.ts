// Where a conversation goes on after an answer: a state, and the text that is to be read before the next message.

import type { Snapshot } from "../generation/snapshot.js";
import type { Tokenizer } from "../tokenizers/tokenizer.js";
import type { WrittenText } from "./text-choice.js";

/** Where the next message begins. */
export interface NextTurn {
  readonly snapshot: Snapshot;
  /** What is to be read first: the rest of what stands between an answer and the next message. */
  readonly rest: string;
}

/**
 * Finds where the next message begins. The model has read its own tokens, and with them the text that ended the answer, or a part of it,
 * which need not be what stands there in a conversation. Its last token is not run yet and can be taken back; where that is not enough,
 * the answer is read again.
 *
 * @param separator what stands between an answer and the next message
 */
export function nextTurn(
  { before, after, text, tokens }: WrittenText,
  separator: string,
  tokenizer: Tokenizer,
): NextTurn {
  const wanted = text + separator;
  const read = tokenizer.decode(tokens);
  if (wanted.startsWith(read)) return { snapshot: after, rest: wanted.slice(read.length) };
  const withoutLast = tokenizer.decode(tokens.slice(0, -1));
  if (tokens.length > 1 && wanted.startsWith(withoutLast)) {
    return { snapshot: after.withoutPendingToken(), rest: wanted.slice(withoutLast.length) };
  }
  return { snapshot: before, rest: wanted };
}
