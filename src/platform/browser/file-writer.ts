// Pages cannot write files.

import { RwkvError } from "../../errors.js";
import type { FileAppender } from "../platform.js";

/** @throws RwkvError always */
export async function writeFileAtomically(path: string, _write: (file: FileAppender) => Promise<void>): Promise<void> {
  throw new RwkvError(`${path}: a page cannot write files`);
}
