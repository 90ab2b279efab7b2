// A batch in a file, from the first line to the last, or from where it was left.

import { stat } from "node:fs/promises";
import { RwkvError } from "../../errors.js";
import { type AnsweredLine, type LineRunnerOptions, runLines } from "./line-runner.js";
import { type Line, readLines } from "./lines.js";
import { type BatchIdentity, type BegunBatch, inputIdentity, OutputFile } from "./output-file.js";

/** What a batch is, and how it is carried out. */
export interface BatchOptions extends Pick<LineRunnerOptions, "maxBytes" | "seed" | "maxTokens"> {
  readonly input: string;
  readonly output: string;
  /** What is told from another by it: a batch does not go on with another model. */
  readonly model: string;
  /** The answers to lines, in their order, some at once. Those that it gave are in the output when it is asked for more. */
  readonly answers: (lines: AsyncIterable<Line>, batch: BegunBatch) => AsyncIterable<readonly AnsweredLine[]>;
  /** Aborted when no further lines are to be begun. Those in progress are carried out. */
  readonly stop?: AbortSignal;
  readonly onProgress?: (progress: BatchProgress) => void;
}

/** How far a batch is. */
export interface BatchProgress {
  /** Lines that are answered, those of earlier runs included. */
  readonly lines: number;
  /** Lines that were answered before. */
  readonly before: number;
  /** Those of this run that could not be carried out. */
  readonly failed: number;
  readonly promptTokens: number;
  readonly generatedTokens: number;
  /** Bytes of the input that are behind, and all. */
  readonly bytes: number;
  readonly allBytes: number;
  /** The same at the beginning of this run. */
  readonly bytesBefore: number;
}

/** Results that wait for those before them, for each line that is carried out. */
const aheadOfEach = 16;

/** What answers lines in this process, so many of them at once; a line with `n` counts as so many. */
export function answersHere(atOnce: number, options: LineRunnerOptions): BatchOptions["answers"] {
  return async function* (lines) {
    const answers = runLines(lines, options, { atOnce, ahead: atOnce * aheadOfEach });
    for await (const answer of answers) yield [answer];
  };
}

/**
 * Carries out a batch. Each line of the input that is not empty has one line of the output, in their order. One that cannot be carried out
 * has a line that says so.
 *
 * @returns how it went, and whether all is done; it is not where it was stopped
 * @throws RwkvError where a file cannot be used
 */
export async function runBatch(options: BatchOptions): Promise<BatchProgress & { readonly isComplete: boolean }> {
  const { input, output, model, maxBytes, seed, maxTokens, stop } = options;
  const identity: BatchIdentity = {
    input: await inputIdentity(input),
    model,
    options: JSON.stringify({ seed, maxTokens }),
  };
  const { size: allBytes } = await stat(input);
  const none = { before: 0, failed: 0, promptTokens: 0, generatedTokens: 0 };
  const file = await OutputFile.open(output, identity, input);
  if (!file) return { ...none, lines: 0, bytes: allBytes, allBytes, bytesBefore: allBytes, isComplete: true };
  let isComplete = false;
  try {
    const lines = readLines(input, { maxBytes });
    const skipped = await skip(lines, file, input);
    let progress: BatchProgress = {
      ...none,
      lines: file.lines,
      before: file.lines,
      bytes: skipped,
      allBytes,
      bytesBefore: skipped,
    };
    options.onProgress?.(progress);
    for await (const answers of options.answers(untilStopped(lines, stop), file)) {
      await file.append(answers.map(({ text }) => `${text}\n`).join(""));
      progress = answers.reduce(after, progress);
      options.onProgress?.(progress);
    }
    isComplete = !stop?.aborted;
    if (isComplete) await file.complete();
    return { ...progress, isComplete };
  } finally {
    if (!isComplete) await file.leave();
  }
}

function after(
  progress: BatchProgress,
  { line, hasFailed, promptTokens, generatedTokens }: AnsweredLine,
): BatchProgress {
  return {
    ...progress,
    lines: progress.lines + 1,
    failed: progress.failed + Number(hasFailed),
    promptTokens: progress.promptTokens + promptTokens,
    generatedTokens: progress.generatedTokens + generatedTokens,
    bytes: line.end,
  };
}

/**
 * Leaves out the lines that have answers.
 *
 * @returns the byte at which the first one begins that has none
 * @throws RwkvError where the answers are not those of these lines
 */
async function skip(lines: AsyncGenerator<Line>, file: OutputFile, input: string): Promise<number> {
  let last: Line | undefined;
  for (let i = 0; i < file.lines; i++) {
    const { value, done } = await lines.next();
    if (done) throw new RwkvError(`${input}: has ${i} lines, and ${file.lines} answers are there already`);
    last = value;
  }
  if (!last) return 0;
  const { id, line } = parsed(file.lastLine);
  if (id !== `batch_req_${last.number}` && line !== last.number) {
    throw new RwkvError(`${input}: answer ${file.lines} is not of line ${last.number}`);
  }
  return last.end;
}

/** What an answer says of its line. A message of JSON.parse would quote the answer. */
function parsed(text: string): { readonly id?: string; readonly line?: number } {
  try {
    return JSON.parse(text) as { id?: string; line?: number };
  } catch {
    return {};
  }
}

async function* untilStopped(
  lines: AsyncIterable<Line>,
  stop: AbortSignal | undefined,
): AsyncGenerator<Line, void, void> {
  if (stop?.aborted) return;
  for await (const line of lines) {
    yield line;
    if (stop?.aborted) return;
  }
}
