// States and responses of clients as files in a folder. An object can be read from the moment it is taken, and is written behind.

import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Model } from "../../generation/model.js";
import { removeAbandonedParts } from "../../platform/node/part-files.js";
import { readKeptFile, readKeptHead, writeKeptFile } from "./kept-file.js";
import type { ObjectBacking, ObjectHead, StoredObject } from "./stored-objects.js";

/** What a file says of itself: an object's head, and whose model's it is. */
interface FileHead {
  readonly identity: string;
  readonly object: ObjectHead;
}

/** A folder of objects, of this model and perhaps of others. */
export class ObjectDirectory implements ObjectBacking {
  readonly #folder: string;
  readonly #model: Model;
  readonly #identity: string;
  readonly #makePlace: (bytes: number) => Promise<void>;
  /** What is not written yet. */
  readonly #waiting = new Map<string, StoredObject>();
  readonly #heads = new Map<string, ObjectHead>();
  #bytes = 0;
  /** Writes and removals, one after the other. */
  #last: Promise<unknown> = Promise.resolve();

  /** @param makePlace is asked for place before a file is written */
  constructor(folder: string, model: Model, identity: string, makePlace: (bytes: number) => Promise<void>) {
    this.#folder = folder;
    this.#model = model;
    this.#identity = identity;
    this.#makePlace = makePlace;
  }

  /** Bytes of all files, those of other models included. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Finds out which files there are, and removes those that are damaged, over, or left behind by a process that was killed. */
  async open(): Promise<void> {
    await removeAbandonedParts(this.#folder);
    for (const name of await readdir(this.#folder)) {
      const path = join(this.#folder, name);
      if (!namePattern.test(name)) continue;
      const head = (await readKeptHead(path)) as Partial<FileHead> | undefined;
      const object = head?.object;
      const isOver = object?.expires !== undefined && object.expires <= Date.now();
      if (!object || isOver || name !== nameOf(object.id, head?.identity ?? "")) {
        await rm(path, { force: true });
        continue;
      }
      this.#bytes += object.bytes;
      if (head.identity === this.#identity) this.#heads.set(object.id, object);
    }
  }

  async list(): Promise<readonly ObjectHead[]> {
    return [...this.#heads.values()];
  }

  async read(id: string): Promise<StoredObject | undefined> {
    const waiting = this.#waiting.get(id);
    if (waiting) return waiting;
    const file = await readKeptFile(this.#path(id));
    if (!file && !this.#heads.has(id)) return undefined;
    try {
      const head = file?.head as Partial<FileHead> | undefined;
      if (!file || head?.identity !== this.#identity || head.object?.id !== id) throw new Error("not an object");
      const content: unknown = JSON.parse(new TextDecoder().decode(file.body));
      return { head: head.object, snapshot: this.#model.snapshot(file.state), content };
    } catch {
      await this.remove(id);
      return undefined;
    }
  }

  write(object: StoredObject): Promise<void> {
    const { head, snapshot, content } = object;
    const { id } = head;
    this.#waiting.set(id, object);
    return this.#next(async () => {
      if (this.#waiting.get(id) !== object) return; // removed meanwhile
      try {
        await this.#makePlace(head.bytes);
        const body = new TextEncoder().encode(JSON.stringify(content ?? null));
        const file: FileHead = { identity: this.#identity, object: head };
        await writeKeptFile(this.#path(id), { head: file, body, state: snapshot.save() });
        this.#heads.set(id, head);
        this.#bytes += head.bytes;
      } finally {
        this.#waiting.delete(id);
      }
    });
  }

  remove(id: string): Promise<void> {
    this.#waiting.delete(id);
    return this.#next(async () => {
      const head = this.#heads.get(id);
      if (this.#heads.delete(id)) this.#bytes -= head?.bytes ?? 0;
      await rm(this.#path(id), { force: true });
    });
  }

  /** Resolves when all that was taken is written. */
  async close(): Promise<void> {
    await this.#last;
  }

  #next(work: () => Promise<void>): Promise<void> {
    const done = this.#last.then(work);
    this.#last = done.catch(() => {});
    return done;
  }

  #path(id: string): string {
    return join(this.#folder, nameOf(id, this.#identity));
  }
}

const namePattern = /^[0-9a-f]{16}-(state|resp)_[0-9a-f]{32}\.kept$/;

function nameOf(id: string, identity: string): string {
  return `${identity.slice(0, 16)}-${id}.kept`;
}
