// Prints an answer while it is written: text to stdout, thoughts to stderr, where a terminal shows them dimmed.

import type { ThinkingPiece } from "../chat/thinking-reader.js";

const dim = { on: "\x1b[2m", off: "\x1b[22m" };

export class AnswerPrinter {
  /** Whether nothing of the answer was printed but white space. */
  isEmpty = true;
  readonly #showsThoughts: boolean;
  /** Whether a thought has begun that the answer has not followed yet. */
  #thinking = false;

  constructor(showsThoughts: boolean) {
    this.#showsThoughts = showsThoughts;
  }

  print({ thought, text }: ThinkingPiece): void {
    if (thought !== "") {
      if (this.#showsThoughts) process.stderr.write(dimmed(thought));
      else if (!this.#thinking) process.stderr.write(dimmed("(thinking)"));
      this.#thinking = true;
    }
    if (text === "") return;
    if (this.#thinking) process.stderr.write("\n");
    this.#thinking = false;
    this.isEmpty &&= text.trim() === "";
    process.stdout.write(text);
  }
}

/** NO_COLOR (https://no-color.org) asks for plain text. */
function dimmed(text: string): string {
  const plain = !process.stderr.isTTY || process.env["NO_COLOR"];
  return plain ? text : `${dim.on}${text}${dim.off}`;
}
