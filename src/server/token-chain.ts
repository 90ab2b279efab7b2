// Keys of all beginnings of a token sequence: a chain of hashes, in which each continues the one before. Keys only find an entry; whoever
// finds one compares its tokens, so that no collision, found or made, gives a state of another text.

/** The keys of a sequence's beginnings. */
export class TokenChain {
  /** What sets the chain apart from those of other models or first states. */
  readonly root: string;
  readonly tokens: Int32Array;
  readonly #keys: Float64Array;

  constructor(root: string, tokens: Int32Array) {
    this.root = root;
    this.tokens = tokens;
    this.#keys = new Float64Array(tokens.length + 1);
    let [a, b] = [0x9e3779b9, 0x7f4a7c15];
    const add = (value: number) => {
      a = Math.imul(a ^ value, 0x85ebca6b);
      a = (a << 13) | (a >>> 19);
      b = Math.imul(b ^ value ^ (b >>> 15), 0xc2b2ae35);
      b = (b << 11) | (b >>> 21);
    };
    for (let i = 0; i < root.length; i++) add(root.charCodeAt(i));
    this.#keys[0] = keyOf(a, b);
    for (let i = 0; i < tokens.length; i++) {
      add(tokens[i] as number);
      this.#keys[i + 1] = keyOf(a, b);
    }
  }

  /** The number of tokens. */
  get length(): number {
    return this.tokens.length;
  }

  /** The key of the first `length` tokens: a whole number below 2^53. */
  key(length: number): number {
    return this.#keys[length] as number;
  }

  /** Whether the sequence begins with these tokens. */
  beginsWith(tokens: Int32Array): boolean {
    return commonLength(this.tokens, tokens) === tokens.length;
  }
}

function keyOf(a: number, b: number): number {
  return (a >>> 0) * 2 ** 21 + (b >>> 11);
}

/** How many tokens two sequences begin with alike. */
export function commonLength(a: Int32Array, b: Int32Array): number {
  const most = Math.min(a.length, b.length);
  let length = 0;
  while (length < most && a[length] === b[length]) length++;
  return length;
}
