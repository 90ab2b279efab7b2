// Where the page can compute: WebAssembly everywhere, WebGPU where the browser has an adapter. A further backend is a name here and in the type
// `Backend` of protocol.ts.

import { computed, signal } from "@preact/signals";
import type { Backend } from "./protocol.js";

/** The adapter's name; undefined where there is none, or nobody has looked. */
export const gpu = signal<string | undefined>(undefined);

export const backends = computed<readonly Backend[]>(() =>
  gpu.value === undefined ? ["wasm"] : ["auto", "webgpu", "wasm"],
);

let looked = false;

/** Looks for an adapter, once. */
export async function findGpu(): Promise<void> {
  if (looked) return;
  looked = true;
  try {
    const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" });
    if (!adapter) return;
    const { vendor, architecture, description, device } = adapter.info;
    gpu.value = description || [vendor, architecture || device].filter(Boolean).join(" ") || "GPU";
  } catch {
    // As if there were none.
  }
}
