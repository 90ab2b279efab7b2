// The answers of a batch as a file that grows line by line and has its name when it is complete. Until then it is beside that name, with a
// second file that says of what it is; a batch that ended, however it ended, goes on where that file does.

import { createHash, randomBytes } from "node:crypto";
import { type FileHandle, open, readFile, realpath, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { RwkvError } from "../../errors.js";
import { writeFileAtomically } from "../../platform/node/file-writer.js";
import { socketLock, type Unlock } from "../../platform/node/socket-lock.js";

/** What answers are of. A batch goes on only with the same. */
export interface BatchIdentity {
  readonly input: string;
  readonly model: string;
  readonly options: string;
}

/** What was begun is of another input, model, or set of options. */
export class AnotherBatchError extends RwkvError {
  override name = "AnotherBatchError";
}

/** What is kept of a batch until it is complete. */
interface BatchAbout extends BatchIdentity {
  readonly begun: string;
  answeredBy?: string;
}

const chunkBytes = 2 ** 18;
const newline = 0x0a;
/** The bytes of an input's beginning that it is known by, beside its size. */
const knownBytes = 2 ** 16;

/** What tells a file from others. @throws RwkvError when it cannot be read */
export async function inputIdentity(path: string): Promise<string> {
  const file = await open(path, "r").catch((cause) => {
    throw new RwkvError(`${path}: cannot be read (${cause.code})`, { cause });
  });
  try {
    const status = await file.stat();
    if (!status.isFile()) throw new RwkvError(`${path}: expected a file of lines of JSON`);
    const bytes = Buffer.alloc(Math.min(knownBytes, status.size));
    await file.read(bytes, 0, bytes.length, 0);
    return `${status.size} bytes, ${createHash("sha256").update(bytes).digest("hex").slice(0, 16)}`;
  } finally {
    await file.close();
  }
}

/** What is known of a batch while lines are answered. */
export interface BegunBatch {
  /** What tells it from any other, also where it is gone on with. */
  readonly begun: string;
  /** The model of its answers, where that was found out by them only. */
  readonly answeredBy: string | undefined;
  /** Keeps that model, before the first of its answers is. */
  noteAnsweredBy(model: string): Promise<void>;
}

/** A file of answers that grows. */
export class OutputFile implements BegunBatch {
  readonly #path: string;
  readonly #file: FileHandle;
  readonly #unlock: Unlock;
  readonly #about: BatchAbout;
  #end: number;
  /** How many lines there are already. */
  readonly lines: number;
  /** The last of them; empty where there is none. */
  readonly lastLine: string;

  private constructor(
    path: string,
    file: FileHandle,
    unlock: Unlock,
    about: BatchAbout,
    found: { end: number; lines: number; last: string },
  ) {
    this.#path = path;
    this.#file = file;
    this.#unlock = unlock;
    this.#end = found.end;
    this.#about = about;
    this.lines = found.lines;
    this.lastLine = found.last;
  }

  /**
   * Opens a file, or goes on with one that is not complete.
   *
   * @param input the file of the lines that are answered, which none that is written or removed may be
   * @returns undefined where it is complete already
   * @throws RwkvError where it cannot be written, is of another batch, or another process is writing it
   */
  static async open(path: string, identity: BatchIdentity, input: string): Promise<OutputFile | undefined> {
    const target = await lasting(path);
    await checkApart(path, target, input);
    const unlock = await socketLock("batch", target);
    if (!unlock) throw new RwkvError(`${path}: another process is writing it`);
    let file: FileHandle | undefined;
    try {
      const before = await readFile(aboutPath(target), "utf8").catch(absent);
      let about = before === undefined ? undefined : checkSame(path, before, identity);
      if (await stat(target).catch(absent)) {
        if (!about) throw new RwkvError(`${path}: there is such a file; give another name, or remove it`);
        // It was ended between the last two things it had to do.
        await rm(aboutPath(target), { force: true });
        await unlock();
        return undefined;
      }
      if (!about) {
        if (await stat(partialPath(target)).catch(absent)) {
          throw new RwkvError(
            `${path}: there is ${partialPath(target)}, and no ${aboutPath(target)} that says of which batch it is; give another name, or ` +
              "remove it",
          );
        }
        about = { ...identity, begun: randomBytes(12).toString("hex") };
        await writeAbout(target, about);
      }
      file = await open(partialPath(target), "a+");
      const found = await wholeLines(file);
      await file.truncate(found.end);
      return new OutputFile(target, file, unlock, about, found);
    } catch (cause) {
      await file?.close();
      await unlock();
      if ((cause as NodeJS.ErrnoException).syscall === undefined) throw cause;
      throw new RwkvError(`${path}: cannot be written (${(cause as NodeJS.ErrnoException).code})`, { cause });
    }
  }

  get begun(): string {
    return this.#about.begun;
  }

  get answeredBy(): string | undefined {
    return this.#about.answeredBy;
  }

  async noteAnsweredBy(model: string): Promise<void> {
    this.#about.answeredBy = model;
    await writeAbout(this.#path, this.#about);
  }

  /** Adds lines, each with its newline. @throws RwkvError where the disk takes no more */
  async append(text: string): Promise<void> {
    const bytes = Buffer.from(text);
    try {
      for (let done = 0; done < bytes.length; ) {
        done += (await this.#file.write(bytes, done, bytes.length - done)).bytesWritten;
      }
    } catch (cause) {
      throw new RwkvError(`${this.#path}: cannot be written (${(cause as NodeJS.ErrnoException).code})`, { cause });
    }
    this.#end += bytes.length;
  }

  /** Gives the file its name. */
  async complete(): Promise<void> {
    await this.#file.sync();
    await this.#file.close();
    await rename(partialPath(this.#path), this.#path);
    await rm(aboutPath(this.#path), { force: true });
    await this.#unlock();
  }

  /** Leaves the file as it is, to be gone on with. */
  async leave(): Promise<void> {
    await this.#file.sync();
    await this.#file.close();
    await this.#unlock();
  }
}

/** Where lines are until all are there. */
export function partialPath(path: string): string {
  return `${path}.partial`;
}

function aboutPath(path: string): string {
  return `${path}.partial.json`;
}

/** The path of a file that need not be there, whatever links lead to it. */
async function lasting(path: string): Promise<string> {
  const folder = await realpath(dirname(resolve(path))).catch((cause) => {
    throw new RwkvError(`${path}: cannot be written, its folder is not there`, { cause });
  });
  return join(folder, basename(path));
}

/** @throws RwkvError where the input is one of the files of the output, by whatever name */
async function checkApart(path: string, target: string, input: string): Promise<void> {
  const { dev, ino } = await stat(input, { bigint: true });
  for (const own of [target, partialPath(target), aboutPath(target)]) {
    const found = await stat(own, { bigint: true }).catch(() => undefined);
    if (found?.dev === dev && found.ino === ino) {
      throw new RwkvError(`${path}: ${own} is the input, and would be lost; give another name`);
    }
  }
}

async function writeAbout(target: string, about: BatchAbout): Promise<void> {
  const bytes = new TextEncoder().encode(`${JSON.stringify(about)}\n`);
  await writeFileAtomically(aboutPath(target), (writer) => writer.append(bytes));
}

/** @returns what was kept @throws RwkvError where it was begun as something else */
function checkSame(path: string, about: string, identity: BatchIdentity): BatchAbout {
  let before: Partial<BatchAbout> = {};
  try {
    before = JSON.parse(about) as typeof before;
  } catch {}
  for (const name of ["input", "model", "options"] as const) {
    if (before[name] === identity[name]) continue;
    throw new AnotherBatchError(
      `${path}: was begun with another ${name === "options" ? "set of options" : name}: expected ${identity[name]}, found ` +
        `${String(before[name])}; remove ${partialPath(path)} and ${aboutPath(path)} to begin anew`,
    );
  }
  const { begun, answeredBy } = before;
  return {
    ...identity,
    begun: typeof begun === "string" ? begun : "",
    ...(typeof answeredBy === "string" && { answeredBy }),
  };
}

/** The whole lines of a file: where they end, how many, and the last. */
async function wholeLines(file: FileHandle): Promise<{ end: number; lines: number; last: string }> {
  const chunk = Buffer.alloc(chunkBytes);
  let [at, end, before, lines] = [0, 0, 0, 0];
  for (;;) {
    const { bytesRead } = await file.read(chunk, 0, chunkBytes, at);
    if (bytesRead === 0) break;
    const bytes = chunk.subarray(0, bytesRead);
    for (let i = bytes.indexOf(newline); i >= 0; i = bytes.indexOf(newline, i + 1)) {
      lines++;
      before = end;
      end = at + i + 1;
    }
    at += bytesRead;
  }
  const last = Buffer.alloc(Math.max(0, end - before - 1));
  await file.read(last, 0, last.length, before);
  return { end, lines, last: last.toString("utf8") };
}

function absent(error: NodeJS.ErrnoException): undefined {
  if (error.code !== "ENOENT") throw error;
}
