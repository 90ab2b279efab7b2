// GPUs in a page.

import { BackendError } from "../../errors.js";

/**
 * Where adapters come from.
 *
 * @throws BackendError where the browser has no WebGPU
 */
export async function openGpu(): Promise<GPU> {
  const { gpu } = navigator;
  if (gpu) return gpu;
  const reason = globalThis.isSecureContext
    ? "this browser has no WebGPU, or does not let this page use it"
    : "WebGPU needs a page that was loaded by https or from this machine";
  throw new BackendError(`webgpu backend: ${reason}`);
}
