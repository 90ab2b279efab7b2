// Tells thoughts from the answer in what a model writes, while it is being written.

import type { Thinking } from "./chat-format.js";

/** A piece of what a model writes. */
export interface ThinkingPiece {
  readonly thought: string;
  readonly text: string;
}

const begin = "<think>";
const end = "</think>";

/**
 * Reads an answer piece by piece. A prompt that asks for a thought ends in "<think", so the answer begins with ">"; after "</think" it
 * does so, too. An answer may also hold a whole thought of its own accord. White space before a thought, and before the
 * answer, is dropped.
 */
export class ThinkingReader {
  #where: "beginning" | "thought" | "answer";
  /** What still completes the prompt's last tag: ">", if anything. */
  #rest: string;
  /** Text that may be the beginning of a tag. */
  #held = "";
  /** Whether something of the part that is being read was given. */
  #begun = false;

  /** @param thinking how the prompt ended */
  constructor(thinking: Thinking) {
    this.#rest = thinking === "auto" ? "" : ">";
    this.#where = thinking === "auto" ? "beginning" : thinking === "off" ? "answer" : "thought";
  }

  /** Whether what was read last is part of a thought, and not of the answer. */
  get isThinking(): boolean {
    return this.#where === "thought";
  }

  /** Takes the next piece. @returns what of it, and of pieces before it, is certain */
  push(piece: string): ThinkingPiece {
    return this.#read(this.#withoutRest(piece));
  }

  /** The rest, at the end of the answer. */
  finish(): ThinkingPiece {
    const rest = this.#shown(this.#held);
    this.#held = "";
    return this.#where === "thought" ? { thought: rest, text: "" } : { thought: "", text: rest };
  }

  #withoutRest(piece: string): string {
    if (this.#rest === "" || piece === "") return piece;
    const text = piece.startsWith(this.#rest) ? piece.slice(this.#rest.length) : piece;
    this.#rest = "";
    return text;
  }

  #read(piece: string): ThinkingPiece {
    if (this.#where === "answer") return { thought: "", text: this.#shown(piece) };
    if (this.#where === "beginning") {
      const all = (this.#held + piece).trimStart();
      if (begin.startsWith(all)) {
        this.#held = all;
        return { thought: "", text: "" };
      }
      this.#held = "";
      this.#where = all.startsWith(begin) ? "thought" : "answer";
      return this.#read(all.startsWith(begin) ? all.slice(begin.length) : all);
    }
    const all = this.#held + piece;
    const at = all.indexOf(end);
    const certain = at >= 0 ? at : all.length - lengthOfBegunTag(all);
    const thought = this.#shown(all.slice(0, certain));
    this.#held = at >= 0 ? "" : all.slice(certain);
    if (at < 0) return { thought, text: "" };
    this.#where = "answer";
    this.#begun = false;
    return { thought, text: this.#shown(all.slice(at + end.length)) };
  }

  #shown(piece: string): string {
    const text = this.#begun ? piece : piece.trimStart();
    this.#begun ||= text !== "";
    return text;
  }
}

/** Length of the longest end of a text with which a thought's last tag may begin. */
function lengthOfBegunTag(text: string): number {
  for (let length = Math.min(end.length - 1, text.length); length > 0; length--) {
    if (end.startsWith(text.slice(-length))) return length;
  }
  return 0;
}
