// Brings a model onto the backend that its options ask for, or onto several.

import { defaultThreads, nativeBackend } from "#platform/backends";
import type { Backend, BackendName, OpenOptions, Runtime } from "./backends/backend.js";
import { mainType, matrixTypes } from "./backends/placement.js";
import type { WeightDType } from "./dtypes.js";
import { BackendError } from "./errors.js";
import type { BoundModel } from "./models/versions.js";
import { parseStrategy, type Strategy, strategyText } from "./strategy.js";

/**
 * All backends; a page has no native one. Modules of the others are loaded when they are first used, since loading
 * takes time.
 */
const backends: Readonly<Record<BackendName, () => Promise<Backend | undefined>>> = {
  native: async () => nativeBackend,
  wasm: async () => (await import("./backends/wasm/wasm.js")).wasmBackend,
  webgpu: async () => (await import("./backends/webgpu/webgpu.js")).webgpuBackend,
  reference: async () => (await import("./backends/reference/reference.js")).referenceBackend,
};

/** What is asked for, as `load` takes it. */
export interface RuntimeOptions {
  readonly dtype?: WeightDType | undefined;
  readonly backend?: BackendName | "auto" | undefined;
  readonly strategy?: string | undefined;
  readonly threads?: number | undefined;
  readonly skipZeros?: boolean | undefined;
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
  readonly onWarning?: ((message: string) => void) | undefined;
}

/** A runtime, and what a model tells of it. */
interface Opened {
  readonly runtime: Runtime;
  readonly backend: BackendName;
  readonly strategy?: string;
  readonly dtype: WeightDType;
}

/**
 * @param memoryLimit the most bytes that one memory of WebAssembly may have; by default 4 GiB
 * @throws BackendError, OptionError; CheckpointError when a tensor cannot be read
 */
export async function openRuntime(bound: BoundModel, options: RuntimeOptions, memoryLimit?: number): Promise<Opened> {
  const { dtype, strategy, onProgress, onWarning = console.warn } = options;
  const threads = options.threads ?? defaultThreads();
  const openOptions: OpenOptions = {
    threads,
    skipZeros: options.skipZeros ?? false,
    onNotice: onWarning,
    ...(dtype && { dtype }),
    ...(onProgress && { onProgress }),
    ...(memoryLimit !== undefined && { memoryLimit }),
  };
  if (strategy !== undefined) {
    return openParts(bound, parseStrategy(strategy, bound.size.layers), openOptions);
  }
  const openAs = async (name: BackendName): Promise<Opened> => {
    const runtime = await (await backendOf(name)).open(bound, openOptions);
    const { layers: parts } = runtime;
    return {
      runtime,
      backend: name,
      ...(parts && { strategy: strategyText(parts.map((layers) => ({ backend: name, layers }))) }),
      dtype: dtype ?? storedType(bound),
    };
  };
  if (options.backend === "auto") {
    const { hasGpu } = await import("./backends/webgpu/device.js");
    try {
      if (await hasGpu()) return await openAs("webgpu");
    } catch (error) {
      if (!(error instanceof BackendError)) throw error;
      onWarning(`${error.message}; using ${nativeBackend ? "native kernels" : "WebAssembly"}`);
    }
  } else if (options.backend) return openAs(options.backend);
  if (!nativeBackend) return openAs("wasm");
  try {
    return await openAs("native");
  } catch (error) {
    if (!(error instanceof BackendError)) throw error;
    onWarning(`${error.message}; using WebAssembly`);
    return openAs("wasm");
  }
}

/** @throws BackendError where it cannot run in a page */
async function backendOf(name: BackendName): Promise<Backend> {
  const backend = await backends[name]();
  if (!backend) throw new BackendError(`the ${name} backend cannot run in a page`);
  return backend;
}

/** Divides a model among backends. */
async function openParts(bound: BoundModel, strategy: Strategy, options: OpenOptions): Promise<Opened> {
  const { openSplit } = await import("./backends/split-runtime.js");
  const opening = strategy.map(async ({ backend, ...part }) => ({ ...part, backend: await backendOf(backend) }));
  const runtime = await openSplit(bound, await Promise.all(opening), options);
  const largest = strategy.reduce((most, part) => (part.layers > most.layers ? part : most));
  const last = strategy.at(-1) as Strategy[number];
  return {
    runtime,
    backend: last.backend,
    strategy: strategyText(strategy),
    dtype: largest.dtype ?? options.dtype ?? storedType(bound),
  };
}

/** The type that a model is computed with where none is asked for. */
function storedType({ graph, tensors }: BoundModel): WeightDType {
  return mainType(matrixTypes(graph, tensors, undefined));
}
