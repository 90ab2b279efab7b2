// The random generator of sampling: xoshiro128** (Blackman and Vigna, "Scrambled Linear Pseudorandom Number
// Generators", arXiv 1805.01407), seeded through SplitMix32. It uses only 32-bit integer operations, so a seed gives
// the same numbers in every JavaScript engine, and porting it to another language means porting these twenty lines.

/** Generates uniform random numbers. */
export interface RandomGenerator {
  /** A float64 in [0, 1) with 53 random bits. */
  uniform(): number;
}

/** Makes a generator. @param seed a whole number from 0 to 2^53 - 1 */
export function randomGenerator(seed: number): RandomGenerator {
  let mixer = (seed ^ Math.imul(Math.floor(seed / 2 ** 32), 0x85ebca6b)) >>> 0;
  const splitMix = () => {
    mixer = (mixer + 0x9e3779b9) >>> 0;
    let z = mixer;
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return (z ^ (z >>> 15)) >>> 0;
  };
  const next = xoshiro128([splitMix(), splitMix(), splitMix(), splitMix()]);
  return { uniform: () => ((next() >>> 5) * 2 ** 26 + (next() >>> 6)) / 2 ** 53 };
}

/** xoshiro128** from a given state. @returns a function that gives the next unsigned 32-bit integer */
export function xoshiro128(state: readonly [number, number, number, number]): () => number {
  let [a, b, c, d] = state;
  const rotate = (x: number, k: number) => (x << k) | (x >>> (32 - k));
  return () => {
    const result = Math.imul(rotate(Math.imul(b, 5), 7), 9) >>> 0;
    const shifted = b << 9;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= shifted;
    d = rotate(d, 11);
    return result;
  };
}

/** A random seed, for when none is given. */
export function freshSeed(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0] as number;
}
