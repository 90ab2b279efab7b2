// Finds the token at a rank, or at a fraction of the total, without sorting the vocabulary: weights are counted into
// buckets by the upper bits of their float32 pattern, which orders them, and only the bucket that holds the answer is
// sorted.

/** The upper 16 bits of 1.0, the largest weight. */
const lastBucket = 0x3f80;

/** Ranks weights between 0 and 1 from the largest down, equal ones by id. */
export class WeightRanks {
  readonly #weights: Float32Array;
  readonly #patterns: Uint32Array;
  readonly #counts = new Uint32Array(lastBucket + 1);
  readonly #sums = new Float64Array(lastBucket + 1);

  constructor(weights: Float32Array) {
    this.#weights = weights;
    this.#patterns = new Uint32Array(weights.buffer, weights.byteOffset, weights.length);
    for (let i = 0; i < this.#weights.length; i++) {
      const bucket = (this.#patterns[i] as number) >>> 16;
      this.#counts[bucket] = (this.#counts[bucket] as number) + 1;
      this.#sums[bucket] = (this.#sums[bucket] as number) + (this.#weights[i] as number);
    }
  }

  /**
   * Walks down the ranks to the first token at which `reached` holds.
   *
   * @param reached called with the number of tokens up to and including a rank, and with the sum of their weights
   * @returns the token's id; undefined if `reached` never holds
   */
  find(reached: (count: number, sum: number) => boolean): number | undefined {
    let count = 0;
    let sum = 0;
    for (let bucket = lastBucket; bucket >= 0; bucket--) {
      const members = this.#counts[bucket] as number;
      if (members === 0) continue;
      if (!reached(count + members, sum + (this.#sums[bucket] as number))) {
        count += members;
        sum += this.#sums[bucket] as number;
        continue;
      }
      let last: number | undefined;
      for (const id of this.#sortedMembers(bucket)) {
        last = id;
        sum += this.#weights[id] as number;
        if (reached(++count, sum)) return id;
      }
      return last; // sums in a different order may differ in the last bit
    }
    return undefined;
  }

  #sortedMembers(bucket: number): number[] {
    const ids: number[] = [];
    for (let i = 0; i < this.#weights.length; i++) if ((this.#patterns[i] as number) >>> 16 === bucket) ids.push(i);
    return ids.sort((a, b) => (this.#weights[b] as number) - (this.#weights[a] as number) || a - b);
  }
}
