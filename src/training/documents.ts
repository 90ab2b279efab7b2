// Reads training data: a text file, a folder of them, or lines of JSON. What is no text is refused before anything is trained on it.

import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { TrainingError } from "../errors.js";

/** A text that stands for itself: nothing in it continues another one. */
export interface Document {
  readonly name: string;
  readonly text: string;
}

/** Documents to learn from, and what is held out to measure with. */
export interface SplitDocuments {
  readonly training: readonly Document[];
  readonly validation: readonly Document[];
}

const textEndings = /\.(txt|text|md|markdown)$/i;
/** Documents up to this number give their ends for validation; more, as lines of JSON often are, whole documents. */
const fewDocuments = 256;

/**
 * @param path a text file (one document), a folder (its .txt and .md files, those in folders below too), or a .jsonl file (an object
 *   with a string `text` on each line)
 * @throws TrainingError for what cannot be read, is empty, or is not UTF-8 text
 */
export async function readDocuments(path: string): Promise<Document[]> {
  const status = await stat(path).catch((cause) => {
    throw unreadable(path, cause);
  });
  const documents = status.isDirectory()
    ? await readFolder(path)
    : /\.(jsonl|ndjson)$/i.test(path)
      ? linesOfJson(path, await readText(path))
      : [{ name: path, text: await readText(path) }];
  const filled = documents.filter(({ text }) => text.trim() !== "");
  if (filled.length === 0) throw new TrainingError(`${path}: expected text to train on, found none`);
  return filled;
}

/**
 * Holds out the last part of each document; where there are many, the last documents instead.
 *
 * @param share of the characters that is held out, from 0 to 0.5
 */
export function holdOut(documents: readonly Document[], share: number): SplitDocuments {
  if (share === 0) return { training: documents, validation: [] };
  if (documents.length > fewDocuments) {
    const kept = Math.floor(documents.length * (1 - share));
    return { training: documents.slice(0, kept), validation: documents.slice(kept) };
  }
  const training: Document[] = [];
  const validation: Document[] = [];
  for (const { name, text } of documents) {
    let end = Math.floor(text.length * (1 - share));
    if (/[\udc00-\udfff]/.test(text[end] ?? "")) end++; // not within a character
    training.push({ name, text: text.slice(0, end) });
    if (end < text.length) validation.push({ name, text: text.slice(end) });
  }
  return { training, validation };
}

async function readFolder(path: string): Promise<Document[]> {
  const names = await readdir(path, { recursive: true }).catch((cause) => {
    throw unreadable(path, cause);
  });
  const wanted = names.filter((name) => textEndings.test(name)).sort();
  if (wanted.length === 0) throw new TrainingError(`${path}: expected .txt or .md files in this folder, found none`);
  const documents: Document[] = [];
  for (const name of wanted) documents.push({ name: join(path, name), text: await readText(join(path, name)) });
  return documents;
}

function linesOfJson(path: string, content: string): Document[] {
  const documents: Document[] = [];
  content.split("\n").forEach((line, i) => {
    if (line.trim() === "") return;
    const name = `${path}, line ${i + 1}`;
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch (cause) {
      throw new TrainingError(`${name}: expected a JSON object, found ${JSON.stringify(line.slice(0, 40))}`, { cause });
    }
    const text = (value as { text?: unknown } | null)?.text;
    if (typeof text !== "string") throw new TrainingError(`${name}: expected an object with a string "text"`);
    documents.push({ name, text });
  });
  return documents;
}

async function readText(path: string): Promise<string> {
  const bytes = await readFile(path).catch((cause) => {
    throw unreadable(path, cause);
  });
  const zero = bytes.indexOf(0);
  if (zero >= 0) {
    throw new TrainingError(`${path}: expected text, found a binary file (a zero byte at offset ${zero})`);
  }
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    const offset = firstInvalidByte(bytes);
    throw new TrainingError(
      `${path}: expected UTF-8, found a byte that is none at offset ${offset}; convert the file, for instance by iconv -t UTF-8`,
      { cause },
    );
  }
}

/** Where the first character begins that does not decode: halves the range until it is left. */
function firstInvalidByte(bytes: Uint8Array): number {
  const decodes = (end: number, stream: boolean) => {
    try {
      new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(0, end), { stream });
      return true;
    } catch {
      return false;
    }
  };
  let valid = 0;
  let invalid = bytes.length + 1;
  while (invalid - valid > 1) {
    const middle = (valid + invalid) >> 1;
    if (decodes(middle, true)) valid = middle;
    else invalid = middle;
  }
  while (!decodes(valid, false)) valid--; // back to the start of an unfinished character
  return valid;
}

function unreadable(path: string, cause: unknown): TrainingError {
  const { code } = cause as NodeJS.ErrnoException;
  const reason = code === "ENOENT" ? "no such file or folder" : code === "EACCES" ? "permission denied" : code;
  return new TrainingError(`${path}: cannot be read (${reason})`, { cause });
}
