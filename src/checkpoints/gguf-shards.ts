// Models in several GGUF files: their names end in -00001-of-00003.gguf, and each says how many there are. One of them
// stands for all.

import { CheckpointError } from "../errors.js";
import type { Directory } from "./checkpoint.js";

const maxShards = 1000;

/** The names of all shards, the first first, if a name is that of one. */
export function ggufShardNames(name: string): string[] | undefined {
  const [, stem, digits, rest] = /^(.*)-\d{5}-of-(\d{5})(\.gguf(?:\?.*)?)$/i.exec(name) ?? [];
  const count = Number(digits);
  if (stem === undefined || count < 2 || count > maxShards) return undefined;
  return Array.from({ length: count }, (_, i) => `${stem}-${String(i + 1).padStart(5, "0")}-of-${digits}${rest}`);
}

/**
 * Compares what shards say of themselves with the files that are there.
 *
 * @throws CheckpointError for a file that is one of several, or at another's place
 */
export function checkShards(files: readonly (Directory & { readonly file: string })[]): void {
  files.forEach(({ file, metadata }, i) => {
    const told = (key: string, otherwise: number) => Number(Object.hasOwn(metadata, key) ? metadata[key] : otherwise);
    const count = told("split.count", files.length);
    const number = told("split.no", i);
    // A model in one file may say that it is one of 0 or 1.
    if ((count === files.length || (count < 2 && files.length === 1)) && number === i) return;
    throw new CheckpointError(
      file,
      `this is shard ${number + 1} of ${count}, found where shard ${i + 1} of ${files.length} is expected; open a file whose ` +
        "name ends in -00001-of-0000N.gguf, with the others beside it",
    );
  });
}
