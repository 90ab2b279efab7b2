// Downloads a whole file from a server that does not support range requests.

import { type ByteSource, checkRange } from "../byte-source.js";
import { CheckpointError } from "../errors.js";
import { isEncoded, TransientError } from "./exchange.js";

/** The most bytes that are kept in memory: no more than WebAssembly could use. */
const maxSize = 2 ** 32;
const blockSize = 2 ** 22;

/** Called with the number of bytes received so far and their total number. */
export type OnDownload = (done: number, total: number) => void;

/**
 * Reads a body to its end.
 *
 * @param limit the most bytes that are accepted
 * @throws CheckpointError when the body is cut short or longer than the limit
 */
export async function download(
  url: string,
  response: Response,
  body: AsyncIterable<Uint8Array>,
  { onDownload, limit = maxSize }: { onDownload?: OnDownload | undefined; limit?: number } = {},
): Promise<Blocks> {
  const declared = response.headers.get("content-length");
  const expected = declared === null || isEncoded(response) ? undefined : Number(declared);
  const tooLong = (size: number) => {
    const found = `expected at most ${limit} bytes, found ${size}`;
    return new CheckpointError(
      url,
      limit === maxSize ? `${found} from a server that does not support range requests` : found,
    );
  };
  if (expected !== undefined && expected > limit) throw tooLong(expected);
  const blocks = new Blocks();
  for await (const piece of body) {
    blocks.append(piece);
    if (blocks.size > limit) throw tooLong(blocks.size);
    onDownload?.(blocks.size, Math.max(expected ?? 0, blocks.size));
  }
  // More bytes than declared are not an error: the file was compressed, and servers of other origins need not reveal
  // that.
  if (expected !== undefined && blocks.size < expected) {
    throw new TransientError(url, `the connection was cut: expected ${expected} bytes, received ${blocks.size}`);
  }
  return blocks;
}

/**
 * Bytes that were received in pieces, kept in blocks of one size, since a single array would have to be moved as it
 * grows.
 */
export class Blocks {
  size = 0;
  readonly #blocks: Uint8Array[] = [];

  append(piece: Uint8Array): void {
    for (let at = 0; at < piece.length; ) {
      const filled = this.size % blockSize;
      if (filled === 0) this.#blocks.push(new Uint8Array(blockSize));
      const part = piece.subarray(at, at + blockSize - filled);
      this.#blocks.at(-1)?.set(part, filled);
      this.size += part.length;
      at += part.length;
    }
  }

  readInto(offset: number, target: Uint8Array): void {
    for (let done = 0; done < target.length; ) {
      const at = offset + done;
      const block = this.#blocks[Math.floor(at / blockSize)] as Uint8Array;
      const part = block.subarray(at % blockSize, Math.min(blockSize, (at % blockSize) + target.length - done));
      target.set(part, done);
      done += part.length;
    }
  }

  toBytes(): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(this.size);
    this.readInto(0, bytes);
    return bytes;
  }
}

/** A source over downloaded bytes. */
export function blocksSource(name: string, blocks: Blocks): ByteSource {
  const source: ByteSource = {
    name,
    size: blocks.size,
    async readInto(offset, target) {
      checkRange(source, offset, target.byteLength);
      blocks.readInto(offset, target);
    },
    async close() {},
  };
  return source;
}
