// Files of clients in a folder, /v1/files: each belongs to the API key that made it.

import { randomBytes } from "node:crypto";
import { open } from "node:fs/promises";
import { Readable } from "node:stream";
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

/** All files of a folder. */
export class FileStore {
  readonly #records: JsonFolder<FileRecord>;
  readonly #maxBytes: number;

  /** @param maxBytes what all files may take */
  constructor(folder: string, maxBytes: number) {
    this.#records = new JsonFolder(folder, /^file-[0-9a-f]{32}$/);
    this.#maxBytes = maxBytes;
  }

  /** Makes the folder, and removes what is over. */
  async open(): Promise<void> {
    await this.#records.open();
    for (const { id, expires_at } of await this.#records.list()) {
      if (expires_at !== undefined && expires_at * 1000 <= Date.now()) await this.#remove(id);
    }
  }

  newId(): string {
    return `file-${randomBytes(16).toString("hex")}`;
  }

  /** @throws ApiError where there is no place for it */
  async checkPlace(bytes: number): Promise<void> {
    const taken = (await this.#records.list()).reduce((sum, record) => sum + record.bytes, 0);
    if (taken + bytes <= this.#maxBytes) return;
    const message = `there is no place for a further file: all of them may take ${this.#maxBytes} bytes; delete some`;
    throw new ApiError(403, message, { code: "file_limit_exceeded" });
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
    if (record?.owner === owner) return record;
    const message = `there is no file ${JSON.stringify(id.slice(0, 100))}`;
    throw new ApiError(404, message, { ...(param && { param }), code: "file_not_found" });
  }

  /** The owner's files, the newest first. */
  async list(owner: string): Promise<FileRecord[]> {
    const own = (await this.#records.list()).filter((record) => record.owner === owner);
    return own.sort((a, b) => b.created_at - a.created_at || (a.id < b.id ? -1 : 1));
  }

  /** The bytes of a file. @throws ApiError where the owner has none of this id */
  async stream(owner: string, id: string): Promise<ReadableStream<Uint8Array>> {
    await this.find(owner, id);
    const file = await open(this.path(id), "r");
    return Readable.toWeb(file.createReadStream()) as ReadableStream<Uint8Array>;
  }

  /** @throws ApiError where the owner has none of this id */
  async delete(owner: string, id: string): Promise<void> {
    await this.find(owner, id);
    await this.#remove(id);
  }

  #remove(id: string): Promise<void> {
    return this.#records.remove(id, "jsonl");
  }
}
