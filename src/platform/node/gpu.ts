// GPUs in Node: of a runtime that has WebGPU itself, or of the package `webgpu` (Dawn), where it is installed.

import { BackendError } from "../../errors.js";

/**
 * Where adapters come from.
 *
 * @throws BackendError that says what to install
 */
export async function openGpu(): Promise<GPU> {
  const own = globalThis.navigator?.gpu;
  if (own) return own;
  let dawn: typeof import("webgpu");
  try {
    dawn = await import("webgpu");
  } catch (cause) {
    const isMissing = (cause as NodeJS.ErrnoException).code === "ERR_MODULE_NOT_FOUND";
    const reason = isMissing ? "Node has no WebGPU of its own" : `the package webgpu cannot be loaded (${cause})`;
    throw new BackendError(`webgpu backend: ${reason}; npm install webgpu`, { cause });
  }
  // Options of Dawn, such as "backend=vulkan" or "adapter=NVIDIA", separated by spaces.
  const options = (process.env["RWKV_WEBGPU"] ?? "").split(" ").filter((option) => option !== "");
  return dawn.create(options);
}
