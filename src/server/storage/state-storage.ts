// What outlives a server, or is shared by several: states of prompts, and what clients made. A folder on a disk is one
// (state-directory.ts), a Redis another (redis/state-store.ts).

import type { Registry } from "prom-client";
import type { Shelf, ShelfLimits } from "../shelf.js";
import type { SecondLevel } from "../state-cache.js";
import type { ObjectKind } from "./stored-objects.js";

/** A place for states beyond the memory of a server. */
export interface StateStorage {
  /** Where the cache looks for what it does not have. */
  readonly prefixes: SecondLevel;
  /** The bytes that it takes, as far as it is known. */
  readonly bytes: number;
  /** Where states or responses of clients are. @param limits how many of them */
  shelf(kind: ObjectKind, limits: ShelfLimits): Shelf;
  /** Adds metrics of its own. */
  addMetrics?(registry: Registry): void;
  /** Resolves when all that was taken is stored. */
  close(): Promise<void>;
}
