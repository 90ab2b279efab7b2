// What a page can compute with.

import type { Backend } from "../../backends/backend.js";

/** Pages have no native kernels. */
export const nativeBackend: Backend | undefined = undefined;

/** Threads to compute with, if nobody says; one where the page may not share memory. */
export function defaultThreads(): number {
  return globalThis.crossOriginIsolated ? Math.min(16, navigator.hardwareConcurrency) : 1;
}
