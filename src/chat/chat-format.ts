// What each way to write conversations says of itself: a file beside this one has one or several of them.

import type { ChatMessage, ChatTool } from "./messages.js";

/**
 * Whether a model thinks before it answers.
 * - "on": it does.
 * - "short", "long": it does, and the last question asks for a little, or for a lot, of it.
 * - "off": the prompt holds a thought that is over before it began, so that the answer begins at once.
 * - "auto": the prompt says nothing of it; some models then think, some do not.
 */
export type Thinking = (typeof thinkingModes)[number];

export const thinkingModes = ["on", "off", "short", "long", "auto"] as const;

/**
 * A way to write conversations. A conversation is its opening, then a text for each message, then the cue for the answer; a text
 * does not depend on those after it, so a session can read a conversation piece by piece.
 */
export interface ChatFormat {
  /** Whether its models think before they answer, where the prompt asks for it. */
  readonly thinks: boolean;
  /** Read before the first message. */
  readonly opening: string;
  /**
   * The text of a message, with what separates it from the next one.
   *
   * @param tools that are explained beside a system's message
   * @param remark is put behind what a user says
   */
  message(message: ChatMessage, options?: { readonly tools?: readonly ChatTool[]; readonly remark?: string }): string;
  /** What separates an answer from the message after it. */
  readonly separator: string;
  /** What the answer continues. */
  readonly cue: string;
  /** The cue and the beginning of a thought. */
  readonly thinkingCue: string;
  /** A thought that is over before it began. */
  readonly noThought: string;
  /** Texts that end an answer; the end-of-text token does so, too. */
  readonly stop: readonly string[];
  /** An instruction, and what it is to be carried out on, as models were trained to carry them out beside conversations. */
  instruction(instruction: string, input?: string): { readonly text: string; readonly stop: readonly string[] };
}
