// Prints an answer while it is written: text to stdout, thoughts to stderr, where a terminal shows them dimmed.

import type { ThinkingPiece } from "../chat/thinking-reader.js";

const dim = { on: "\x1b[2m", off: "\x1b[22m" };

/** What an answer is printed to. */
export interface Output {
  readonly stdout: Pick<NodeJS.WriteStream, "write">;
  readonly stderr: Pick<NodeJS.WriteStream, "write" | "isTTY">;
}

export class AnswerPrinter {
  /** Whether nothing of the answer was printed but white space. */
  isEmpty = true;
  readonly #showsThoughts: boolean;
  readonly #output: Output;
  /** Whether a thought has begun that the answer has not followed yet. */
  #thinking = false;

  constructor(showsThoughts: boolean, output: Output = process) {
    this.#showsThoughts = showsThoughts;
    this.#output = output;
  }

  print({ thought, text }: ThinkingPiece): void {
    const { stdout, stderr } = this.#output;
    if (thought !== "") {
      if (this.#showsThoughts) stderr.write(this.#dimmed(thought));
      else if (!this.#thinking) stderr.write(this.#dimmed("(thinking)"));
      this.#thinking = true;
    }
    if (text === "") return;
    if (this.#thinking) stderr.write("\n");
    this.#thinking = false;
    this.isEmpty &&= text.trim() === "";
    stdout.write(text);
  }

  /** Ends the line of a thought that no answer follows. */
  finish(): void {
    if (this.#thinking) this.#output.stderr.write("\n");
    this.#thinking = false;
  }

  /** NO_COLOR (https://no-color.org) asks for plain text. */
  #dimmed(text: string): string {
    const plain = !this.#output.stderr.isTTY || process.env["NO_COLOR"];
    return plain ? text : `${dim.on}${text}${dim.off}`;
  }
}
