// Recognises files that are often mistaken for a model or a tokenizer, by their first bytes, and says what to do about it. Used
// where a file has no format that can be read.

/** How many of a file's first bytes are enough for `describeForeignFile`. */
export const describedBytes = 512;

/** Formats that begin with fixed bytes. */
const magics: readonly (readonly [magic: string, description: string])[] = [
  ["GGUF", "a GGUF file, which holds a model"],
  ...["fmgg", "tjgg", "lmgg", "algg"].map(
    (magic) =>
      [
        magic,
        "a ggml file, as llama.cpp used them before GGUF, which cannot be read here; use the original .pth or .safetensors",
      ] as const,
  ),
  ["7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it and use the file in it"],
  ["Rar!\x1a\x07", "a RAR archive; unpack it and use the file in it"],
  ["\x1f\x8b", "a gzip file; decompress it (gunzip) and use the result"],
  ["\xfd7zXZ\x00", "an xz file; decompress it (unxz) and use the result"],
  ["BZh", "a bzip2 file; decompress it (bunzip2) and use the result"],
  ["\x28\xb5\x2f\xfd", "a zstd file; decompress it (unzstd) and use the result"],
  ["\x93NUMPY", "a NumPy array"],
  ["\x89HDF\r\n\x1a\n", "an HDF5 file, as used by Keras"],
  ["%PDF-", "a PDF document"],
];

/** Texts by what they begin with, after a byte order mark and white space. */
const texts: readonly (readonly [pattern: RegExp, description: string])[] = [
  [
    /^version https:\/\/git-lfs\.github\.com\//,
    "a Git LFS pointer, which stands for the file in a repository that was cloned without Git LFS; run git lfs pull there, " +
      "or download the file itself",
  ],
  [
    /^<(!doctype html|html|head|body)/i,
    "a web page, saved in place of the file; download from the address behind the download button " +
      "(on Hugging Face /resolve/ rather than /blob/)",
  ],
  [/^<(\?xml|error)/i, "XML, probably an error message from a server; download the file again"],
  [/^\{\s*("|\}|$)/, "JSON text, such as a configuration or an index of shards"],
];

/**
 * Says what a file is that cannot be read, with the remedy where there is one.
 *
 * @param start the first bytes of the file, `describedBytes` of them where it has as many
 * @returns a phrase such as "a web page, ...", or undefined for an unknown file
 */
export function describeForeignFile(start: Uint8Array): string | undefined {
  if (start.length > 0 && start.every((byte) => byte === 0)) {
    return "a file that begins with zeros, like an unfinished download; download it again";
  }
  const binary = String.fromCharCode(...start.subarray(0, 16));
  const magic = magics.find(([bytes]) => binary.startsWith(bytes));
  if (magic) return magic[1];
  const text = new TextDecoder().decode(start.subarray(0, describedBytes)).trimStart(); // decode drops a byte order mark
  return texts.find(([pattern]) => pattern.test(text))?.[1];
}
