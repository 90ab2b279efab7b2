// Reads a file's header field by field, from its beginning: numbers and texts, little-endian, whose lengths the header
// itself tells. The file is read ahead in pieces, so that a header of a million bytes takes a few requests to a web
// server, and lengths are held to what is left of the file before anything is allocated.

import { type ByteSource, checkRange } from "../byte-source.js";
import { CheckpointError } from "../errors.js";

/** Reads forwards through a source. Every method throws a CheckpointError where the file ends too soon. */
export class SequentialReader {
  readonly #source: ByteSource;
  readonly #limit: number;
  readonly #decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  #piece = new Uint8Array(0);
  #view = new DataView(this.#piece.buffer);
  /** Position of the piece in the source, and of the next byte in the piece. */
  #start = 0;
  #at = 0;
  #nextPiece: number;
  readonly #largestPiece: number;
  #read = 0;

  /**
   * @param limit the most bytes that are read; skipped ones do not count
   * @param firstPiece bytes that are read at first; each piece has twice as many as the one before
   * @param largestPiece up to this
   */
  constructor(source: ByteSource, limit: number, firstPiece: number = 2 ** 16, largestPiece: number = 2 ** 20) {
    this.#source = source;
    this.#limit = limit;
    this.#nextPiece = firstPiece;
    this.#largestPiece = largestPiece;
  }

  /** Position of the next byte in the source. */
  get position(): number {
    return this.#start + this.#at;
  }

  /** Bytes of the source from here on. */
  get left(): number {
    return this.#source.size - this.position;
  }

  async uint32(): Promise<number> {
    return (await this.#field(4)).getUint32(this.#at - 4, true);
  }

  /**
   * An unsigned integer of 64 bits.
   *
   * @param what it is, for the error where it is larger than a number can tell exactly
   */
  async uint64(what: string): Promise<number> {
    const value = (await this.#field(8)).getBigUint64(this.#at - 8, true);
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) {
      throw new CheckpointError(this.#source.name, `${what}: expected at most 2^53, found ${value}`);
    }
    return Number(value);
  }

  /** A field of `size` bytes as `read` takes it from a view. */
  async field<T>(size: number, read: (view: DataView, at: number) => T): Promise<T> {
    return read(await this.#field(size), this.#at - size);
  }

  /** A text of `length` bytes in UTF-8. @param what it is, for errors */
  async text(length: number, most: number, what: string): Promise<string> {
    if (length > most) {
      throw new CheckpointError(this.#source.name, `${what}: expected at most ${most} bytes, found ${length}`);
    }
    await this.#field(length);
    return this.#decoded(this.#at - length, this.#at, () => what);
  }

  /** Texts that each have their length before them, which is what tens of thousands of tokens are. @param what one of them is */
  async texts(count: number, most: number, what: (index: number) => string): Promise<string[]> {
    const texts: string[] = [];
    for (let i = 0; i < count; i++) {
      // A text that was read ahead takes no promise.
      const isAhead = this.#at + 8 <= this.#piece.length;
      const length = isAhead ? Number(this.#view.getBigUint64(this.#at, true)) : most + 1;
      const end = this.#at + 8 + length;
      if (!isAhead || length > most || end > this.#piece.length) {
        texts.push(await this.text(await this.uint64(`${what(i)}: its length`), most, what(i)));
        continue;
      }
      texts.push(this.#decoded(this.#at + 8, end, () => what(i)));
      this.#at = end;
    }
    return texts;
  }

  /** Unsigned integers of 32 bits. */
  async uint32s(count: number): Promise<number[]> {
    const numbers: number[] = [];
    for (let i = 0; i < count; i++) {
      if (this.#at + 4 > this.#piece.length) numbers.push(await this.uint32());
      else {
        numbers.push(this.#view.getUint32(this.#at, true));
        this.#at += 4;
      }
    }
    return numbers;
  }

  /** Passes over bytes, which are not read. */
  skip(length: number): void {
    checkRange(this.#source, this.position, length);
    this.#at += length;
  }

  #decoded(from: number, to: number, what: () => string): string {
    try {
      return this.#decoder.decode(this.#piece.subarray(from, to));
    } catch (cause) {
      throw new CheckpointError(this.#source.name, `${what()} is not UTF-8`, { cause });
    }
  }

  /** Makes sure that the next `size` bytes are in the piece, and passes over them. */
  async #field(size: number): Promise<DataView> {
    if (this.#at + size > this.#piece.length) await this.#readFrom(this.position, size);
    this.#at += size;
    return this.#view;
  }

  async #readFrom(position: number, needed: number): Promise<void> {
    checkRange(this.#source, position, needed);
    const size = Math.max(needed, Math.min(this.#nextPiece, this.#source.size - position));
    this.#read += size;
    if (this.#read > this.#limit) {
      throw new CheckpointError(this.#source.name, `its header takes more than ${this.#limit} bytes`);
    }
    if (this.#piece.length !== size) {
      this.#piece = new Uint8Array(size);
      this.#view = new DataView(this.#piece.buffer);
    }
    await this.#source.readInto(position, this.#piece);
    this.#start = position;
    this.#at = 0;
    this.#nextPiece = Math.min(2 * this.#nextPiece, this.#largestPiece);
  }
}
