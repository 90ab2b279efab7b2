// A compute thread in a page.

import { compute } from "../../backends/wasm/compute.js";
import type { WorkerStart } from "../../backends/wasm/worker-protocol.js";

globalThis.addEventListener("message", ({ data }) => compute(data as WorkerStart, (message) => postMessage(message)), {
  once: true,
});
