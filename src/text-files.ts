// Bytes of files and pipes as text. The whole project reads text here, so that a byte order mark, or another encoding than
// UTF-8, means the same in a prompt, a vocabulary, a config.json and training data.

/** Bytes that are decoded at once while looking for the first invalid one. */
const chunkSize = 2 ** 20;
/** How much of a text is looked at to tell UTF-16 without a byte order mark. */
const sampleSize = 512;

/**
 * Decodes UTF-8, strictly. A byte order mark at the beginning is dropped, since it is not part of the text.
 *
 * @param fail makes the error from a reason that begins with what was expected; it adds the name of the file
 * @throws what `fail` makes, when the bytes are not UTF-8 or are more than a string can hold
 */
export function decodeText(bytes: Uint8Array, fail: (reason: string) => Error): string {
  const wide = utf16Reason(bytes);
  if (wide !== undefined) throw fail(wide);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw fail(invalidReason(bytes));
  }
}

/** Why a text that begins with these bytes cannot be read, if it is UTF-16. */
export function utf16Reason(bytes: Uint8Array): string | undefined {
  const kind = utf16Kind(bytes);
  return kind && `expected UTF-8 text, found ${kind.name} ${kind.evidence}; ${conversion("UTF-16")}`;
}

/**
 * Why bytes do not decode.
 *
 * @param offset where they begin in their file
 */
export function invalidReason(bytes: Uint8Array, offset = 0): string {
  const at = firstInvalidByte(bytes);
  if (at === undefined) {
    return `expected at most 512 MiB of text, as much as a string can hold, found ${bytes.length} bytes`;
  }
  const byte = (bytes[at] as number).toString(16).padStart(2, "0");
  return (
    `expected UTF-8 text, found the invalid byte 0x${byte} at offset ${offset + at}; ` +
    `if the text is Latin-1 or Windows-1252, ${conversion("WINDOWS-1252")}`
  );
}

function conversion(from: string): string {
  return `convert it, for instance with iconv -f ${from} -t UTF-8`;
}

/**
 * UTF-16, by its byte order mark or by the zero bytes of its Latin letters and spaces. (Without a mark such a text is valid
 * UTF-8 as long as it is ASCII, and would be read with a zero character between all letters.)
 */
function utf16Kind(bytes: Uint8Array): { name: string; evidence: string } | undefined {
  const mark = "(its byte order mark is at offset 0)";
  if (bytes[0] === 0xff && bytes[1] === 0xfe) return { name: "UTF-16 LE", evidence: mark };
  if (bytes[0] === 0xfe && bytes[1] === 0xff) return { name: "UTF-16 BE", evidence: mark };
  if (bytes.length < 4 || bytes.length % 2 !== 0) return undefined;
  const sample = bytes.subarray(0, sampleSize);
  const zeros = [0, 0];
  sample.forEach((byte, i) => {
    if (byte === 0) zeros[i % 2] = (zeros[i % 2] as number) + 1;
  });
  const [even, odd] = zeros as [number, number];
  const many = sample.length / 4;
  const evidence = "(every second byte is zero)";
  if (even === 0 && odd > many) return { name: "UTF-16 LE", evidence };
  if (odd === 0 && even > many) return { name: "UTF-16 BE", evidence };
  return undefined;
}

/** The offset of the first character that is not UTF-8; undefined if there is none. */
function firstInvalidByte(bytes: Uint8Array): number | undefined {
  const stream = new TextDecoder("utf-8", { fatal: true });
  let chunk = 0;
  try {
    for (; chunk < bytes.length; chunk += chunkSize) {
      stream.decode(bytes.subarray(chunk, chunk + chunkSize), { stream: true });
    }
  } catch {
    // The character is in this chunk, or began at the end of the one before.
  }
  let at = Math.max(0, Math.min(chunk, bytes.length) - 3);
  while (at > 0 && isContinuation(bytes[at] as number)) at--;
  const decoder = new TextDecoder("utf-8", { fatal: true });
  while (at < bytes.length) {
    const lead = bytes[at] as number;
    const length = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    try {
      if (length > 1) decoder.decode(bytes.subarray(at, at + length));
    } catch {
      return at;
    }
    at += length;
  }
  return undefined;
}

function isContinuation(byte: number): boolean {
  return byte >= 0x80 && byte < 0xc0;
}
