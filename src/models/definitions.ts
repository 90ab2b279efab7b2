// The RWKV versions that can be run.

import type { ModelDefinition } from "./model-definition.js";
import { rwkv4 } from "./rwkv4.js";
import { rwkv50, rwkv51, rwkv52 } from "./rwkv5.js";
import { rwkv6 } from "./rwkv6.js";
import { rwkv7 } from "./rwkv7.js";

/** Every version, the oldest first. */
export const definitions: readonly ModelDefinition[] = [rwkv4, rwkv50, rwkv51, rwkv52, rwkv6, rwkv7];

/** The version of new models, unless another is asked for. */
export const newModels: ModelDefinition = rwkv7;

/** The version of new models before there was a choice. */
export const firstVersion: string = rwkv4.version;

/** @throws RangeError for a version that cannot be run */
export function definitionOf(version: string, among: readonly ModelDefinition[] = definitions): ModelDefinition {
  const found = among.find((definition) => definition.version === version);
  if (!found) throw new RangeError(`RWKV-${version} cannot be run`);
  return found;
}
