// Terminal functions that commands share: a progress bar and notes on stderr, text from stdin or a file.

import { fstatSync, type Stats } from "node:fs";
import { RwkvError } from "../errors.js";
import { decodeText } from "../text-files.js";
import { bar, StatusLine } from "./status-line.js";

/** Prints a line to stderr. */
export function note(line: string): void {
  process.stderr.write(`${line}\n`);
}

/** A progress bar; shown only where stderr is a terminal, and only once the work has taken a moment. */
export interface ProgressBar {
  update(done: number, total: number): void;
  stop(): void;
}

/** @param label what is being done, such as "loading" */
export function progressBar(label: string): ProgressBar {
  const started = performance.now();
  const line = new StatusLine();
  return {
    update(done, total) {
      const share = total > 0 ? done / total : 1;
      if (performance.now() - started < 300) return;
      line.draw(`${label} ${bar(share, 30)} ${Math.floor(share * 100)}%`);
    },
    stop: () => line.clear(),
  };
}

/** Whether text is piped or redirected into stdin. */
export function stdinHasText(): boolean {
  const status = stdinStatus();
  return status !== undefined && (status.isFIFO() || status.isFile());
}

function stdinStatus(): Stats | undefined {
  try {
    return fstatSync(0);
  } catch {
    return undefined;
  }
}

/** All of stdin as text. @throws RwkvError when it cannot be read or is not UTF-8 */
export async function readStdin(): Promise<string> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of stdinChunks()) chunks.push(chunk);
  return decodeText(Buffer.concat(chunks), (reason) => new RwkvError(`standard input: ${reason}`));
}

/** The lines of stdin as they come. @throws RwkvError when it cannot be read or is not UTF-8 */
export async function* stdinLines(): AsyncGenerator<string, void, void> {
  let count = 0;
  const decode = (line: Uint8Array) => {
    count++;
    return decodeText(line, (reason) => new RwkvError(`standard input, line ${count}: ${reason}`)).replace(/\r$/, "");
  };
  let begun: Uint8Array[] = [];
  for await (const chunk of stdinChunks()) {
    let at = 0;
    for (let end = chunk.indexOf(0x0a); end >= 0; end = chunk.indexOf(0x0a, at)) {
      yield decode(Buffer.concat([...begun, chunk.subarray(at, end)]));
      begun = [];
      at = end + 1;
    }
    begun.push(chunk.subarray(at));
  }
  const last = Buffer.concat(begun);
  if (last.length > 0) yield decode(last);
}

async function* stdinChunks(): AsyncGenerator<Uint8Array, void, void> {
  if (stdinStatus()?.isDirectory()) throw new RwkvError("standard input: cannot be read, it is a folder");
  try {
    for await (const chunk of process.stdin) yield chunk as Buffer;
  } catch (cause) {
    throw new RwkvError(`standard input: cannot be read (${(cause as NodeJS.ErrnoException).code})`, { cause });
  }
}
