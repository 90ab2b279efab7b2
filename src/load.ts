// load(): opens a checkpoint, recognises its version, opens a backend and the tokenizer, and makes a model of them.

import { nativeBackend } from "#platform/backends";
import { embeddedModel } from "#platform/files";
import { type BackendName, backendNames } from "./backends/backend.js";
import { describeFitted } from "./backends/placement.js";
import type { Checkpoint } from "./checkpoints/checkpoint.js";
import { type CheckpointInput, isPath } from "./checkpoints/checkpoint-input.js";
import { openCheckpoint } from "./checkpoints/open-checkpoint.js";
import { elementCount, type WeightDType, weightDTypes } from "./dtypes.js";
import { OptionError, TokenizerError } from "./errors.js";
import { checkFunction, checkSignal } from "./generation/generation-options.js";
import { Model, type ModelLimits } from "./generation/model.js";
import type { ComingFile } from "./hub/coming-file.js";
import { mayBeName } from "./hub/model-name.js";
import { loadComing } from "./load-coming.js";
import { LoadingProgress } from "./loading-progress.js";
import type { AppliedAdapter } from "./models/apply-adapters.js";
import { fingerprintOf } from "./models/fingerprint.js";
import { type LoraSource, loraSources } from "./models/lora-source.js";
import { type BoundModel, bindModel, type RecognisedModel } from "./models/versions.js";
import { openRuntime } from "./open-runtime.js";
import { parseStrategy } from "./strategy.js";
import { openTokenizer, tokenizerFor } from "./tokenizers/open-tokenizer.js";
import type { Tokenizer } from "./tokenizers/tokenizer.js";

/** Options of `load`. */
export interface LoadOptions {
  /**
   * The path of a tokenizer file or of a folder with one, "world" or "bytes", or a tokenizer. By default the one in the checkpoint
   * or beside it, or the World vocabulary in the package where the model's has its size.
   */
  tokenizer?: string | Tokenizer;
  /**
   * The type of the weight matrices in memory: f32, f16, bf16, or quantized to 8 or 4 bits (docs/quantization.md). By
   * default as stored.
   */
  dtype?: WeightDType;
  /**
   * Adapters that are put onto the model: files of RWKV-PEFT (.pth), folders of Hugging Face's PEFT, adapters of our own
   * training (docs/adapters.md).
   */
  lora?: CheckpointInput | LoraSource | readonly (CheckpointInput | LoraSource)[];
  /**
   * Where to compute. By default native where it can run, else wasm; "auto" takes webgpu before these where there is a GPU that holds the
   * model.
   */
  backend?: BackendName | "auto";
  /**
   * Several backends in place of one, the first layers on the first, such as "webgpu *10 -> native" where a GPU has memory for ten layers. A
   * type of weights after a backend, as in "webgpu q4 *10 -> native bf16", holds for its layers.
   */
  strategy?: string;
  /** The number of compute threads, from 1 to 256. By default one for each core, at most 16. */
  threads?: number;
  /**
   * Whether weights of channel mixing whose inputs are zero are left unread in decoding (native, wasm). It changes no result, and takes
   * a second form of these matrices in memory: docs/performance.md has what is gained and what it costs. By default false.
   */
  skipZeros?: boolean;
  /**
   * Whether a model that is given by name is kept, and taken from there the next time: in Node in the cache of Python's huggingface_hub, which
   * is the default; in a page, also one by URL, in the origin's private file system. docs/models-by-name.md has the names.
   */
  cache?: boolean;
  /** The hub that names are of. By default that of the variable HF_ENDPOINT, or https://huggingface.co. */
  endpoint?: string;
  /** Ends the download of a model by name, and with it the loading; the next one goes on from there. */
  signal?: AbortSignal;
  /** The most states and waiting requests that the model may have at once. */
  limits?: ModelLimits;
  /** Called as weights are read, and as a file is downloaded, with the number of bytes done and their total number. */
  onProgress?: (done: number, total: number) => void;
  /** Called with a line that the user should see, such as why a slower backend is used. By default console.warn. */
  onWarning?: (message: string) => void;
}

const maxThreads = 256;

/**
 * Loads a model.
 *
 * @param input the path or URL of a .pth, .safetensors, .gguf or .bin file, of an index of shards, or of a folder with one (the
 *   URL of a folder ends in a slash); or the name of a model, such as "rwkv7-g1-0.4b" or "hf:owner/repo/file", which is downloaded
 *   once, where no path is spelled so; or the file itself as a Blob, a buffer or a view of one, which must not change until the
 *   model is loaded. By default the embedded model
 * @throws CheckpointError when the file cannot be read or is not a model that can be run; TokenizerError when the
 *   tokenizer that was named cannot be used; BackendError when the backend cannot run or the model does not fit into
 *   memory; OptionError
 */
export async function load(input: CheckpointInput = embeddedModel, givenOptions: LoadOptions = {}): Promise<Model> {
  const started = performance.now();
  checkOptions(givenOptions);
  const options = { ...givenOptions }; // later changes by the caller do not matter
  if (!options.backend || ["native", "auto"].includes(options.backend)) nativeBackend?.prepare?.();
  const progress = options.onProgress && new LoadingProgress(options.onProgress);
  const onFile = (file: string, done: number, total: number) => progress?.downloaded(file, done, total);
  const isName = input !== embeddedModel && isPath(input) && (mayBeName(String(input)) || options.cache === true);
  // Bytes are opened at once, since they may be changed by the caller's next line.
  const place = isName ? ((await placeOf(String(input), options, onFile)) ?? input) : input;
  const ownOptions = progress ? { ...options, onProgress: progress.placed.bind(progress) } : options;
  if (isComing(place)) {
    return loadComing(place, (checkpoint) => loadCheckpoint(checkpoint, ownOptions, started));
  }
  const checkpoint = await openCheckpoint(place, onFile);
  return loadCheckpoint(checkpoint, ownOptions, started, isPath(place));
}

/** What a name stands for; undefined for what is none. */
async function placeOf(
  name: string,
  { cache, endpoint, signal, onWarning }: LoadOptions,
  onFile: (file: string, done: number, total: number) => void,
): Promise<CheckpointInput | ComingFile | undefined> {
  const { comingModel } = await import("./hub/named-models.js");
  const options = { ...(cache !== undefined && { cache }), ...(endpoint !== undefined && { endpoint }) };
  return comingModel(name, { ...options, ...(signal && { signal }), onFile, onWarning });
}

function isComing(place: CheckpointInput | ComingFile): place is ComingFile {
  return typeof place === "object" && place !== null && "whenSound" in place;
}

/**
 * Loads a model from an open checkpoint, and closes the checkpoint.
 *
 * @param started the time when loading began, by `performance.now()`
 * @param hasFolder whether a tokenizer may lie beside the checkpoint
 * @param memoryLimit the most bytes that one memory of WebAssembly may have; by default 4 GiB
 */
export async function loadCheckpoint(
  checkpoint: Checkpoint,
  options: LoadOptions = {},
  started: number = performance.now(),
  hasFolder: boolean = true,
  memoryLimit?: number,
): Promise<Model> {
  const path = checkpoint.name;
  try {
    const base = bindModel(checkpoint);
    const bound = await adapted(base, options);
    const { definition, size } = base;
    const { layers, width, hidden, vocabulary } = size;
    const { dtype, strategy, onWarning = console.warn } = options;
    // The parts of a strategy may have types of their own.
    for (const line of dtype || strategy ? [] : describeFitted(bound.graph, bound.tensors))
      onWarning(`${path}: ${line}`);
    const finding = findTokenizer(checkpoint, hasFolder, vocabulary, options.tokenizer);
    // Opening the backend waits for all of a file that is being downloaded; a tokenizer that will not do is told before that.
    if ([...checkpoint.tensors.values()].some(({ source }) => source.arrival)) await finding;
    const opening = openRuntime(bound, options, memoryLimit);
    const [{ runtime, ...computed }, tokenizer, fingerprint] = await Promise.all([
      opening,
      finding,
      fingerprintOf(bound),
    ]).catch(async (error) => {
      // The backend's threads and memory must not outlive the failure of another.
      await opening.then(({ runtime }) => runtime.dispose()).catch(() => {});
      throw error;
    });
    return new Model({
      info: {
        source: path,
        version: bound.version,
        layers,
        width,
        hidden,
        vocabulary,
        dimensions: { ...bound.size },
        parameters: base.graph.weights.reduce((sum, weight) => sum + elementCount(weight.shape), 0),
        ...computed,
        threads: runtime.threads,
        metadata: checkpoint.metadata,
        loadMilliseconds: performance.now() - started,
      },
      runtime,
      tokenizer,
      fingerprint,
      tunedState: async (file) => (await import("./models/tuned-state.js")).readTunedState(file, { definition, size }),
      limits: { ...options.limits },
    });
  } finally {
    await checkpoint.close();
  }
}

/** The model with its adapters. @throws CheckpointError, OptionError */
async function adapted(base: RecognisedModel, { lora, onWarning = console.warn }: LoadOptions): Promise<BoundModel> {
  const sources = lora === undefined ? [] : loraSources(lora, base.size.layers);
  if (sources.length === 0) return base;
  const { openAdapter } = await import("./models/adapter-file.js");
  const { withAdapters } = await import("./models/apply-adapters.js");
  const opened: AppliedAdapter[] = [];
  try {
    for (const { source, strength, layers } of sources) {
      const file = await openAdapter(source);
      opened.push({ file, strength: strength ?? 1, layers: layers && new Set(layers) });
      const { fingerprint } = file.learnedBeside;
      if (fingerprint !== undefined && fingerprint !== String(await fingerprintOf(base))) {
        onWarning(
          `${file.name}: was learned beside another model, or beside this one with values of another type: it may not fit`,
        );
      }
      if (strength === undefined && file.scaleOf(1) === undefined) {
        onWarning(
          `${file.name}: does not tell its alpha, so its products are added as they are; alpha / rank is the strength to give`,
        );
      }
    }
    return await withAdapters(base, opened);
  } finally {
    await Promise.all(opened.map(({ file }) => file.close()));
  }
}

/**
 * Finds the tokenizer.
 *
 * @returns a function that returns the tokenizer, or throws the reason why there is none, since tokens can be run
 *   without one
 * @throws TokenizerError when the tokenizer that was named cannot be opened or does not fit the model
 */
async function findTokenizer(
  checkpoint: Checkpoint,
  hasFolder: boolean,
  vocabulary: number,
  wanted: string | Tokenizer | undefined,
): Promise<() => Tokenizer> {
  let tokenizer: Tokenizer;
  if (wanted === undefined) {
    try {
      tokenizer = await tokenizerFor(checkpoint, vocabulary, hasFolder);
    } catch (error) {
      return () => {
        throw error;
      };
    }
  } else if (typeof wanted === "string") tokenizer = await openTokenizer(wanted, vocabulary);
  else tokenizer = wanted;
  // A tokenizer that the caller made may leave tokens of the model unused, as one for music does, but cannot have
  // more than the model.
  if (tokenizer.vocabularySize > vocabulary) {
    throw new TokenizerError(
      `the tokenizer has ${tokenizer.vocabularySize} tokens, the model ${hasFolder ? checkpoint.name : ""} only ` +
        `${vocabulary}: they do not belong together`,
    );
  }
  return () => tokenizer;
}

function checkOptions(options: LoadOptions): void {
  if (typeof options !== "object" || options === null) throw new OptionError("options", options, "an object");
  const {
    dtype,
    backend,
    strategy,
    threads,
    tokenizer,
    onProgress,
    onWarning,
    cache,
    endpoint,
    signal,
    limits = {},
  } = options;
  checkSignal(signal);
  const { skipZeros } = options;
  if (skipZeros !== undefined && typeof skipZeros !== "boolean")
    throw new OptionError("skipZeros", skipZeros, "true or false");
  if (cache !== undefined && typeof cache !== "boolean") throw new OptionError("cache", cache, "true or false");
  if (endpoint !== undefined && typeof endpoint !== "string")
    throw new OptionError("endpoint", endpoint, "the URL of a hub");
  checkFunction("onProgress", onProgress);
  checkFunction("onWarning", onWarning);
  const hasTokens = typeof tokenizer === "object" && tokenizer !== null && "vocabularySize" in tokenizer;
  if (tokenizer !== undefined && typeof tokenizer !== "string" && !hasTokens) {
    throw new OptionError("tokenizer", tokenizer, 'a path, "world", "bytes", or a tokenizer');
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
  if (backend !== undefined && backend !== "auto" && ![...backendNames, "auto"].includes(backend)) {
    throw new OptionError("backend", backend, [...backendNames, "auto"].join(", "));
  }
  if (strategy !== undefined) {
    parseStrategy(strategy);
    if (backend !== undefined) throw new OptionError("backend", backend, "none beside a strategy, which names them");
  }
  if (threads !== undefined && !(Number.isInteger(threads) && threads >= 1 && threads <= maxThreads)) {
    throw new OptionError("threads", threads, `a whole number from 1 to ${maxThreads}`);
  }
}
