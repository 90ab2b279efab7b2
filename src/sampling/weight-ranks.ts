// Finds the token at a rank, or at a fraction of the total, without sorting the vocabulary: weights are counted into
// buckets by the upper half of their float32 pattern, which orders them, and those of the bucket that holds the answer
// by the next 8 bits, and by the last.

/** The upper 16 bits of 1.0, the largest weight. */
const lastBucket = 0x3f80;

/** Called with the number of tokens up to and including a rank, and with the sum of their weights. */
type Reached = (count: number, sum: number) => boolean;

/** Weights by a part of their pattern. */
interface Buckets {
  readonly counts: Uint32Array;
  readonly sums: Float64Array;
}

/** The buckets of the upper half, 190 KiB: kept, since making them for each token takes longer than all else. */
const upperBuckets = bucketsOf(lastBucket + 1);

/**
 * Ranks weights between 0 and 1 from the largest down, equal ones by id. Those that are 0 have no rank. One is used at a time: making
 * another ends the use of it.
 */
export class WeightRanks {
  readonly #weights: Float32Array;
  readonly #patterns: Uint32Array;

  constructor(weights: Float32Array) {
    this.#weights = weights;
    this.#patterns = new Uint32Array(weights.buffer, weights.byteOffset, weights.length);
    const { counts, sums } = upperBuckets;
    counts.fill(0);
    sums.fill(0);
    for (let i = 0; i < weights.length; i++) {
      const pattern = this.#patterns[i] as number;
      if (pattern === 0) continue;
      const bucket = pattern >>> 16;
      counts[bucket] = (counts[bucket] as number) + 1;
      sums[bucket] = (sums[bucket] as number) + (weights[i] as number);
    }
  }

  /**
   * Walks down the ranks to the first token at which `reached` holds.
   *
   * @returns the token's id; undefined if `reached` never holds
   */
  find(reached: Reached): number | undefined {
    return walk(upperBuckets, reached, 0, 0, (bucket, count, sum) => this.#findIn(bucket, 8, count, sum, reached));
  }

  /**
   * Finds the token among those whose pattern begins with some bits, or the last of them: sums in another order may
   * differ in the last bit.
   *
   * @param shift how many bits follow the next ones
   */
  #findIn(upper: number, shift: number, before: number, sumBefore: number, reached: Reached): number {
    const patterns = this.#patterns;
    const weights = this.#weights;
    const { counts, sums } = bucketsOf(0x100);
    let [lowest, last] = [0x100, 0];
    for (let i = 0; i < patterns.length; i++) {
      const pattern = patterns[i] as number;
      if (pattern >>> (shift + 8) !== upper || pattern === 0) continue;
      const bucket = (pattern >>> shift) & 0xff;
      counts[bucket] = (counts[bucket] as number) + 1;
      sums[bucket] = (sums[bucket] as number) + (weights[i] as number);
      if (bucket > lowest) continue;
      lowest = bucket;
      last = i;
    }
    const inner = (bucket: number, count: number, sum: number) => {
      const prefix = upper * 0x100 + bucket;
      return shift > 0 ? this.#findIn(prefix, 0, count, sum, reached) : this.#findEqual(prefix, count, sum, reached);
    };
    return walk({ counts, sums }, reached, before, sumBefore, inner) ?? last;
  }

  /** Finds the token among those of one weight. */
  #findEqual(pattern: number, before: number, sumBefore: number, reached: Reached): number {
    let [count, sum, last] = [before, sumBefore, 0];
    for (let i = 0; i < this.#patterns.length; i++) {
      if (this.#patterns[i] !== pattern) continue;
      last = i;
      sum += this.#weights[i] as number;
      if (reached(++count, sum)) break;
    }
    return last;
  }
}

function bucketsOf(count: number): Buckets {
  return { counts: new Uint32Array(count), sums: new Float64Array(count) };
}

/** Walks down buckets to the first with which `reached` holds, and gives what is found in it. */
function walk(
  { counts, sums }: Buckets,
  reached: Reached,
  before: number,
  sumBefore: number,
  findIn: (bucket: number, count: number, sum: number) => number,
): number | undefined {
  let [count, sum] = [before, sumBefore];
  for (let bucket = counts.length - 1; bucket >= 0; bucket--) {
    const members = counts[bucket] as number;
    if (members === 0) continue;
    if (reached(count + members, sum + (sums[bucket] as number))) return findIn(bucket, count, sum);
    count += members;
    sum += sums[bucket] as number;
  }
  return undefined;
}
