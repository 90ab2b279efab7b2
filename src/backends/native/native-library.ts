// The kernels as a native library: an addon for Node, with all levels of instruction sets. It comes with the package for some
// systems; elsewhere it is compiled on first use by the machine's C compiler and kept in the user's cache folder.

import { stat } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { BackendError } from "../../errors.js";
import { type Bound, bind, loadCompiledAddon } from "./compiled-addon.js";
import { libraryStamp, localRecipe, prebuiltName, prebuiltRecipe } from "./library-build.js";

/** A pool of threads. */
export type PoolHandle = { readonly pool: unique symbol };

/** A file in memory. */
export type MappingHandle = { readonly mapping: unique symbol };

/**
 * The functions of kernels/addon.c; each throws an Error for arguments that it cannot take. Addresses are numbers;
 * every address of today's machines is exact as one. Handles end by themselves when they are collected, or with the
 * thread of JavaScript that has them.
 */
export interface NativeLibrary {
  /** Number of the level of that name, or of the highest that the processor has for ""; -1 where it has not. */
  findLevel(name: string): number;
  /** Floats in a vector of a level's kernels. */
  levelLanes(level: number): number;
  createPool(threads: number, level: number): PoolHandle;
  poolThreads(pool: PoolHandle): number;
  /** Runs a pass on the pool's threads; resolves when it is done. The owner is kept alive until then. */
  runPool(pool: PoolHandle, pass: number, owner: object): Promise<void>;
  /** Ends the threads; a pass in flight ends early, with a status that says so. */
  destroyPool(pool: PoolHandle): void;
  /** Asks for huge pages under memory that has not been touched yet. */
  useHugePages(bytes: Uint8Array): void;
  /** Maps an open file of that size, if that can be. */
  mapFile(descriptor: number, size: number): MappingHandle | undefined;
  mappingAddress(mapping: MappingHandle): number;
  /** Begins to bring parts of a mapped file in, on a thread of its own; the offset and the size of each, in bytes, follow each other. */
  readAhead(mapping: MappingHandle, parts: Float64Array): void;
  /** Takes a part of a mapped file out of memory and ends the reading ahead; what is read there later comes from the file again. */
  forgetMapped(mapping: MappingHandle, offset: number, size: number): void;
  unmapFile(mapping: MappingHandle): void;
  addressOf(bytes: Uint8Array): number;
  /** The names of kernels and of elementwise functions in the order of their numbers, a comma after each. */
  kernelNames(): string;
  functionNames(): string;
}

/** What errors call them. */
const kernelsName = "native kernels";

let loading: Promise<NativeLibrary> | undefined;
/** Who wants to hear that compiling takes its time. */
const listeners = new Set<(message: string) => void>();

/**
 * The library, built ahead or compiled if need be. Calls share one library; after a failure the next one tries again.
 *
 * @param onNotice called with a line when compiling takes its time, some seconds
 * @throws BackendError when there is no compiler, or compiling or loading fails
 */
export function loadNativeLibrary(onNotice?: (message: string) => void): Promise<NativeLibrary> {
  if (onNotice) listeners.add(onNotice);
  loading ??= findLibrary()
    .catch((error) => {
      loading = undefined;
      throw error;
    })
    .finally(() => listeners.clear());
  return loading;
}

async function findLibrary(): Promise<NativeLibrary> {
  const { library, failure } = await loadPrebuilt();
  if (library) return library;
  try {
    return await loadCompiled();
  } catch (error) {
    if (!failure || !(error instanceof BackendError)) throw error;
    throw new BackendError(`${error.message}; those that came with the package: ${failure}`, { cause: error });
  }
}

/**
 * The library that came with the package, if it is one of these sources, or why this system does not take it. The variable
 * RWKV_PREBUILT names another folder to look in; empty, none.
 */
async function loadPrebuilt(): Promise<Partial<Bound<NativeLibrary>>> {
  const folder = process.env["RWKV_PREBUILT"] ?? fileURLToPath(new URL("../../../prebuilt/", import.meta.url));
  const recipe = prebuiltRecipe(process.platform, process.arch);
  // Most clones have none, and need not read the sources for it.
  if (!recipe || !folder || !(await isThere(folder))) return {};
  const stamp = await libraryStamp(recipe);
  const path = join(folder, prebuiltName(process.platform, process.arch, stamp));
  return (await isThere(path)) ? bind<NativeLibrary>(path, kernelsName) : {};
}

/** The library from the cache, compiled if it is not there. */
async function loadCompiled(): Promise<NativeLibrary> {
  const command = process.env["CC"] || "cc";
  const recipe = localRecipe(process.platform, process.arch);
  const stamp = await libraryStamp(recipe, command, process.platform, process.arch);
  return loadCompiledAddon<NativeLibrary>({
    name: `kernels-${stamp}`,
    what: kernelsName,
    command,
    recipe,
    onSlow: () => {
      for (const tell of listeners) tell("compiling the kernels for this machine, once");
    },
  });
}

async function isThere(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined;
}
