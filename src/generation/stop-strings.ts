// Finds stop strings in streamed text. Text that may be the beginning of one is held back, so that no part of a stop
// string is ever emitted.

/** What became of a piece of text. */
export interface StopResult {
  /** Text that is certainly not part of a stop string. */
  readonly text: string;
  /** The stop string that was found; no more text may be pushed after it. */
  readonly stop?: string;
}

/** Watches a stream of text for stop strings. */
export class StopStrings {
  readonly #stops: readonly string[];
  #held = "";

  constructor(stops: readonly string[]) {
    this.#stops = stops;
  }

  /** Takes the next piece of text. */
  push(piece: string): StopResult {
    const text = this.#held + piece;
    let found: { at: number; stop: string } | undefined;
    for (const stop of this.#stops) {
      const at = text.indexOf(stop);
      if (at >= 0 && (!found || at < found.at)) found = { at, stop };
    }
    if (found) {
      this.#held = "";
      return { text: text.slice(0, found.at), stop: found.stop };
    }
    const safe = text.length - this.#heldLength(text);
    this.#held = text.slice(safe);
    return { text: text.slice(0, safe) };
  }

  /** Returns the text that is held back, at the end of the stream. */
  end(): string {
    const text = this.#held;
    this.#held = "";
    return text;
  }

  /** Length of the longest suffix of `text` that is a proper prefix of a stop string. */
  #heldLength(text: string): number {
    let longest = 0;
    for (const stop of this.#stops) {
      for (let length = Math.min(stop.length - 1, text.length); length > longest; length--) {
        if (text.endsWith(stop.slice(0, length))) longest = length;
      }
    }
    return longest;
  }
}
