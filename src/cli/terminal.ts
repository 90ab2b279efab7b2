// What commands share of the terminal: a progress bar on stderr, notes on stderr, text from stdin or a file.

import { fstatSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { SingleBar } from "cli-progress";
import { RwkvError } from "../errors.js";

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
  if (!process.stderr.isTTY) return { update() {}, stop() {} };
  const started = performance.now();
  const bar = new SingleBar({
    format: `${label} {bar} {percentage}%`,
    barsize: 30,
    stream: process.stderr,
    clearOnComplete: true,
    hideCursor: true,
  });
  let shown = false;
  return {
    update(done, total) {
      if (!shown && (done >= total || performance.now() - started < 300)) return;
      if (!shown) bar.start(total, done);
      shown = true;
      bar.update(done);
    },
    stop() {
      if (shown) bar.stop();
      shown = false;
    },
  };
}

/** Whether text is piped or redirected into stdin. */
export function stdinHasText(): boolean {
  try {
    const status = fstatSync(0);
    return status.isFIFO() || status.isFile();
  } catch {
    return false;
  }
}

/** All of stdin as text. */
export async function readStdin(): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString("utf8");
}

/** @throws RwkvError when the file cannot be read */
export async function readTextFile(path: string): Promise<string> {
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(await readBytes(path));
}

/** @throws RwkvError when the file cannot be read */
export async function readBytes(path: string): Promise<Uint8Array> {
  try {
    return await readFile(path);
  } catch (cause) {
    throw new RwkvError(`${path}: cannot be read (${(cause as NodeJS.ErrnoException).code})`, { cause });
  }
}

/** A number of bytes for people: 3.9 MB. */
export function formatBytes(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}
