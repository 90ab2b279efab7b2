// One run at a time in a folder.

import { realpath } from "node:fs/promises";
import { TrainingError } from "../errors.js";
import { socketLock, type Unlock } from "../platform/node/socket-lock.js";

export type { Unlock };

/** @param folder that exists @throws TrainingError while another call, here or in another process, trains in it */
export async function lockFolder(folder: string): Promise<Unlock> {
  const unlock = await socketLock("train", await realpath(folder));
  if (unlock) return unlock;
  throw new TrainingError(`${folder}: expected a folder that no run is using, found one in which a run is training`);
}
