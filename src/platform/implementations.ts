// Holds both platforms to the interfaces of platform.ts: an export that is missing in one, or has another type, or is in no
// interface, is a compile error here. There are only types in this file, nothing that runs.

import type { Backend } from "../backends/backend.js";
import type { Checksum, ComputeWorkers, Files, FileWriter, Gpus, ModelStores, TrainingKernels } from "./platform.js";

/** `backends`: what can be computed with. It is apart from the others because backends are built on them. */
interface Backends {
  /** Kernels of the machine's own instructions; undefined where there are none. */
  readonly nativeBackend: Backend | undefined;
  /** Threads to compute with, if nobody says. */
  defaultThreads(): number;
}

/** A module with the exports of the interface, and no others. */
type Implementation<
  Interface,
  Module extends Interface & Record<Exclude<keyof Module, keyof Interface>, never>,
> = Module;

export type Implementations = [
  Implementation<Files, typeof import("./node/files.js")>,
  Implementation<Files, typeof import("./browser/files.js")>,
  Implementation<FileWriter, typeof import("./node/file-writer.js")>,
  Implementation<FileWriter, typeof import("./browser/file-writer.js")>,
  Implementation<Checksum, typeof import("./node/checksum.js")>,
  Implementation<Checksum, typeof import("./browser/checksum.js")>,
  Implementation<ComputeWorkers, typeof import("./node/compute-workers.js")>,
  Implementation<ComputeWorkers, typeof import("./browser/compute-workers.js")>,
  Implementation<TrainingKernels, typeof import("./node/training-kernels.js")>,
  Implementation<TrainingKernels, typeof import("./browser/training-kernels.js")>,
  Implementation<ModelStores, typeof import("./node/model-store.js")>,
  Implementation<ModelStores, typeof import("./browser/model-store.js")>,
  Implementation<Gpus, typeof import("./node/gpu.js")>,
  Implementation<Gpus, typeof import("./browser/gpu.js")>,
  Implementation<Backends, typeof import("./node/backends.js")>,
  Implementation<Backends, typeof import("./browser/backends.js")>,
];
