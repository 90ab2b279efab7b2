// Puts bytes that are here already into a store of models.

import type { ModelStore, StorableFile } from "../platform/platform.js";

/**
 * Stores a file.
 *
 * @param onProgress called with the bytes that are written
 * @returns its path
 * @throws RwkvError when there is no room for it; the signal's reason
 */
export async function storeBlob(
  store: ModelStore,
  file: StorableFile,
  blob: Blob,
  { signal, onProgress }: { signal?: AbortSignal | undefined; onProgress?: (done: number) => void } = {},
): Promise<string> {
  const begun = await store.begin(file, signal);
  if (typeof begun === "string") return begun;
  const { chunkSize } = begun;
  try {
    for (let chunk = 0; chunk * chunkSize < file.size; chunk++) {
      signal?.throwIfAborted();
      const part = blob.slice(chunk * chunkSize, (chunk + 1) * chunkSize);
      if (!begun.has(chunk)) await begun.write(chunk, new Uint8Array(await part.arrayBuffer()));
      onProgress?.(chunk * chunkSize + part.size);
    }
    return await begun.finish();
  } finally {
    await begun.close();
  }
}
