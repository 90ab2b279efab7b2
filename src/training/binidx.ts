// Reads data that were turned into tokens before: binidx, the memory-mapped datasets of Megatron-LM as RWKV-LM's tools write and read
// them (RWKV-LM, train_temp/src/binidx.py). data.bin has the tokens and nothing else; data.idx, little-endian:
//
//   9 bytes  "MMIDIDX\0\0"           8 bytes  version 1           1 byte  type of the tokens
//   8 bytes  number of items        8 bytes  number of entries of the last table
//   4 bytes for each item, its tokens; 8 bytes for each, where it begins in data.bin; 8 bytes for each entry, items before a document
//
// An item is a document, which its end-of-text token ends. Both files are checked before anything is made of what they claim.

import { open, readFile, stat } from "node:fs/promises";
import { TrainingError } from "../errors.js";
import { checkInterrupt } from "../interruptible.js";
import type { Tokenizer } from "../tokenizers/tokenizer.js";
import { checkTokenCount, type Dataset, type HeldOutText, type TokenArray } from "./dataset.js";
import { fewDocuments } from "./document.js";
import { unreadable } from "./text-file.js";

/** Documents of tokens, one after the other. */
export interface TokenizedData {
  readonly name: string;
  readonly tokens: TokenArray;
  /** The number of tokens of each document. */
  readonly sizes: Int32Array;
}

/** The two files of a binidx. */
export interface BinidxFiles {
  readonly bin: string;
  readonly idx: string;
}

const magic = "MMIDIDX\0\0";
const headerSize = 34;
const pieceSize = 2 ** 24;
/** Tokens that are decoded to tell how many bytes a token has. */
const sampledTokens = 2 ** 18;

interface TokenType {
  readonly bytes: number;
  readonly tokens: (length: number) => TokenArray;
  readonly read: (view: DataView, at: number) => number;
}

/** By the number that stands for a type; all but the floating ones, 6 and 7. */
const types: Readonly<Record<number, TokenType>> = {
  1: { bytes: 1, tokens: (n) => new Uint16Array(n), read: (view, at) => view.getUint8(at) },
  2: { bytes: 1, tokens: (n) => new Int32Array(n), read: (view, at) => view.getInt8(at) },
  3: { bytes: 2, tokens: (n) => new Int32Array(n), read: (view, at) => view.getInt16(at, true) },
  4: { bytes: 4, tokens: (n) => new Int32Array(n), read: (view, at) => view.getInt32(at, true) },
  5: { bytes: 8, tokens: (n) => new Int32Array(n), read: (view, at) => wholeNumber(view.getBigInt64(at, true)) },
  8: { bytes: 2, tokens: (n) => new Uint16Array(n), read: (view, at) => view.getUint16(at, true) },
};

/** The files of a binidx that a path names by either of them, or without their endings; undefined where it names none. */
export async function binidxAt(path: string): Promise<BinidxFiles | undefined> {
  const stem = /\.(bin|idx)$/i.test(path) ? path.slice(0, -4) : path;
  const files = { bin: `${stem}.bin`, idx: `${stem}.idx` };
  const isThere = async (file: string) => (await stat(file).catch(() => undefined))?.isFile() === true;
  if (stem === path && (await stat(path).catch(() => undefined))) return undefined;
  return (await isThere(files.idx)) ? files : undefined;
}

/**
 * Reads a binidx.
 *
 * @param vocabulary what ids must be below
 * @throws TrainingError for files that are damaged or do not belong together; InterruptedError
 */
export async function readBinidx(
  { bin, idx }: BinidxFiles,
  vocabulary: number,
  signal?: AbortSignal,
): Promise<TokenizedData> {
  const { type, sizes } = await readIndex(idx);
  const { size } = await stat(bin).catch((cause) => {
    throw unreadable(bin, cause);
  });
  const total = sizes.reduce((sum, one) => sum + one, 0);
  if (size !== total * type.bytes) {
    throw new TrainingError(`${bin}: expected ${total * type.bytes} bytes, as ${idx} tells, found ${size}`);
  }
  const tokens = type.tokens(total);
  const handle = await open(bin).catch((cause) => {
    throw unreadable(bin, cause);
  });
  try {
    const piece = new Uint8Array(Math.min(pieceSize, size));
    for (let at = 0; at < total; ) {
      checkInterrupt(signal);
      const count = Math.min(piece.length / type.bytes, total - at);
      await readFully(handle, piece.subarray(0, count * type.bytes), at * type.bytes, bin);
      const view = new DataView(piece.buffer);
      for (let i = 0; i < count; i++, at++) {
        const token = type.read(view, i * type.bytes);
        if (!(token >= 0 && token < vocabulary)) {
          throw new TrainingError(`${bin}: token ${at}: expected an id from 0 to ${vocabulary - 1}, found ${token}`);
        }
        tokens[at] = token;
      }
    }
  } finally {
    await handle.close();
  }
  return { name: bin, tokens, sizes };
}

async function readFully(
  handle: Awaited<ReturnType<typeof open>>,
  target: Uint8Array,
  position: number,
  name: string,
): Promise<void> {
  for (let done = 0; done < target.length; ) {
    const { bytesRead } = await handle.read(target, done, target.length - done, position + done);
    if (bytesRead === 0) throw new TrainingError(`${name}: ended while it was read`);
    done += bytesRead;
  }
}

async function readIndex(path: string): Promise<{ type: TokenType; sizes: Int32Array }> {
  const bytes = await readFile(path).catch((cause) => {
    throw unreadable(path, cause);
  });
  const refuse = (expected: string, found: string) =>
    new TrainingError(`${path}: expected ${expected}, found ${found}`);
  if (bytes.length < headerSize || bytes.toString("latin1", 0, magic.length) !== magic) {
    throw refuse(
      "the index of a binidx (MMIDIDX)",
      bytes.length < headerSize ? `${bytes.length} bytes` : "another file",
    );
  }
  const version = bytes.readBigUInt64LE(9);
  if (version !== 1n) throw refuse("version 1", String(version));
  const code = bytes[17] as number;
  const type = types[code];
  if (!type) throw refuse("tokens of an integer type (1 to 5, or 8)", `type ${code}`);
  const items = wholeNumber(bytes.readBigUInt64LE(18));
  const entries = wholeNumber(bytes.readBigUInt64LE(26));
  const size = headerSize + 12 * items + 8 * entries;
  if (size !== bytes.length) throw refuse(`${size} bytes for ${items} items and ${entries} entries`, `${bytes.length}`);
  const sizes = new Int32Array(items);
  let start = 0;
  for (let i = 0; i < items; i++) {
    const length = bytes.readInt32LE(headerSize + 4 * i);
    if (length < 0) throw refuse(`a number of tokens for item ${i}`, `${length}`);
    const place = wholeNumber(bytes.readBigInt64LE(headerSize + 4 * items + 8 * i));
    if (place !== start) throw refuse(`item ${i} at byte ${start}, behind the one before`, `${place}`);
    sizes[i] = length;
    start += length * type.bytes;
  }
  let before = 0;
  for (let i = 0; i < entries; i++) {
    const entry = wholeNumber(bytes.readBigInt64LE(headerSize + 12 * items + 8 * i));
    if (!(entry >= before && entry <= items))
      throw refuse(`document ${i} to begin at an item from ${before} to ${items}`, `${entry}`);
    before = entry;
  }
  return { type, sizes };
}

/** Infinity for numbers that are not exact, which no file is as long as. */
function wholeNumber(value: bigint): number {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : Number.POSITIVE_INFINITY;
}

/**
 * What to learn of data that are tokens already, and what is held out: the last documents where there are many, else the end of the text.
 *
 * @param share of the tokens that is held out, from 0 to 0.5
 * @throws TrainingError when there is less to learn from than one sequence
 */
export function tokenizedDataset(
  { tokens, sizes }: TokenizedData,
  tokenizer: Tokenizer,
  share: number,
  context: number,
): Dataset {
  let kept = Math.floor(tokens.length * (1 - share));
  const texts: TokenArray[] = [];
  let at = 0;
  const many = sizes.length > fewDocuments;
  for (const size of sizes) {
    const [start, end] = [at, at + size];
    at = end;
    if (end <= kept) continue;
    // Of a document that lies across, all is learned where there are many.
    if (many && start < kept) kept = end;
    else texts.push(tokens.subarray(Math.max(start, kept), end));
  }
  const training = tokens.subarray(0, kept);
  checkTokenCount(training.length, context);
  const sample = training.subarray(0, sampledTokens);
  const heldOut = texts.map((text) => heldOutText(text, tokenizer));
  return {
    tokens: training,
    bytesPerToken: bytesOf(sample, tokenizer) / sample.length,
    heldOut: heldOut.filter((text) => text.tokens.length > 1 && text.bytes > 0),
  };
}

/** A document without the end-of-text token behind it, and after one, as those of text are. */
function heldOutText(document: TokenArray, tokenizer: Tokenizer): HeldOutText {
  const { endOfText } = tokenizer;
  const text = document.at(-1) === endOfText ? document.subarray(0, -1) : document;
  const start = endOfText === undefined ? [] : [endOfText];
  const all = new Int32Array(start.length + text.length);
  all.set(start);
  all.set(text, start.length);
  return { tokens: all, bytes: bytesOf(text, tokenizer) };
}

/** The bytes of the text of tokens. */
function bytesOf(tokens: TokenArray, tokenizer: Tokenizer): number {
  return Buffer.byteLength(tokenizer.decode(tokens.filter((token) => token !== tokenizer.endOfText)));
}
