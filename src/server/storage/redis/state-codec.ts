// States as values of a store: the format of kept-bytes.ts, in which the state is a saved one, or one with its values in float16.

import { fromHalfState, toHalfState } from "../../../generation/half-state.js";
import type { Model } from "../../../generation/model.js";
import type { Snapshot } from "../../../generation/snapshot.js";
import { encodeBeforeState, encodeKept } from "../kept-bytes.js";

/** How the values of states are kept: as they are, or rounded to half the bytes. */
export type StoredType = "f32" | "f16";

/** Encodes and decodes states of one model. */
export class StateCodec {
  readonly #model: Model;
  readonly #type: StoredType;

  constructor(model: Model, type: StoredType) {
    this.#model = model;
    this.#type = type;
  }

  /** A state with what belongs to it. One of which a value is too large for float16 is kept as it is. */
  encode(head: unknown, body: Uint8Array, snapshot: Snapshot): Buffer {
    if (this.#type === "f16") {
      const saved = snapshot.save();
      return Buffer.concat(encodeKept({ head, body, state: toHalfState(saved) ?? saved }));
    }
    // States are large, and memory that is new to the process costs more than what is written there: it is taken once.
    const before = Buffer.concat(encodeBeforeState({ head, body }, snapshot.savedBytes));
    const bytes = Buffer.allocUnsafeSlow(before.length + snapshot.savedBytes);
    bytes.set(before);
    snapshot.saveInto(bytes.subarray(before.length));
    return bytes;
  }

  /** @param state nobody else's bytes @returns undefined for bytes that are no state of this model, or damaged */
  decode(state: Uint8Array): Snapshot | undefined {
    try {
      return this.#model.snapshotOfOwn(fromHalfState(state));
    } catch {
      return undefined;
    }
  }
}
