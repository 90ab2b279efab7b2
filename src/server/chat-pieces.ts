// Answers to conversations piece by piece, with thoughts told from what is said.

import type { Thinking } from "../chat/chat-format.js";
import { ThinkingReader } from "../chat/thinking-reader.js";
import { stepsOf } from "./answers.js";
import type { TextRun } from "./inference.js";
import type { Services } from "./services.js";
import { stepLogprob, type TokenLogprob } from "./token-text.js";

/** A piece of an answer: what its readers are told of one step. */
export interface ChatPiece {
  readonly index: number;
  readonly thought: string;
  readonly text: string;
  readonly logprobs: readonly TokenLogprob[];
  /** Present when the answer has ended. */
  readonly finishReason?: "stop" | "length";
}

/**
 * The answers of a request, piece by piece.
 *
 * @param thinking how the prompt ended
 * @param counts receives the number of tokens with thoughts
 */
export async function* chatPieces(
  { model }: Services,
  run: TextRun,
  thinking: Thinking,
  counts: { reasoning: number },
): AsyncGenerator<ChatPiece, void, void> {
  const readers = run.choices.map(() => new ThinkingReader(thinking));
  for await (const { choice, step } of stepsOf(run)) {
    const { index, finishReason } = choice;
    const reader = readers[index] as ThinkingReader;
    if (!step) {
      yield { index, ...reader.finish(), logprobs: [], finishReason };
      continue;
    }
    const piece = reader.push(step.text);
    if (piece.thought !== "") counts.reasoning++;
    // Log-probabilities are those of the answer: a thought is not part of it.
    const logprob = reader.isThinking ? undefined : stepLogprob(model.tokenizer, step);
    yield { index, ...piece, logprobs: logprob ? [logprob] : [] };
  }
}
