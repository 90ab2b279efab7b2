// A status line at the bottom of a terminal, which is redrawn while work is in progress.

import { clearLine, cursorTo } from "node:readline";
import type { WriteStream } from "node:tty";

/** What is used of a terminal. */
export type Terminal = Pick<WriteStream, "isTTY" | "columns" | "write">;

/** Milliseconds between two drawings. */
const pause = 50;

/** Nothing is drawn where the stream is no terminal. */
export class StatusLine {
  readonly #terminal: Terminal;
  #drawn = Number.NEGATIVE_INFINITY;
  #shown = false;
  /** A program that exits leaves no line behind. */
  readonly #clear = () => this.clear();

  constructor(terminal: Terminal = process.stderr) {
    this.#terminal = terminal;
  }

  /** Draws a line of characters that are one column wide, cut to the width of the terminal; not all of many in a short time. */
  draw(text: string): void {
    if (!this.#terminal.isTTY || performance.now() - this.#drawn < pause) return;
    if (!this.#shown) process.once("exit", this.#clear);
    this.#shown = true;
    this.#drawn = performance.now();
    this.#begin();
    // In the last column some terminals would begin a new line; some do not know their width, and say 0.
    this.#terminal.write(text.slice(0, (this.#terminal.columns || 80) - 1));
  }

  /** Takes the line away, so that others can be written. */
  clear(): void {
    if (!this.#shown) return;
    process.off("exit", this.#clear);
    this.#shown = false;
    this.#drawn = Number.NEGATIVE_INFINITY;
    this.#begin();
  }

  #begin(): void {
    cursorTo(this.#terminal as WriteStream, 0);
    clearLine(this.#terminal as WriteStream, 1);
  }
}

/** A bar for a share from 0 to 1. */
export function bar(share: number, width: number): string {
  const full = Math.round(Math.min(1, Math.max(0, share)) * width);
  return "=".repeat(full) + "-".repeat(width - full);
}
