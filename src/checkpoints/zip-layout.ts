// Where torch.save puts the bytes of entries: one entry follows the other, each with its bytes at a multiple of 64, before which its local
// header is filled up, and behind which there may be a data descriptor (APPNOTE 4.3.9).

/** What the central directory tells of an entry. */
interface Listed {
  readonly name: string;
  readonly localOffset: number;
  readonly size: number;
}

const alignment = 64;
/** Bytes of data descriptors: none, or with sizes of 32 or 64 bits. */
const descriptors = [0, 16, 24];
/** Bytes of a local header without the name; at most so many more are in its extra field, beside the filling. */
const headerSize = 30;
const largestExtra = 64;

/**
 * Where entries' bytes begin by this layout, without a look at their local headers.
 *
 * @param records in the order of the file
 * @param end of the last
 * @returns undefined for entries that do not follow each other so
 */
export function expectedOffsets(records: readonly Listed[], end: number): number[] | undefined {
  const offsets: number[] = [];
  for (const [i, { name, localOffset, size }] of records.entries()) {
    const next = records[i + 1]?.localOffset ?? end;
    const earliest = localOffset + headerSize + new TextEncoder().encode(name).length;
    const latest = earliest + largestExtra + alignment;
    // They differ by less than the alignment, so at most one is right.
    const offset = descriptors
      .map((descriptor) => next - descriptor - size)
      .find((start) => start % alignment === 0 && start >= earliest && start <= latest);
    if (offset === undefined) return undefined;
    offsets.push(offset);
  }
  return offsets;
}
