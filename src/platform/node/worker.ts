// A compute thread in Node.

import { parentPort, workerData } from "node:worker_threads";
import { compute } from "../../backends/wasm/compute.js";
import type { WorkerStart } from "../../backends/wasm/worker-protocol.js";

await compute(workerData as WorkerStart, (message) => parentPort?.postMessage(message));
