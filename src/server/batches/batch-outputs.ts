// The files that a batch leaves: of its answers, and of what could not be answered.

import { type BatchDirectory, isThere } from "./batch-directory.js";
import { readBatchLine } from "./batch-lines.js";
import type { BatchRecord } from "./batch-record.js";
import { keptSeconds } from "./file-store.js";
import { readLines } from "./lines.js";
import { partialPath } from "./output-file.js";

/** What was written. */
export interface BatchOutputs {
  /** The ids of the files; null for one that would be empty. */
  readonly output: string | null;
  readonly errors: string | null;
  /** Lines in each. */
  readonly completed: number;
  readonly failed: number;
}

/**
 * Writes both files, in the order of the input.
 *
 * @param isExpired whether the requests that were not carried out have a line that says so
 * @param maxBytes of a line of the input
 */
export async function writeOutputs(
  directory: BatchDirectory,
  record: BatchRecord,
  isExpired: boolean,
  maxBytes: number,
): Promise<BatchOutputs> {
  const { files } = directory;
  const { id, owner } = record;
  const counts = { completed: 0, failed: 0 };
  const answered = new Set<number>();
  const created_at = Math.floor(Date.now() / 1000);
  const about = { owner, purpose: "batch_output" as const, created_at, expires_at: created_at + keptSeconds };
  const write = async (fileId: string, filename: string, wantsErrors: boolean) => {
    const written = await files.write({ id: fileId, filename, ...about }, async (file) => {
      for await (const { text, number, isError } of answersOf(directory, id)) {
        answered.add(number);
        if (isError === wantsErrors) {
          counts[isError ? "failed" : "completed"]++;
          await file.append(new TextEncoder().encode(`${text}\n`));
        }
      }
      if (wantsErrors && isExpired) {
        for await (const line of unanswered(files.path(record.input_file_id), answered, maxBytes)) {
          counts.failed++;
          await file.append(new TextEncoder().encode(line));
        }
      }
    });
    if (written.bytes > 0) return fileId;
    await files.delete(owner, fileId);
    return null;
  };
  const output = await write(record.files.output, `${id}_output.jsonl`, false);
  const errors = await write(record.files.errors, `${id}_error.jsonl`, true);
  return { output, errors, completed: counts.completed, failed: counts.failed };
}

/** The answers that are there, with the numbers of their lines: of a batch that was ended some may be missing between others. */
async function* answersOf(
  directory: BatchDirectory,
  id: string,
): AsyncGenerator<{ text: string; number: number; isError: boolean }, void, void> {
  const whole = directory.answersPath(id);
  const path = (await isThere(whole)) ? whole : partialPath(whole);
  if (!(await isThere(path))) return;
  for await (const { text = "" } of readLines(path, { maxBytes: Number.POSITIVE_INFINITY })) {
    let answer: { id: string; response: { status_code: number } | null; error: unknown };
    try {
      answer = JSON.parse(text) as typeof answer;
    } catch {
      return; // the last one, of which the disk took a part
    }
    const { id: line, response, error } = answer;
    yield {
      text,
      number: Number(line.slice("batch_req_".length)),
      isError: error !== null || response === null || response.status_code >= 400,
    };
  }
}

/** Lines for those that were not carried out in their time. */
async function* unanswered(
  input: string,
  answered: ReadonlySet<number>,
  maxBytes: number,
): AsyncGenerator<string, void, void> {
  for await (const line of readLines(input, { maxBytes })) {
    if (answered.has(line.number)) continue;
    const { id } = readBatchLine(line, maxBytes);
    const error = { code: "batch_expired", message: "the request was not carried out in its time" };
    yield `${JSON.stringify({ id: `batch_req_${line.number}`, custom_id: id ?? null, response: null, error })}\n`;
  }
}
