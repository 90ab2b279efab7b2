// The input of `load` and `openCheckpoint`: a path or URL, or the bytes of a file in any form that JavaScript has for
// them.

import { resolvePath } from "#platform/files";
import { type ByteSource, blobSource, bytesSource } from "../byte-source.js";
import { OptionError } from "../errors.js";

/**
 * A checkpoint: a path (in a page a URL), a URL object, or the file itself as a Blob, a buffer or a view of one.
 * Bytes are read where they are and not copied, so they must not change while they are read.
 */
export type CheckpointInput = string | URL | Blob | ArrayBuffer | SharedArrayBuffer | ArrayBufferView;

/**
 * Returns the path or URL that an input names, or a source of its bytes.
 *
 * @throws OptionError for any other value, such as a promise that was not awaited
 */
export function resolveInput(input: CheckpointInput): string | ByteSource {
  if (isPath(input)) {
    if (String(input) !== "") return resolvePath(input);
  } else if (isBlob(input)) return blobSource(input);
  else if (isBuffer(input)) return bytesSource("bytes", new Uint8Array(input));
  else if (ArrayBuffer.isView(input)) {
    return bytesSource("bytes", new Uint8Array(input.buffer, input.byteOffset, input.byteLength));
  }
  throw new OptionError(
    "input",
    input,
    "the path or URL of a checkpoint, or its bytes (a Blob, an ArrayBuffer or a typed array)",
  );
}

/** Whether a value is a checkpoint's input. */
export function isCheckpointInput(value: unknown): value is CheckpointInput {
  const input = value as CheckpointInput;
  if (isPath(input)) return String(input) !== "";
  return isBlob(input) || isBuffer(input) || ArrayBuffer.isView(input);
}

/** Whether an input is the name of a file, which may have others beside it, rather than the bytes of one. */
export function isPath(input: CheckpointInput): input is string | URL {
  return typeof input === "string" || isOfClass(input, "URL");
}

function isBuffer(input: CheckpointInput): input is ArrayBuffer | SharedArrayBuffer {
  return isOfClass(input, "ArrayBuffer") || isOfClass(input, "SharedArrayBuffer");
}

function isBlob(input: CheckpointInput): input is Blob {
  return isOfClass(input, "Blob") || isOfClass(input, "File");
}

/**
 * Compares the class's name, since a value may come from another realm (an iframe, a test runner), for which
 * instanceof fails.
 */
function isOfClass(input: unknown, name: string): boolean {
  return Object.prototype.toString.call(input) === `[object ${name}]`;
}
