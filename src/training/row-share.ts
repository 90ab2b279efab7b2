// Which rows of a batch each rank computes. The batch is that of all ranks together, so that what a step learns from does not depend on
// how many there are.

/** The rows of one rank. */
export interface RowShare {
  readonly begin: number;
  /** Behind the last one. */
  readonly end: number;
  /** The rank that has a row. */
  ownerOf(row: number): number;
}

/** Consecutive rows for each rank, as many for each or one more. @param batch rows in all, at least as many as ranks */
export function rowShare(batch: number, rank: number, size: number): RowShare {
  const beginOf = (one: number) => Math.floor((batch * one) / size);
  return {
    begin: beginOf(rank),
    end: beginOf(rank + 1),
    ownerOf: (row) => Math.floor(((row + 1) * size - 1) / batch),
  };
}
