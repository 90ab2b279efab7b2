// Loads a model while its file is downloaded. Weights are placed as they come, so what takes the time is the slower of the two and not both; but
// the sum of a file is known when all of it is there, and only then the model is anybody's.

import type { Checkpoint } from "./checkpoints/checkpoint.js";
import { openCheckpoint, openSource } from "./checkpoints/open-checkpoint.js";
import { CheckpointError } from "./errors.js";
import type { ComingFile } from "./hub/coming-file.js";

/** What is loaded. */
interface Disposable {
  dispose(): Promise<void>;
}

/**
 * Loads from a file that is being downloaded. Where its bytes turn out not to have been the file's, what was loaded is disposed of; where
 * they did not load, nothing is said of them before it is known that they are the file's. In both cases it is loaded anew when
 * the download has ended, as any file.
 *
 * @param load loads from a checkpoint, and closes it
 * @throws what ended the download, else as `load`
 */
export async function loadComing<Loaded extends Disposable>(
  file: ComingFile,
  load: (checkpoint: Checkpoint) => Promise<Loaded>,
): Promise<Loaded> {
  try {
    return await soundly(file, await load(await openSource(file.path, file.source)));
  } catch (error) {
    // What is wrong with options or this machine is so whatever else comes.
    if (!(error instanceof CheckpointError)) file.stop(error);
  }
  return load(await openCheckpoint(await file.whole));
}

/** What was loaded, if the bytes were the file's. */
async function soundly<Loaded extends Disposable>(file: ComingFile, loaded: Loaded): Promise<Loaded> {
  try {
    await file.whenSound();
    await file.whole; // others may have the file now
  } catch (error) {
    await loaded.dispose();
    throw error;
  }
  return loaded;
}
