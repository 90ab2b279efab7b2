// Which chunks of a file are asked for next: those that something waits for before the others, and then in the file's order. None is asked
// for twice.

/** Chunks that follow each other: the first of them, and the one behind the last. */
export type ChunkRun = readonly [first: number, end: number];

export class ChunkQueue {
  readonly #count: number;
  readonly #has: (chunk: number) => boolean;
  /** Chunks that were given out. */
  readonly #taken = new Set<number>();
  readonly #urgent: ChunkRun[] = [];
  #next = 0;

  /** @param has whether a chunk is here already */
  constructor(count: number, has: (chunk: number) => boolean) {
    this.#count = count;
    this.#has = has;
  }

  /** Puts chunks before all others. */
  hurry(first: number, end: number): void {
    this.#urgent.push([first, Math.min(end, this.#count)]);
  }

  /** Takes at most so many of the chunks that were put before the others; undefined when none is left. */
  takeUrgent(most: number): ChunkRun | undefined {
    for (let run = this.#urgent[0]; run; run = this.#urgent[0]) {
      const taken = this.#take(...run, most);
      if (taken) return taken;
      this.#urgent.shift();
    }
    return undefined;
  }

  /** Takes at most so many chunks; undefined when none is left. */
  take(most: number): ChunkRun | undefined {
    const taken = this.takeUrgent(most) ?? this.#take(this.#next, this.#count, most);
    while (this.#next < this.#count && !this.#isFree(this.#next)) this.#next++;
    return taken;
  }

  #take(from: number, to: number, most: number): ChunkRun | undefined {
    let first = from;
    while (first < to && !this.#isFree(first)) first++;
    let end = first;
    for (; end < to && end - first < most && this.#isFree(end); end++) this.#taken.add(end);
    return end > first ? [first, end] : undefined;
  }

  #isFree(chunk: number): boolean {
    return !this.#taken.has(chunk) && !this.#has(chunk);
  }
}
