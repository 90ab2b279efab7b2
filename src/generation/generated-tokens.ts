// The tokens of a text so far, as its constraint is given them: in one array that grows, so that a token costs the same however
// many there were before.

/** The arrays of texts in progress. */
const growing = new WeakSet<readonly number[]>();

/** Whether an array is one that only grows, so that what was read of it before need not be read again. */
export function onlyGrows(tokens: readonly number[]): boolean {
  return growing.has(tokens);
}

/** The tokens generated so far. */
export class GeneratedTokens {
  readonly #tokens: number[] = [];
  #given: number[] = [];

  push(token: number): void {
    this.#tokens.push(token);
    this.#given.push(token);
  }

  /** The array for the constraint. One that was changed from outside is replaced. */
  get given(): readonly number[] {
    const { length } = this.#tokens;
    const isWhole = this.#given.length === length && this.#given[length - 1] === this.#tokens[length - 1];
    if (!isWhole) this.#given = this.#tokens.slice();
    growing.add(this.#given);
    return this.#given;
  }
}
