// Keeps what clients made, each object for its owner alone, within limits of number, memory and time.

import { randomBytes } from "node:crypto";
import type { Snapshot } from "../generation/snapshot.js";
import { ApiError } from "./errors.js";
import type { ObjectBacking, ObjectHead, ObjectKind, StoredObject } from "./storage/stored-objects.js";

/** Objects that may wait to be stored, in memory; whoever makes further ones waits. */
const maxWrites = 32;

/** How much is kept. */
export interface ShelfLimits {
  /** Objects of one owner. */
  readonly count: number;
  /** Bytes of all owners' objects. */
  readonly bytes: number;
  /** What happens where there is no place: the new one is refused, or the oldest go. */
  readonly whenFull: "refuse" | "drop oldest";
}

/** What is to be kept. */
export interface NewObject {
  readonly owner: string;
  readonly snapshot: Snapshot;
  readonly content: unknown;
  readonly name?: string | undefined;
  /** Seconds after which it is gone. */
  readonly seconds?: number | undefined;
  /** What names the state; by default the new id. */
  readonly root?: string | undefined;
}

/** Objects of one kind. */
export interface Shelf {
  /** Whether other servers have them, too: whoever is told of an object may ask one of those for it. */
  readonly isShared: boolean;
  readonly statistics: { readonly count: number; readonly bytes: number };
  /** A new id. */
  newId(): string;
  /**
   * Keeps an object.
   *
   * @returns its head, and a promise that resolves when it is stored for good; where it cannot be, it is not kept
   * @throws ApiError where there is no place
   */
  add(object: NewObject, id?: string): Promise<{ readonly head: ObjectHead; readonly stored: Promise<void> }>;
  /** @throws ApiError where the owner has none of this id */
  open(owner: string, id: string, param?: string): Promise<StoredObject>;
  /** The owner's objects, the oldest first. */
  list(owner: string): Promise<ObjectHead[]>;
  /** @throws ApiError where the owner has none of this id */
  delete(owner: string, id: string): Promise<void>;
}

/** Objects that this server alone knows of, in memory or in a folder. */
export class LocalShelf implements Shelf {
  readonly isShared = false;
  readonly #kind: ObjectKind;
  readonly #backing: ObjectBacking;
  readonly #limits: ShelfLimits;
  /** By id, the oldest first. */
  readonly #heads = new Map<string, ObjectHead>();
  #bytes = 0;
  /** Objects that are not stored yet. */
  #writes = 0;
  #loaded: Promise<void> | undefined;

  constructor(kind: ObjectKind, backing: ObjectBacking, limits: ShelfLimits) {
    this.#kind = kind;
    this.#backing = backing;
    this.#limits = limits;
  }

  get statistics(): { readonly count: number; readonly bytes: number } {
    return { count: this.#heads.size, bytes: this.#bytes };
  }

  newId(): string {
    return newObjectId(this.#kind);
  }

  async add(object: NewObject, id: string = this.newId()): Promise<{ head: ObjectHead; stored: Promise<void> }> {
    await this.#load();
    const { snapshot, content } = object;
    const head = headOf(this.#kind, id, object);
    this.#makePlace(head);
    this.#insert(head);
    this.#writes++;
    const stored = this.#backing
      .write({ head, snapshot, content })
      .catch((cause) => {
        this.#forget(head);
        throw notStored(this.#kind, cause);
      })
      .finally(() => {
        this.#writes--;
      });
    stored.catch(() => {}); // whoever wants to know waits for it
    if (this.#writes > maxWrites) await stored;
    return { head, stored };
  }

  async open(owner: string, id: string, param?: string): Promise<StoredObject> {
    await this.#load();
    if (!isObjectId(id)) throw notFound(this.#kind, id, param);
    // Another server may have made it since.
    const object = await this.#backing.read(id);
    const head = object?.head;
    const known = this.#heads.get(id);
    if (!object && known) this.#forget(known);
    if (!object || !head || head.kind !== this.#kind || head.owner !== owner || isOver(head)) {
      throw notFound(this.#kind, id, param);
    }
    if (!known) this.#insert(head);
    return object;
  }

  async list(owner: string): Promise<ObjectHead[]> {
    await this.#load();
    this.#sweep();
    return [...this.#heads.values()].filter((head) => head.owner === owner);
  }

  async delete(owner: string, id: string): Promise<void> {
    const { head } = await this.open(owner, id);
    this.#forget(head);
    await this.#backing.remove(id);
  }

  #load(): Promise<void> {
    this.#loaded ??= this.#backing.list().then((heads) => {
      const own = heads.filter(({ kind }) => kind === this.#kind).sort((a, b) => a.created - b.created);
      for (const head of own) this.#insert(head);
    });
    return this.#loaded;
  }

  #makePlace(head: ObjectHead): void {
    this.#sweep();
    const { count, bytes, whenFull } = this.#limits;
    const own = [...this.#heads.values()].filter(({ owner }) => owner === head.owner);
    if (whenFull === "refuse") {
      if (own.length >= count) throw full(this.#kind, `${count} of them are kept for a key`);
      if (this.#bytes + head.bytes > bytes) throw full(this.#kind, `all of them may take ${bytes} bytes`);
      return;
    }
    if (head.bytes > bytes)
      throw full(this.#kind, `all of them may take ${bytes} bytes, and this one takes ${head.bytes}`);
    const surplus = own.slice(0, Math.max(0, own.length + 1 - count));
    for (const one of surplus) this.#drop(one);
    for (const one of this.#heads.values()) {
      if (this.#bytes + head.bytes <= bytes) break;
      this.#drop(one);
    }
  }

  /** Removes what is over. */
  #sweep(): void {
    for (const head of this.#heads.values()) if (isOver(head)) this.#drop(head);
  }

  #drop(head: ObjectHead): void {
    this.#forget(head);
    void this.#backing.remove(head.id).catch(() => {});
  }

  #insert(head: ObjectHead): void {
    this.#heads.set(head.id, head);
    this.#bytes += head.bytes;
  }

  #forget({ id, bytes }: ObjectHead): void {
    if (this.#heads.delete(id)) this.#bytes -= bytes;
  }
}

/** A new id, which nobody guesses. */
export function newObjectId(kind: ObjectKind): string {
  return `${kind === "state" ? "state" : "resp"}_${randomBytes(16).toString("hex")}`;
}

/** Whether a text looks like an id; anything else is not looked for. */
export function isObjectId(id: string): boolean {
  return /^(state|resp)_[0-9a-f]{32}$/.test(id);
}

/** What is to be known of a new object. */
export function headOf(kind: ObjectKind, id: string, object: NewObject): ObjectHead {
  const { owner, snapshot, content, name, seconds, root = id } = object;
  const created = Date.now();
  return {
    id,
    kind,
    owner,
    created,
    ...(seconds !== undefined && { expires: created + seconds * 1000 }),
    root,
    ...(name !== undefined && { name }),
    tokens: snapshot.position,
    bytes: snapshot.bytes + Buffer.byteLength(JSON.stringify(content ?? null)),
  };
}

export function isOver({ expires }: ObjectHead): boolean {
  return expires !== undefined && expires <= Date.now();
}

/** The error where there is no place. */
export function full(kind: ObjectKind, why: string): ApiError {
  const message = `there is no place for a further ${kind}: ${why}; delete some`;
  return new ApiError(403, message, { code: `${kind}_limit_exceeded` });
}

/** The error for an id of which the owner has nothing. */
export function notFound(kind: ObjectKind, id: string, param?: string): ApiError {
  const message = `there is no ${kind} ${JSON.stringify(id.slice(0, 100))}`;
  return new ApiError(404, message, { ...(param && { param }), code: `${kind}_not_found` });
}

/** The error for what cannot be stored. */
export function notStored(kind: ObjectKind, cause: unknown): ApiError {
  return new ApiError(503, `the ${kind} cannot be stored`, { code: "storage_failed", cause });
}
