// load(): from a path to a model that is ready - checkpoint, version, backend, tokenizer.

import { defaultThreads, nativeBackend } from "#platform/backends";
import { embeddedModel } from "#platform/files";
import type { Backend, BackendName, Runtime } from "./backends/backend.js";
import { mainType, matrixTypes } from "./backends/placement.js";
import type { Checkpoint } from "./checkpoints/checkpoint.js";
import { type CheckpointInput, isPath } from "./checkpoints/checkpoint-input.js";
import { openCheckpoint } from "./checkpoints/open-checkpoint.js";
import { elementCount, type WeightDType, weightDTypes } from "./dtypes.js";
import { BackendError, OptionError, TokenizerError } from "./errors.js";
import { checkFunction } from "./generation/generation-options.js";
import { Model, type ModelLimits } from "./generation/model.js";
import { LoadingProgress } from "./loading-progress.js";
import { fingerprintOf } from "./models/fingerprint.js";
import { type BoundModel, bindModel } from "./models/versions.js";
import { openTokenizer, tokenizerFor, tokenizerOf } from "./tokenizers/open-tokenizer.js";
import type { Tokenizer } from "./tokenizers/tokenizer.js";

/** Options of `load`. */
export interface LoadOptions {
  /** A tokenizer file, a folder with one, "bytes", or a tokenizer. By default the one beside the checkpoint. */
  tokenizer?: string | Tokenizer;
  /** Type of the weight matrices: f32, f16, bf16, or blocks of 8 or 4 bits (docs/quantization.md). By default as stored. */
  dtype?: WeightDType;
  /** By default native where it can be compiled, else wasm. */
  backend?: BackendName;
  /** Compute threads, a whole number >= 1. By default one for each core, at most 16. */
  threads?: number;
  /** Most states and waiting requests that the model takes at once. */
  limits?: ModelLimits;
  /** Called as weights are read, with bytes done and bytes in all; of a file on a web server also as it is downloaded. */
  onProgress?: (done: number, total: number) => void;
  /** Called with a line that the user should see, such as why the slower backend is used. By default console.warn. */
  onWarning?: (message: string) => void;
}

/** All backends; a page has no native one. Those that are seldom used are read when they are: modules take time to load. */
const backends: Readonly<Record<BackendName, () => Promise<Backend | undefined>>> = {
  native: async () => nativeBackend,
  wasm: async () => (await import("./backends/wasm/wasm.js")).wasmBackend,
  reference: async () => (await import("./backends/reference/reference.js")).referenceBackend,
};
const maxThreads = 256;

/**
 * Loads a model.
 *
 * @param input the path of a .pth or .safetensors file, an index of shards, or a folder with one (in a page a URL; a folder's
 *   ends in a slash), also as a URL object; or the file itself, as a Blob, a buffer or a view of one, which must stay as it is
 *   until the model is loaded; the embedded model by default
 * @throws CheckpointError, TokenizerError, BackendError, OptionError
 */
export async function load(input: CheckpointInput = embeddedModel, givenOptions: LoadOptions = {}): Promise<Model> {
  const started = performance.now();
  checkOptions(givenOptions);
  const options = { ...givenOptions }; // what happens to them while the file is opened does not matter
  if (!options.backend || options.backend === "native") nativeBackend?.prepare?.();
  const progress = options.onProgress && new LoadingProgress(options.onProgress);
  const checkpoint = await openCheckpoint(input, (file, done, total) => progress?.downloaded(file, done, total));
  const ownOptions = progress ? { ...options, onProgress: progress.placed.bind(progress) } : options;
  return loadCheckpoint(checkpoint, ownOptions, started, isPath(input));
}

/**
 * Loads a model from an open checkpoint, and closes that.
 *
 * @param started when loading began, on the clock of `performance.now()`
 * @param hasFolder whether a tokenizer may lie beside it
 */
export async function loadCheckpoint(
  checkpoint: Checkpoint,
  options: LoadOptions = {},
  started: number = performance.now(),
  hasFolder: boolean = true,
): Promise<Model> {
  const path = checkpoint.name;
  try {
    const bound = bindModel(checkpoint);
    const { vocabulary } = bound.size;
    const opening = openRuntime(bound, options);
    opening.catch(() => {}); // awaited below; it may fail before that
    const [tokenizer, fingerprint] = await Promise.all([
      findTokenizer(hasFolder ? path : undefined, vocabulary, options.tokenizer),
      fingerprintOf(bound),
    ]).catch(async (error) => {
      // The backend is being opened meanwhile; its threads and memory must not outlive the failure.
      await opening.then(({ runtime }) => runtime.dispose()).catch(() => {});
      throw error;
    });
    const { runtime, backend } = await opening;
    return new Model({
      info: {
        source: path,
        version: bound.version,
        ...bound.size,
        parameters: bound.graph.weights.reduce((sum, weight) => sum + elementCount(weight.shape), 0),
        dtype: options.dtype ?? mainType(matrixTypes(bound.graph, bound.tensors, undefined)),
        backend,
        threads: runtime.threads,
        loadMilliseconds: performance.now() - started,
      },
      runtime,
      tokenizer,
      fingerprint,
      limits: { ...options.limits },
    });
  } finally {
    await checkpoint.close();
  }
}

async function openRuntime(
  bound: BoundModel,
  options: LoadOptions,
): Promise<{ runtime: Runtime; backend: BackendName }> {
  const { dtype, onProgress, onWarning = console.warn } = options;
  const threads = options.threads ?? defaultThreads();
  const openOptions = { threads, onNotice: onWarning, ...(dtype && { dtype }), ...(onProgress && { onProgress }) };
  const openAs = async (name: BackendName) => {
    const backend = await backends[name]();
    if (!backend) throw new BackendError(`the ${name} backend cannot run in a page`);
    return { runtime: await backend.open(bound, openOptions), backend: name };
  };
  if (options.backend) return openAs(options.backend);
  if (!nativeBackend) return openAs("wasm");
  try {
    return await openAs("native");
  } catch (error) {
    if (!(error instanceof BackendError)) throw error;
    onWarning(`${error.message}; using WebAssembly`);
    return openAs("wasm");
  }
}

/**
 * The tokenizer, or a function that says why there is none: tokens can be run without one.
 *
 * @throws TokenizerError when the one that was named cannot be opened, or does not belong to the model by its size
 */
async function findTokenizer(
  path: string | undefined,
  vocabulary: number,
  wanted: string | Tokenizer | undefined,
): Promise<() => Tokenizer> {
  let tokenizer: Tokenizer;
  if (wanted === undefined) {
    try {
      tokenizer = path === undefined ? tokenizerOf(vocabulary) : await tokenizerFor(path, vocabulary);
    } catch (error) {
      return () => {
        throw error;
      };
    }
  } else if (typeof wanted === "string") tokenizer = await openTokenizer(wanted, vocabulary);
  else tokenizer = wanted;
  // One that was made by the caller may leave tokens unused, as one for notes of music does; it cannot have more than there are.
  if (tokenizer.vocabularySize > vocabulary) {
    throw new TokenizerError(
      `the tokenizer has ${tokenizer.vocabularySize} tokens, the model ${path ?? ""} only ${vocabulary}: they do not belong together`,
    );
  }
  return () => tokenizer;
}

function checkOptions(options: LoadOptions): void {
  if (typeof options !== "object" || options === null) throw new OptionError("options", options, "an object");
  const { dtype, backend, threads, tokenizer, onProgress, onWarning, limits = {} } = options;
  checkFunction("onProgress", onProgress);
  checkFunction("onWarning", onWarning);
  const hasTokens = typeof tokenizer === "object" && tokenizer !== null && "vocabularySize" in tokenizer;
  if (tokenizer !== undefined && typeof tokenizer !== "string" && !hasTokens) {
    throw new OptionError("tokenizer", tokenizer, 'a path, "bytes", or a tokenizer');
  }
  if (typeof limits !== "object" || limits === null) throw new OptionError("limits", limits, "an object");
  for (const name of ["states", "waiting"] as const) {
    const limit = limits[name];
    if (limit !== undefined && !(Number.isSafeInteger(limit) && limit >= 1)) {
      throw new OptionError(`limits.${name}`, limit, "a whole number >= 1");
    }
  }
  if (dtype !== undefined && !weightDTypes.includes(dtype))
    throw new OptionError("dtype", dtype, weightDTypes.join(", "));
  if (backend !== undefined && !Object.hasOwn(backends, backend)) {
    throw new OptionError("backend", backend, Object.keys(backends).join(", "));
  }
  if (threads !== undefined && !(Number.isInteger(threads) && threads >= 1 && threads <= maxThreads)) {
    throw new OptionError("threads", threads, `a whole number from 1 to ${maxThreads}`);
  }
}
