// What a machine with Node can compute with.

import type { Backend } from "../../backends/backend.js";
import { nativeBackend as native } from "../../backends/native/native.js";
import { availableProcessors } from "./limits.js";

/** Kernels of the machine's own instructions. */
export const nativeBackend: Backend | undefined = native;

/** Threads to compute with, if nobody says. */
export function defaultThreads(): number {
  return Math.min(16, availableProcessors());
}
