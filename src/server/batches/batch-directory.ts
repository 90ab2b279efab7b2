// A folder in which files and batches of clients are, so that they outlive the server: a batch that a server was in the middle of is gone on
// with by the next.

import { randomBytes } from "node:crypto";
import { access, readFile, realpath, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { OptionError, RwkvError } from "../../errors.js";
import { writeFileAtomically } from "../../platform/node/file-writer.js";
import { socketLock, type Unlock } from "../../platform/node/socket-lock.js";
import { ApiError } from "../errors.js";
import { type BatchObject, type BatchRecord, isFinal } from "./batch-record.js";
import { FileStore, keptSeconds } from "./file-store.js";
import { JsonFolder } from "./json-folder.js";
import { partialPath } from "./output-file.js";

/** Options of `openBatchDirectory`. */
export interface BatchDirectoryOptions {
  /** The bytes that files may take. Default 10 GiB. */
  readonly bytes?: number;
}

/** Files and batches of clients. */
export class BatchDirectory {
  readonly files: FileStore;
  readonly #path: string;
  readonly #records: JsonFolder<BatchRecord>;

  /** @internal */
  constructor(path: string, bytes: number) {
    this.#path = path;
    this.files = new FileStore(join(path, "files"), bytes);
    this.#records = new JsonFolder(join(path, "batches"), /^batch_[0-9a-f]{32}$/);
  }

  /** @internal */
  async open(): Promise<void> {
    await this.files.open();
    await this.#records.open();
    for (const record of await this.#records.list()) {
      if (isFinal(record) && (record.created_at + keptSeconds) * 1000 <= Date.now()) await this.#remove(record.id);
    }
  }

  newId(): string {
    return `batch_${randomBytes(16).toString("hex")}`;
  }

  /** A batch of an owner, or of any where none is named. */
  async read(id: string, owner?: string): Promise<BatchRecord | undefined> {
    const record = await this.#records.read(id);
    return owner === undefined || record?.owner === owner ? record : undefined;
  }

  /** All batches, the newest first. */
  async list(): Promise<BatchRecord[]> {
    const all = await this.#records.list();
    return all.sort((a, b) => b.created_at - a.created_at || (a.id < b.id ? -1 : 1));
  }

  /**
   * Makes place for a further batch of an owner: the oldest that have ended go, not their files.
   *
   * @param most batches of an owner
   * @throws ApiError where too many have not ended
   */
  async makePlace(owner: string, most: number): Promise<void> {
    const own = (await this.list()).filter((record) => record.owner === owner).reverse();
    const surplus = own.length + 1 - most;
    const over = own.filter(isFinal).slice(0, Math.max(0, surplus));
    if (over.length < surplus) {
      const message = `there is no place for a further batch: ${most} are kept for a key, and have not ended; cancel some`;
      throw new ApiError(403, message, { code: "batch_limit_exceeded" });
    }
    for (const { id } of over) await this.#remove(id);
  }

  /** Keeps a batch from others that would carry it out. @returns undefined while somebody does */
  async lock(id: string): Promise<Unlock | undefined> {
    return socketLock("batch-record", `${await realpath(this.#path)} ${id}`);
  }

  /**
   * Says by which queue the batches of this folder are carried out, undefined for none: all of its servers must have the same, since what keeps a
   * batch from others is the queue's.
   *
   * @throws RwkvError where it is another
   */
  async agreeOnQueue(queue: string | undefined): Promise<void> {
    const path = join(this.#path, "queue");
    const read = () =>
      readFile(path, "utf8").catch((error) => {
        if (error.code === "ENOENT") return undefined;
        throw error;
      });
    if (queue !== undefined) {
      await writeFile(path, queue, { flag: "wx" }).catch((error) => {
        if (error.code !== "EEXIST") throw error;
      });
      // Whoever made it may have been killed before it wrote.
      if ((await read()) === "") {
        await writeFileAtomically(path, (writer) => writer.append(new TextEncoder().encode(queue)));
      }
    }
    const agreed = await read();
    if (agreed === queue || (agreed === "" && queue === undefined)) return;
    const found = queue === undefined ? "this server has no queue" : `this server has that at ${queue}`;
    throw new RwkvError(
      `${this.#path}: its batches are carried out by the queue at ${agreed}, and ${found}; give all servers of the folder the same, or remove ` +
        `${path} once none of them uses that queue`,
    );
  }

  /** Whether a batch that has not ended needs a file. */
  async isRead(fileId: string): Promise<boolean> {
    return (await this.#records.list()).some((record) => record.input_file_id === fileId && !isFinal(record));
  }

  write(record: BatchRecord): Promise<void> {
    return this.#records.write(record);
  }

  /** Where the answers of a batch are until it has ended. */
  answersPath(id: string): string {
    return this.#records.path(id, "answers.jsonl");
  }

  /** Asks whoever carries out a batch to end it. A file of its own, since its record is written by another. */
  async askToCancel(id: string): Promise<void> {
    await writeFile(this.#records.path(id, "cancel"), "");
  }

  async isToBeCancelled(id: string): Promise<boolean> {
    return isThere(this.#records.path(id, "cancel"));
  }

  async #remove(id: string): Promise<void> {
    await this.tidy(id);
    await this.#records.remove(id);
  }

  /** Removes what is needed only until a batch has ended. */
  async tidy(id: string): Promise<void> {
    const answers = this.answersPath(id);
    for (const path of [
      answers,
      partialPath(answers),
      `${partialPath(answers)}.json`,
      this.#records.path(id, "cancel"),
    ])
      await rm(path, { force: true });
  }
}

/**
 * Opens a folder for files and batches of clients, and makes it where there is none.
 *
 * @throws RwkvError when it cannot be used; OptionError
 */
export async function openBatchDirectory(
  path: string,
  { bytes = 10 * 2 ** 30 }: BatchDirectoryOptions = {},
): Promise<BatchDirectory> {
  if (!(Number.isSafeInteger(bytes) && bytes > 0)) throw new OptionError("bytes", bytes, "a whole number above 0");
  if (typeof path !== "string" || path === "") throw new OptionError("path", path, "the path of a folder");
  const directory = new BatchDirectory(path, bytes);
  try {
    await directory.open();
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === undefined) throw cause;
    const { code } = cause as NodeJS.ErrnoException;
    throw new RwkvError(`${path}: cannot be used as a folder for batches (${code})`, { cause });
  }
  return directory;
}

/** A batch that was just asked for. */
export function newBatch(
  id: string,
  about: Pick<BatchRecord, "owner" | "files" | "endpoint" | "model" | "input_file_id" | "metadata">,
): BatchRecord {
  const created = Math.floor(Date.now() / 1000);
  const never: Omit<BatchObject, "id" | "endpoint" | "model" | "input_file_id" | "metadata"> = {
    object: "batch",
    errors: null,
    completion_window: "24h",
    status: "validating",
    output_file_id: null,
    error_file_id: null,
    created_at: created,
    in_progress_at: null,
    expires_at: created + 86_400,
    finalizing_at: null,
    completed_at: null,
    failed_at: null,
    expired_at: null,
    cancelling_at: null,
    cancelled_at: null,
    request_counts: { total: 0, completed: 0, failed: 0 },
  };
  return { id, ...never, ...about };
}

export async function isThere(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
