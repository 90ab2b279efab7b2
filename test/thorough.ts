// How much tests try: `npm test` few rounds and some of all combinations, `npm run test:long` many and all. In pages as in Node.

/// <reference types="vite/client" />

/** Whether these are the long tests; vitest.long.config.ts says so. */
export const isThorough: boolean = Boolean(import.meta.env?.["THOROUGH"]);

/** The number of rounds of a property's test: few in `npm test`, many in the long tests. */
export const rounds = (few: number, many: number = 3 * few): number => (isThorough ? many : few);

/**
 * Of a list what `npm test` tries in the test with this number: the last, which tries most, and one of the others in turn, so that
 * tests that are alike try all of it together. The long tests try all of it each.
 */
export function some<T>(all: readonly T[], number: number): readonly T[] {
  if (isThorough) return all;
  return [...all.slice(0, -1).filter((_, i) => i === number % (all.length - 1)), ...all.slice(-1)];
}
