// What clients make and ask for again by an id, states and responses: what is kept of each, and where.

import type { Snapshot } from "../../generation/snapshot.js";

export type ObjectKind = "state" | "response";

/** What is known of an object without reading it. */
export interface ObjectHead {
  readonly id: string;
  readonly kind: ObjectKind;
  /** Whose it is: what stands for an API key. */
  readonly owner: string;
  /** Milliseconds since 1970. */
  readonly created: number;
  /** Milliseconds since 1970 after which it is gone. */
  readonly expires?: number;
  /** What sets states after it apart from others. */
  readonly root: string;
  /** A name that its owner gave it. */
  readonly name?: string;
  /** Tokens that its state has read. */
  readonly tokens: number;
  /** What it takes. */
  readonly bytes: number;
}

/** Whether something that was kept elsewhere is the head of an object. */
export function isObjectHead(value: unknown): value is ObjectHead {
  if (typeof value !== "object" || value === null) return false;
  const { id, kind, owner, created, expires, root, name, tokens, bytes } = value as Partial<Record<string, unknown>>;
  const areTexts = [id, owner, root, name ?? ""].every((one) => typeof one === "string");
  const areNumbers = [created, expires ?? 0, tokens, bytes].every((one) => Number.isSafeInteger(one));
  return areTexts && areNumbers && (kind === "state" || kind === "response");
}

/** An object with all of it. */
export interface StoredObject {
  readonly head: ObjectHead;
  readonly snapshot: Snapshot;
  /** What its resource keeps beside the state: any JSON. */
  readonly content: unknown;
}

/** A place for objects. It knows nothing of owners and limits; `LocalShelf` does. */
export interface ObjectBacking {
  /** All objects that there are. */
  list(): Promise<readonly ObjectHead[]>;
  /** An object; undefined where there is none, or where it is damaged or of another model. */
  read(id: string): Promise<StoredObject | undefined>;
  /**
   * Takes an object, which can be read at once.
   *
   * @returns a promise that resolves when it is stored, and rejects when it cannot be
   */
  write(object: StoredObject): Promise<void>;
  remove(id: string): Promise<void>;
}

/** Objects in memory. */
export class MemoryObjects implements ObjectBacking {
  readonly #objects = new Map<string, StoredObject>();

  async list(): Promise<readonly ObjectHead[]> {
    return [...this.#objects.values()].map(({ head }) => head);
  }

  async read(id: string): Promise<StoredObject | undefined> {
    return this.#objects.get(id);
  }

  async write(object: StoredObject): Promise<void> {
    this.#objects.set(object.head.id, object);
  }

  async remove(id: string): Promise<void> {
    this.#objects.delete(id);
  }
}
