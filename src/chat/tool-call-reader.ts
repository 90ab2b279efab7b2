// Reads calls of tools in an answer of the format "function_calling" while it is being written, so that they can be streamed.

import { toolCallEnd, toolCallMark } from "./marked-turns.js";

/** A piece of a call. */
export interface ToolCallPiece {
  /** Which of the answer's calls it is, from 0. */
  readonly call: number;
  /** The tool's name; in the first piece of a call, and in no other. */
  readonly name?: string;
  /** The next part of the arguments, as JSON. */
  readonly arguments: string;
  /** Whether the call is whole with this piece. */
  readonly isLast?: true;
}

/** A piece of an answer. */
export interface ToolAnswerPiece {
  readonly text: string;
  readonly calls: readonly ToolCallPiece[];
}

/** How a call begins, after its mark. */
const beginning = /^\s*```(?:json)?\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*/;

/**
 * Tells calls from text, piece by piece. It reads calls that have the name first and then the arguments, as generations that are held to the
 * form write them; anything else is text. White space before, between and after calls is dropped.
 */
export class ToolCallReader {
  #where: "text" | "beginning" | "arguments" = "text";
  /** What is not certain yet. */
  #held = "";
  #calls = 0;
  /** Whether something of the present call's arguments was read. */
  #hasArguments = false;

  /** How many calls have begun. */
  get calls(): number {
    return this.#calls;
  }

  /** Whether what was read last is part of a call. */
  get isCalling(): boolean {
    return this.#where !== "text";
  }

  /** Takes the next piece of the answer. @returns what of it, and of pieces before it, is certain */
  push(piece: string): ToolAnswerPiece {
    this.#held += piece;
    let text = "";
    const calls: ToolCallPiece[] = [];
    for (;;) {
      if (this.#where === "text") {
        const at = this.#held.indexOf(toolCallMark);
        text += this.#text(at < 0 ? this.#certainText() : this.#held.slice(0, at).trimEnd());
        if (at < 0) return { text, calls };
        this.#held = this.#held.slice(at + toolCallMark.length);
        this.#where = "beginning";
      } else if (this.#where === "beginning") {
        const found = beginning.exec(this.#held);
        if (!found) return { text, calls };
        calls.push({ call: this.#calls++, name: JSON.parse(found[1] as string) as string, arguments: "" });
        this.#held = this.#held.slice(found[0].length);
        this.#hasArguments = false;
        this.#where = "arguments";
      } else {
        if (!this.#hasArguments) this.#held = this.#held.trimStart();
        this.#hasArguments ||= this.#held !== "";
        const at = this.#held.indexOf(toolCallEnd);
        const values = at < 0 ? this.#certainArguments() : withoutBrace(this.#held.slice(0, at));
        const isLast = at >= 0;
        if (values !== "" || isLast)
          calls.push({ call: this.#calls - 1, arguments: values, ...(isLast && { isLast }) });
        if (!isLast) return { text, calls };
        this.#held = this.#held.slice(at + toolCallEnd.length);
        this.#where = "text";
      }
    }
  }

  /** The rest, at the end of the answer. A call that was cut off is given as far as it goes, which is nothing before its arguments. */
  finish(): ToolAnswerPiece {
    const rest = this.#held;
    this.#held = "";
    if (this.#where === "beginning") return { text: "", calls: [] };
    if (this.#where === "text") return { text: this.#text(rest), calls: [] };
    const values = rest.trimEnd();
    return { text: "", calls: values === "" ? [] : [{ call: this.#calls - 1, arguments: values }] };
  }

  /** Takes from what is held the text that cannot be part of a call, nor of the white space before one. */
  #certainText(): string {
    const open = openEnd(this.#held, toolCallMark);
    const certain = this.#held.slice(0, this.#held.length - open).trimEnd();
    this.#held = this.#held.slice(certain.length);
    return certain;
  }

  /** Takes from what is held the arguments before what may be the end of the call. */
  #certainArguments(): string {
    const length = this.#held.search(/[\s}`]*$/);
    const certain = this.#held.slice(0, length);
    this.#held = this.#held.slice(length);
    return certain;
  }

  /** After a call, white space is no text. */
  #text(text: string): string {
    return this.#calls > 0 && text.trim() === "" ? "" : text;
  }
}

/** How much of a mark's beginning stands at the end of a text. */
function openEnd(text: string, mark: string): number {
  for (let length = Math.min(mark.length - 1, text.length); length > 0; length--) {
    if (text.endsWith(mark.slice(0, length))) return length;
  }
  return 0;
}

/** Arguments without the brace after them, which ends the call. */
function withoutBrace(values: string): string {
  return values.replace(/\s*\}\s*$/, "");
}
