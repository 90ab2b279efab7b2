// Files of clients in a folder, /v1/files: each belongs to the API key that made it.

import { randomBytes } from "node:crypto";
import { type FileHandle, open, stat } from "node:fs/promises";
import { writeFileAtomically } from "../../platform/node/file-writer.js";
import type { FileAppender } from "../../platform/platform.js";
import { ApiError } from "../errors.js";
import { JsonFolder } from "./json-folder.js";

/** A file. Times are in seconds since 1970. */
export interface FileRecord {
  readonly id: string;
  readonly owner: string;
  readonly filename: string;
  readonly purpose: "batch" | "batch_output";
  readonly bytes: number;
  readonly created_at: number;
  /** Of what a batch has written: when it goes. */
  readonly expires_at?: number;
}

/** Seconds that what batches wrote is kept: 30 days, as OpenAI's API does. */
export const keptSeconds = 30 * 86_400;

const chunkBytes = 2 ** 16;

/** All files of a folder. */
export class FileStore {
  readonly #records: JsonFolder<FileRecord>;
  readonly #maxBytes: number;
  /** Uploads, one after the other, so that two do not find the same place. */
  #last: Promise<unknown> = Promise.resolve();

  /** @param maxBytes what all files may take */
  constructor(folder: string, maxBytes: number) {
    this.#records = new JsonFolder(folder, /^file-[0-9a-f]{32}$/);
    this.#maxBytes = maxBytes;
  }

  /** Makes the folder, and removes what is over. */
  async open(): Promise<void> {
    await this.#records.open();
    await this.#all();
  }

  newId(): string {
    return `file-${randomBytes(16).toString("hex")}`;
  }

  /**
   * Keeps a file of a client.
   *
   * @param most files of an owner, what batches wrote included
   * @throws ApiError where there is no place for it
   */
  add(record: Omit<FileRecord, "bytes">, bytes: Uint8Array, most: number): Promise<FileRecord> {
    const added = this.#last.then(async () => {
      const all = await this.#all();
      if (all.filter(({ owner }) => owner === record.owner).length >= most) throw full(`${most} are kept for a key`);
      const taken = all.reduce((sum, file) => sum + file.bytes, 0);
      if (taken + bytes.length > this.#maxBytes) throw full(`all of them may take ${this.#maxBytes} bytes`);
      return this.write(record, (file) => file.append(bytes));
    });
    this.#last = added.catch(() => {});
    return added;
  }

  /** Writes a file; one that is there under the same id is replaced. */
  async write(record: Omit<FileRecord, "bytes">, write: (file: FileAppender) => Promise<void>): Promise<FileRecord> {
    let bytes = 0;
    await writeFileAtomically(this.path(record.id), async (file) => {
      await write(file);
      bytes = file.position;
    });
    const whole = { ...record, bytes };
    await this.#records.write(whole);
    return whole;
  }

  /** Where the bytes of a file are. */
  path(id: string): string {
    return this.#records.path(id, "jsonl");
  }

  /** @throws ApiError where the owner has none of this id */
  async find(owner: string, id: string, param?: string): Promise<FileRecord> {
    const record = await this.#records.read(id);
    if (record?.owner === owner && !isOver(record)) return record;
    throw notFound(id, param);
  }

  /** The owner's files, the newest first. */
  async list(owner: string): Promise<FileRecord[]> {
    const own = (await this.#all()).filter((record) => record.owner === owner);
    return own.sort((a, b) => b.created_at - a.created_at || (a.id < b.id ? -1 : 1));
  }

  /** The bytes of a file, and how many. It is opened when they are read. @throws ApiError where the owner has none of this id */
  async content(
    owner: string,
    id: string,
  ): Promise<{ readonly bytes: number; readonly stream: ReadableStream<Uint8Array> }> {
    await this.find(owner, id);
    const status = await stat(this.path(id)).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") throw notFound(id);
      throw error;
    });
    return { bytes: status.size, stream: streamOf(this.path(id)) };
  }

  /** @throws ApiError where the owner has none of this id */
  async delete(owner: string, id: string): Promise<void> {
    await this.find(owner, id);
    await this.#remove(id);
  }

  /** All that are there; those that are over are removed. */
  async #all(): Promise<FileRecord[]> {
    const all = await this.#records.list();
    for (const record of all) if (isOver(record)) await this.#remove(record.id);
    return all.filter((record) => !isOver(record));
  }

  #remove(id: string): Promise<void> {
    return this.#records.remove(id, "jsonl");
  }
}

/** The bytes of a file, which is not open before the first of them is read, and after the last or when nobody wants more. */
function streamOf(path: string): ReadableStream<Uint8Array> {
  let file: FileHandle | undefined;
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        file ??= await open(path, "r");
        const chunk = new Uint8Array(chunkBytes);
        const { bytesRead } = await file.read(chunk, 0, chunkBytes).catch(async (error) => {
          await file?.close();
          throw error;
        });
        if (bytesRead > 0) return controller.enqueue(chunk.subarray(0, bytesRead));
        await file.close();
        controller.close();
      },
      async cancel() {
        await file?.close();
      },
    },
    { highWaterMark: 0 },
  );
}

function isOver({ expires_at }: FileRecord): boolean {
  return expires_at !== undefined && expires_at * 1000 <= Date.now();
}

function full(why: string): ApiError {
  return new ApiError(403, `there is no place for a further file: ${why}; delete some`, {
    code: "file_limit_exceeded",
  });
}

function notFound(id: string, param?: string): ApiError {
  const message = `there is no file ${JSON.stringify(id.slice(0, 100))}`;
  return new ApiError(404, message, { ...(param && { param }), code: "file_not_found" });
}
