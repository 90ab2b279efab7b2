// What outlives a server, or is shared by several: states of prompts, and what clients made. A folder on a disk is one
// (state-directory.ts).

import type { SecondLevel } from "../state-cache.js";
import type { ObjectBacking } from "./stored-objects.js";

/** A place for states beyond the memory of a server. */
export interface StateStorage {
  /** Where the cache looks for what it does not have. */
  readonly prefixes: SecondLevel;
  /** Where states and responses of clients are. */
  readonly objects: ObjectBacking;
  /** The bytes that all of it may take. */
  readonly maxBytes: number;
  /** The bytes that it takes. */
  readonly bytes: number;
  /** Resolves when all that was taken is stored. */
  close(): Promise<void>;
}
