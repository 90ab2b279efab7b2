// Answers to conversations piece by piece, with thoughts, text and calls of tools told apart.

import type { Thinking } from "../chat/chat-format.js";
import { ThinkingReader } from "../chat/thinking-reader.js";
import { type ToolCallPiece, ToolCallReader } from "../chat/tool-call-reader.js";
import { stepsOf } from "./answers.js";
import type { TextRun } from "./inference.js";
import type { Services } from "./services.js";
import type { TextChoice } from "./text-choice.js";
import { stepLogprob, type TokenLogprob } from "./token-text.js";

/** Why an answer ended: of itself, at its length, or since the model waits for what tools give. */
export type ChatEnd = "stop" | "length" | "tool_calls";

/** A piece of an answer: what its readers are told of one step. */
export interface ChatPiece {
  readonly index: number;
  readonly thought: string;
  readonly text: string;
  readonly calls: readonly ToolCallPiece[];
  readonly logprobs: readonly TokenLogprob[];
  /** Present when the answer has ended. */
  readonly finishReason?: ChatEnd;
  /** The stop string of the request that ended it. */
  readonly stop?: string;
}

/** How answers are to be read. */
export interface AnswerForm {
  /** How the prompt ended. */
  readonly thinking: Thinking;
  /** Whether there may be calls of tools. */
  readonly hasCalls: boolean;
  /** The stop strings of the request, apart from those of the format. */
  readonly ownStop: readonly string[];
}

/**
 * The answers of a request, piece by piece.
 *
 * @param counts receives the number of tokens with thoughts
 */
export async function* chatPieces(
  { model }: Services,
  run: TextRun,
  form: AnswerForm,
  counts: { reasoning: number },
): AsyncGenerator<ChatPiece, void, void> {
  const readers = run.choices.map(() => new AnswerReader(form));
  for await (const { choice, step } of stepsOf(run)) {
    const { index } = choice;
    const reader = readers[index] as AnswerReader;
    if (!step) {
      yield { index, ...reader.finish(), logprobs: [], ...endOf(choice, reader.calls, form) };
      continue;
    }
    const piece = reader.push(step.text);
    if (piece.thought !== "") counts.reasoning++;
    // Log-probabilities are those of the text: thoughts and calls are no part of it.
    const logprob = reader.isText ? stepLogprob(model.tokenizer, step) : undefined;
    yield { index, ...piece, logprobs: logprob ? [logprob] : [] };
  }
}

function endOf({ finishReason, stop }: TextChoice, calls: number, { ownStop }: AnswerForm) {
  const why: ChatEnd = finishReason === "stop" && calls > 0 ? "tool_calls" : finishReason;
  return { finishReason: why, ...(typeof stop === "string" && ownStop.includes(stop) && { stop }) };
}

/** Tells thoughts, text and calls of one answer apart. */
class AnswerReader {
  readonly #thoughts: ThinkingReader;
  readonly #calls: ToolCallReader | undefined;

  constructor({ thinking, hasCalls }: AnswerForm) {
    this.#thoughts = new ThinkingReader(thinking);
    this.#calls = hasCalls ? new ToolCallReader() : undefined;
  }

  /** How many calls have begun. */
  get calls(): number {
    return this.#calls?.calls ?? 0;
  }

  /** Whether what was read last is neither thought nor call. */
  get isText(): boolean {
    return !this.#thoughts.isThinking && !this.#calls?.isCalling;
  }

  push(piece: string) {
    const { thought, text } = this.#thoughts.push(piece);
    return { thought, ...(this.#calls?.push(text) ?? { text, calls: [] }) };
  }

  finish() {
    const { thought, text } = this.#thoughts.finish();
    if (!this.#calls) return { thought, text, calls: [] };
    const last = this.#calls.push(text);
    const rest = this.#calls.finish();
    return { thought, text: last.text + rest.text, calls: [...last.calls, ...rest.calls] };
  }
}
