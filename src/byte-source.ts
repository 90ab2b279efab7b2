// Random access to the bytes of a checkpoint. Readers of formats see only this interface, so a file, a buffer, a Blob
// and an HTTP range are the same to them.

import { CheckpointError } from "./errors.js";

/** A sequence of bytes of which ranges can be read. */
export interface ByteSource {
  /** The name for error messages: a path as the user gave it. */
  readonly name: string;
  /** Total length in bytes. */
  readonly size: number;
  /**
   * The descriptor of an open local file that the native backend may map into memory, once it is whole; absent for anything
   * else.
   */
  readonly descriptor?: number | undefined;
  /** Of a file that is being downloaded: how to deal with what is not there yet. Absent for all others. */
  readonly arrival?: Arrival | undefined;
  /**
   * Reads `target.byteLength` bytes starting at `offset`.
   *
   * @throws CheckpointError when the range is not wholly inside the source
   */
  readInto(offset: number, target: Uint8Array): Promise<void>;
  close(): Promise<void>;
}

/** A file that is read while it is downloaded. Reading waits for bytes that have not come; they come in the file's order. */
export interface Arrival {
  /** Whether all bytes are there. */
  readonly isWhole: boolean;
  /** Waits until they are. @throws what ended the download */
  whenWhole(): Promise<void>;
  /** Asks for a range before what lies in front of it. */
  hurry(offset: number, length: number): void;
  /** Takes a check of what was taken for granted of bytes that have not come. Nothing that was read counts before it has ended well. */
  later(check: Promise<void>): void;
}

/** Reads a range that more depends on than on what lies before it. */
export function readSoon(source: ByteSource, offset: number, length: number): Promise<Uint8Array> {
  source.arrival?.hurry(offset, length);
  return readRange(source, offset, length);
}

/** Reads a range into a new array. The range is checked before anything is allocated. */
export async function readRange(source: ByteSource, offset: number, length: number): Promise<Uint8Array> {
  checkRange(source, offset, length);
  const bytes = new Uint8Array(length);
  await source.readInto(offset, bytes);
  return bytes;
}

/** @throws CheckpointError unless `length` bytes at `offset` lie inside the source */
export function checkRange(source: ByteSource, offset: number, length: number): void {
  const valid = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0;
  if (!valid || offset + length > source.size) {
    throw new CheckpointError(
      source.name,
      `expected ${length} bytes at offset ${offset}, but the file has ${source.size} bytes (truncated or damaged)`,
    );
  }
}

/** A source over bytes already in memory. */
export function bytesSource(name: string, bytes: Uint8Array): ByteSource {
  const source: ByteSource = {
    name,
    size: bytes.byteLength,
    async readInto(offset, target) {
      checkRange(source, offset, target.byteLength);
      if (bytes.byteLength !== source.size) {
        throw new CheckpointError(name, "the buffer was transferred or resized while it was read");
      }
      target.set(bytes.subarray(offset, offset + target.byteLength));
    },
    async close() {},
  };
  return source;
}

/** A source over a Blob, such as a file that a user picked in a page. */
export function blobSource(blob: Blob): ByteSource {
  const source: ByteSource = {
    name: "name" in blob ? String(blob.name) : "blob",
    size: blob.size,
    async readInto(offset, target) {
      checkRange(source, offset, target.byteLength);
      target.set(new Uint8Array(await blob.slice(offset, offset + target.byteLength).arrayBuffer()));
    },
    async close() {},
  };
  return source;
}
