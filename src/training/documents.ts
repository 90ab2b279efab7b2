// Reads training data: a file of text or of JSON records, or a folder of such files. The content of a file decides what it holds,
// so that JSON lines in a file with the name of a text are not learned as text. Any other file is refused before training starts.

import { constants } from "node:buffer";
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { TrainingError } from "../errors.js";
import { checkInterrupt } from "../interruptible.js";
import { type Document, documentOf, lastBoundary, partsOf } from "./document.js";
import { recordForms, recordText } from "./record-text.js";
import { textParts, unreadable } from "./text-file.js";

export interface ReadOptions {
  readonly signal?: AbortSignal | undefined;
  /** Called with a line about files of a folder that were left out. */
  readonly onNotice?: ((message: string) => void) | undefined;
}

const textEndings = /\.(txt|text|md|markdown)$/i;
const lineEndings = /\.(jsonl|ndjson)$/i;
const jsonEnding = /\.json$/i;
/** The most names of ignored files that are listed. */
const listedNames = 5;

/**
 * @param path a file of text (one document) or of records in JSON, by lines or as an array (a document each; record-text.ts has
 *   their forms); or a folder: all such files in it and in folders below, but hidden ones
 * @throws TrainingError for what cannot be read, is empty, or is neither UTF-8 text nor such records; InterruptedError
 */
export async function readDocuments(path: string, options: ReadOptions = {}): Promise<Document[]> {
  const status = await stat(path).catch((cause) => {
    throw unreadable(path, cause);
  });
  const documents = status.isDirectory() ? await readFolder(path, options) : await readFile(path, options);
  const filled = documents.filter(({ parts }) => parts.some((part) => /\S/.test(part)));
  if (filled.length === 0) throw new TrainingError(`${path}: expected text to train on, found none`);
  return filled;
}

async function readFolder(path: string, options: ReadOptions): Promise<Document[]> {
  const leftOut: string[] = [];
  const names = (await filesBelow(path, "", leftOut)).sort();
  const documents: Document[] = [];
  let found = 0;
  for (const name of names) {
    // Not every .json is data, as that of a tokenizer is not.
    const known = textEndings.test(name) || lineEndings.test(name) || jsonEnding.test(name);
    const read = known ? await documentsOf(join(path, name), options) : undefined;
    if (!read) {
      leftOut.push(name);
      continue;
    }
    found++;
    for (const document of read) documents.push(document);
  }
  if (found === 0) {
    throw new TrainingError(
      `${path}: expected .txt, .md, .jsonl or .json files to train on in this folder, found none`,
    );
  }
  if (leftOut.length > 0) {
    const listed = leftOut.slice(0, listedNames).join(", ");
    const more = leftOut.length > listedNames ? ` and ${leftOut.length - listedNames} more` : "";
    options.onNotice?.(`${path}: ignored files that are neither text nor records: ${listed}${more}`);
  }
  return documents;
}

/** Names of files relative to the root; hidden ones are passed over, as are links that lead nowhere or to folders. */
async function filesBelow(root: string, folder: string, leftOut: string[]): Promise<string[]> {
  const entries = await readdir(join(root, folder), { withFileTypes: true }).catch((cause) => {
    throw unreadable(join(root, folder), cause);
  });
  const names: string[] = [];
  for (const entry of entries) {
    if (entry.name.startsWith(".")) continue;
    const name = join(folder, entry.name);
    if (entry.isDirectory()) for (const below of await filesBelow(root, name, leftOut)) names.push(below);
    else if (entry.isFile()) names.push(name);
    else if (entry.isSymbolicLink() && (await stat(join(root, name)).catch(() => undefined))?.isFile())
      names.push(name);
    else leftOut.push(name);
  }
  return names;
}

type Chunks = AsyncGenerator<string, void, void>;

/** @throws TrainingError where the file is named as data and holds none */
async function readFile(path: string, options: ReadOptions): Promise<Document[]> {
  const documents = await documentsOf(path, options);
  if (documents) return documents;
  throw new TrainingError(`${path}: expected an array or lines of JSON, each ${recordForms}`);
}

/** The documents of a file; undefined for a .json that holds no records at all. */
async function documentsOf(path: string, { signal }: ReadOptions): Promise<Document[] | undefined> {
  const { size } = await stat(path).catch((cause) => {
    throw unreadable(path, cause);
  });
  const chunks = untilInterrupted(textParts(path), signal);
  try {
    const begun = await beginningOf(chunks);
    const all = () => following(begun, chunks);
    if (lineEndings.test(path)) return await linesOfJson(path, all());
    const named = jsonEnding.test(path);
    const first = parsed(firstLine(begun));
    if (isObject(first)) return named && !isRecord(first) ? undefined : await linesOfJson(path, all());
    if (!named && (!mayBeJson(begun) || size > constants.MAX_STRING_LENGTH)) {
      return [{ name: path, parts: await inParts(all()) }];
    }
    const text = await whole(path, all());
    const value = parsed(text);
    const records = Array.isArray(value) ? value : isObject(value) ? [value] : [];
    if (named && text.trim() === "") return [];
    if (named && !isRecord(records[0])) return undefined;
    if (!named && !(records.length > 0 && records.every(isObject))) return [documentOf(path, text)];
    return records.map((record, i) => documentOfRecord(`${path}, record ${i + 1}`, record));
  } finally {
    await chunks.return();
  }
}

async function* untilInterrupted(chunks: Chunks, signal: AbortSignal | undefined): Chunks {
  for await (const chunk of chunks) {
    checkInterrupt(signal);
    yield chunk;
  }
}

/** The first chunks: the first line that is not blank, where it could be JSON. */
async function beginningOf(chunks: Chunks): Promise<string[]> {
  const begun: string[] = [];
  for (let json = false, length = 0; length < constants.MAX_STRING_LENGTH / 2; ) {
    const { done, value } = await chunks.next();
    if (done) break;
    begun.push(value);
    length += value.length;
    const start = json ? value : value.trimStart();
    if (start === "") continue;
    if (!json && !mayBeJson([start])) break;
    json = true;
    if (start.includes("\n")) break;
  }
  return begun;
}

async function* following(begun: readonly string[], chunks: Chunks): Chunks {
  yield* begun;
  yield* chunks;
}

function firstLine(begun: readonly string[]): string {
  const text = begun.join("").trimStart();
  const end = text.indexOf("\n");
  return mayBeJson([text]) ? text.slice(0, end < 0 ? text.length : end) : "";
}

/** Whether text begins as an array or an object does. */
function mayBeJson(begun: readonly string[]): boolean {
  return /^\s*[[{]/.test(begun.join(""));
}

async function inParts(chunks: Chunks): Promise<string[]> {
  const parts: string[] = [];
  let rest = "";
  for await (const chunk of chunks) {
    const text = rest + chunk;
    const end = lastBoundary(text);
    parts.push(text.slice(0, end));
    rest = text.slice(end);
  }
  if (rest !== "") parts.push(rest);
  return parts;
}

async function whole(path: string, chunks: Chunks): Promise<string> {
  const parts: string[] = [];
  let length = 0;
  for await (const chunk of chunks) {
    length += chunk.length;
    if (length > constants.MAX_STRING_LENGTH) {
      throw new TrainingError(
        `${path}: expected at most ${constants.MAX_STRING_LENGTH} characters of JSON, found more: write it as lines of JSON`,
      );
    }
    parts.push(chunk);
  }
  return parts.join("");
}

async function linesOfJson(path: string, chunks: Chunks): Promise<Document[]> {
  const documents: Document[] = [];
  let number = 0;
  for await (const line of linesOf(path, chunks)) {
    number++;
    if (line.trim() === "") continue;
    const name = `${path}, line ${number}`;
    const value = parsed(line);
    if (value === undefined) {
      throw new TrainingError(`${name}: expected a JSON object, found ${JSON.stringify(line.slice(0, 40))}`);
    }
    documents.push(documentOfRecord(name, value));
  }
  return documents;
}

async function* linesOf(path: string, chunks: Chunks): Chunks {
  let begun: string[] = [];
  for await (const chunk of chunks) {
    const lines = chunk.split("\n");
    begun.push(lines[0] as string);
    if (lines.length === 1) continue;
    yield joined(path, begun);
    yield* lines.slice(1, -1);
    begun = [lines.at(-1) as string];
  }
  yield joined(path, begun);
}

function joined(path: string, pieces: readonly string[]): string {
  try {
    return pieces.join("");
  } catch (cause) {
    throw new TrainingError(`${path}: expected lines of at most ${constants.MAX_STRING_LENGTH} characters`, { cause });
  }
}

function documentOfRecord(name: string, value: unknown): Document {
  const result = recordText(value);
  if ("expected" in result) throw new TrainingError(`${name}: expected ${result.expected}`);
  const parts = result.parts.flatMap(({ text, learned }) => partsOf(text).map((part) => ({ part, learned })));
  const flags = parts.map(({ learned }) => learned);
  return { name, parts: parts.map(({ part }) => part), ...(flags.includes(false) && { learned: flags }) };
}

/** Parses JSON; undefined for text that is not JSON. */
function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isRecord(value: unknown): boolean {
  return "parts" in recordText(value);
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
