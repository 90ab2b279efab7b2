// What clients made, in a Redis that several servers share: what one of them made, all have, and the limits are those of all together.

import { createHash } from "node:crypto";
import { ApiError } from "../../errors.js";
import {
  full,
  headOf,
  isObjectId,
  isOver,
  type NewObject,
  newObjectId,
  notFound,
  notStored,
  type Shelf,
  type ShelfLimits,
} from "../../shelf.js";
import { decodeHead, decodeKept, headBytes } from "../kept-bytes.js";
import { isObjectHead, type ObjectHead, type ObjectKind, type StoredObject } from "../stored-objects.js";
import {
  answerOf,
  answersOf,
  isBytesOrNothing,
  isNumber,
  isOfAnotherType,
  isReply,
  isText,
  isTextOrNothing,
  listOf,
  resultsOf,
  type Shape,
} from "./answers.js";
import type { RedisLink } from "./link.js";
import type { Scripted } from "./scripts.js";
import type { StateCodec } from "./state-codec.js";
import type { Asked, StoreMetrics } from "./store-metrics.js";

/** Milliseconds that an object lives which was written and never taken into the index. */
const unfinishedMilliseconds = 600_000;

/** What objects are kept with. */
export interface SharedShelfOptions {
  readonly link: RedisLink;
  readonly metrics: StoreMetrics;
  readonly codec: StateCodec;
  /** What all keys of this model begin with. */
  readonly namespace: string;
  /** Bytes of a state, about. */
  readonly stateBytes: number;
}

/** Objects of one kind. */
export class SharedShelf implements Shelf {
  readonly isShared = true;
  readonly #kind: ObjectKind;
  readonly #limits: ShelfLimits;
  readonly #options: SharedShelfOptions;
  readonly #prefix: string;
  #statistics = { count: 0, bytes: 0 };

  constructor(kind: ObjectKind, limits: ShelfLimits, options: SharedShelfOptions) {
    this.#kind = kind;
    this.#limits = limits;
    this.#options = options;
    this.#prefix = `${options.namespace}${kind}:`;
  }

  /** As Redis said last. */
  get statistics(): { readonly count: number; readonly bytes: number } {
    return this.#statistics;
  }

  newId(): string {
    return newObjectId(this.#kind);
  }

  async add(
    object: NewObject,
    id: string = this.newId(),
  ): Promise<{ readonly head: ObjectHead; readonly stored: Promise<void> }> {
    const head = headOf(this.#kind, id, object);
    const stored = this.#store(head, object);
    stored.catch(() => {}); // whoever wants to know waits for it
    return { head, stored };
  }

  async open(owner: string, id: string, param?: string): Promise<StoredObject> {
    if (!isObjectId(id)) throw notFound(this.#kind, id, param);
    const { link, codec, metrics, stateBytes } = this.#options;
    const key = this.#valueKey(owner, id);
    const object = await this.#measure<StoredObject | undefined>(async () => {
      const bytes = await this.#orNothing(key, () =>
        link.ask("read", link.deadline(stateBytes), (client) => client.getBuffer(key), isBytesOrNothing),
      );
      if (bytes === undefined) return { outcome: "damaged", value: undefined };
      if (bytes === null) return { outcome: "absent", value: undefined };
      const kept = decodeKept(bytes);
      const head = this.#headOf(kept?.head, owner, id);
      const snapshot = kept && codec.decode(kept.state);
      const content = kept && parsed(kept.body);
      if (!head || !snapshot || content === undefined) {
        this.#removeDamaged(key);
        return { outcome: "damaged", value: undefined };
      }
      metrics.readBytes.inc(bytes.length);
      return { outcome: "found", value: { head, snapshot, content } };
    });
    if (!object || isOver(object.head)) throw notFound(this.#kind, id, param);
    return object;
  }

  async list(owner: string): Promise<ObjectHead[]> {
    const { link, metrics } = this.#options;
    return this.#measure(async () => {
      const index = `${this.#prefix}own:${ownerKey(owner)}`;
      const members = await this.#orNothing(index, () =>
        link.ask("read", link.deadline(), (client) => client.zrange(index, "0", "-1"), listOf(isText)),
      );
      if (!members) return { outcome: "damaged", value: [] };
      const ids = members.flatMap((member) => /:(\w+)\|/.exec(member)?.[1] ?? []);
      const results = await link.ask(
        "read",
        link.deadline(ids.length * headBytes),
        async (client) => {
          const pipeline = client.pipeline();
          for (const id of ids) {
            pipeline.strlen(this.#valueKey(owner, id));
            pipeline.getrangeBuffer(this.#valueKey(owner, id), 0, headBytes - 1);
          }
          return ids.length > 0 ? answersOf(pipeline) : [];
        },
        resultsOf(ids.length * 2),
      );
      const heads = ids.flatMap((id, i) => {
        const size = answerOf(results[i * 2], isNumber);
        const bytes = answerOf(results[i * 2 + 1], isBytesOrNothing);
        if (size === 0) return []; // Redis itself let it go
        const head = size && bytes ? this.#headOf(decodeHead(bytes, size), owner, id) : undefined;
        if (!head) metrics.count("object", "damaged");
        return head && !isOver(head) ? [head] : [];
      });
      return { outcome: "done", value: heads };
    });
  }

  async delete(owner: string, id: string): Promise<void> {
    const { head } = await this.open(owner, id);
    await this.#measure(async () => {
      const { link } = this.#options;
      const answer = await link.ask(
        "write",
        link.deadline(),
        (client) =>
          (client as unknown as Scripted).removeObject(...this.#indexKeys(), this.#prefix, this.#memberOf(head)),
        isScriptAnswer,
      );
      this.#note(answer);
      return { outcome: "done", value: undefined };
    });
  }

  /** @throws ApiError where there is no place, or it cannot be stored */
  async #store(head: ObjectHead, { snapshot, content }: NewObject): Promise<void> {
    const { link, codec, metrics } = this.#options;
    const { count, bytes, whenFull } = this.#limits;
    const value = codec.encode(head, new TextEncoder().encode(JSON.stringify(content ?? null)), snapshot);
    const key = this.#valueKey(head.owner, head.id);
    const life = head.expires === undefined ? 0 : Math.max(1, head.expires - Date.now());
    const index = [this.#memberOf(head), head.created, life, count, bytes, Number(whenFull === "drop oldest")];
    let answer: ScriptAnswer;
    try {
      answer = await metrics.measure("object", async () => {
        await link.ask(
          "write",
          link.deadline(value.length),
          (client) => client.set(key, value, "PX", unfinishedMilliseconds),
          isTextOrNothing,
        );
        const script = await link.ask(
          "write",
          link.deadline(),
          (client) => (client as unknown as Scripted).addObject(...this.#indexKeys(), this.#prefix, ...index),
          isScriptAnswer,
        );
        return { outcome: "done", value: script };
      });
    } catch (error) {
      throw notStored(this.#kind, error);
    }
    metrics.writtenBytes.inc(value.length);
    const outcome = this.#note(answer);
    if (outcome === "count") throw full(this.#kind, `${count} of them are kept for a key`);
    if (outcome === "bytes") throw full(this.#kind, `all of them may take ${bytes} bytes`);
  }

  /** @throws ApiError where Redis does not answer, or with an error */
  async #measure<T>(ask: () => Promise<Asked<T>>): Promise<T> {
    try {
      const value = await this.#options.metrics.measure<T>("object", ask);
      this.#options.link.confirm();
      return value;
    } catch (cause) {
      if (!isReply(cause) && (cause as Error).name !== "OutOfReachError") throw cause;
      const message = `the ${this.#kind} cannot be looked for: the store of states is out of reach`;
      throw new ApiError(503, message, { code: "storage_unavailable", retryAfter: 1, cause });
    }
  }

  /** @returns undefined where something else stands at a key, which is removed. @throws what `ask` throws otherwise */
  async #orNothing<T>(key: string, ask: () => Promise<T>): Promise<T | undefined> {
    try {
      return await ask();
    } catch (error) {
      if (!isOfAnotherType(error)) throw error;
      this.#removeDamaged(key);
      return undefined;
    }
  }

  #removeDamaged(key: string): void {
    const { link } = this.#options;
    void link.ask("write", link.deadline(), (client) => client.unlink(key), isNumber).catch(() => {}); // it is found again
  }

  /** What a value says of itself; undefined where that is not what its key says. */
  #headOf(head: unknown, owner: string, id: string): ObjectHead | undefined {
    return isObjectHead(head) && head.kind === this.#kind && head.owner === owner && head.id === id ? head : undefined;
  }

  #note([outcome, count, bytes]: ScriptAnswer): string {
    this.#statistics = { count, bytes: Number(bytes) };
    return outcome;
  }

  #indexKeys(): [string, string] {
    return [`${this.#prefix}all`, `${this.#prefix}total`];
  }

  #memberOf({ owner, id, bytes }: ObjectHead): string {
    return `${ownerKey(owner)}:${id}|${bytes}`;
  }

  /** A key has its owner in it: what is another's is not even read. */
  #valueKey(owner: string, id: string): string {
    return `${this.#prefix}object:${ownerKey(owner)}:${id}`;
  }
}

/** What scripts answer: how it went, the number of all objects, and the sum of their bytes. */
type ScriptAnswer = [outcome: string, count: number, bytes: string];

const isScriptAnswer: Shape<ScriptAnswer> = (answer): answer is ScriptAnswer => {
  if (!Array.isArray(answer) || answer.length !== 3) return false;
  const [outcome, count, bytes] = answer as unknown[];
  return isText(outcome) && isNumber(count) && isText(bytes);
};

/** What stands for an owner in a key, which must tell nothing of the API key. */
function ownerKey(owner: string): string {
  return createHash("sha256").update(owner).digest("hex").slice(0, 32);
}

function parsed(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return undefined;
  }
}
