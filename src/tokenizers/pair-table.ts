// A map from pairs of whole numbers to whole numbers, in flat arrays with open addressing. For the hundreds of
// thousands of entries of a vocabulary it is several times smaller and faster than a map of maps.

const empty = -1;

/** Maps pairs of whole numbers to whole numbers, all from 0 to 2^31 - 1. */
export class PairTable {
  #lefts: Int32Array;
  #rights: Int32Array;
  #values: Int32Array;
  #size = 0;

  /** Makes a table. @param expected the expected number of entries; the table grows beyond it */
  constructor(expected = 0) {
    const slots = 2 ** Math.max(4, Math.ceil(Math.log2(expected * 2 + 1)));
    this.#lefts = new Int32Array(slots).fill(empty);
    this.#rights = new Int32Array(slots);
    this.#values = new Int32Array(slots);
  }

  /** The value of a pair, or -1 if it has none. */
  get(left: number, right: number): number {
    const slot = this.#slot(left, right);
    return this.#lefts[slot] === empty ? -1 : (this.#values[slot] as number);
  }

  set(left: number, right: number, value: number): void {
    let slot = this.#slot(left, right);
    if (this.#lefts[slot] === empty) {
      if (++this.#size * 2 > this.#lefts.length) {
        this.#grow();
        slot = this.#slot(left, right);
      }
      this.#lefts[slot] = left;
      this.#rights[slot] = right;
    }
    this.#values[slot] = value;
  }

  /** The slot of a pair, or the empty slot where it would go. */
  #slot(left: number, right: number): number {
    const mask = this.#lefts.length - 1;
    const mixed = Math.imul(left, 0x9e3779b1) ^ Math.imul(right, 0x85ebca6b);
    let slot = (mixed ^ (mixed >>> 15)) & mask;
    while (this.#lefts[slot] !== empty && (this.#lefts[slot] !== left || this.#rights[slot] !== right)) {
      slot = (slot + 1) & mask;
    }
    return slot;
  }

  #grow(): void {
    const [lefts, rights, values] = [this.#lefts, this.#rights, this.#values];
    this.#lefts = new Int32Array(lefts.length * 2).fill(empty);
    this.#rights = new Int32Array(lefts.length * 2);
    this.#values = new Int32Array(lefts.length * 2);
    lefts.forEach((left, i) => {
      if (left === empty) return;
      const slot = this.#slot(left, rights[i] as number);
      this.#lefts[slot] = left;
      this.#rights[slot] = rights[i] as number;
      this.#values[slot] = values[i] as number;
    });
  }
}
