// The kernels as a native library: an addon for Node, with all levels of instruction sets. It comes with the package for some
// systems; elsewhere it is compiled on first use by the machine's C compiler and kept in the user's cache folder.

import { mkdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { BackendError } from "../../errors.js";
import { lockBuild, type Unlock } from "./build-lock.js";
import { type CompileFailure, findCompiler, recalledFailure, rememberFailure } from "./compiler.js";
import { buildLibrary, libraryStamp, localRecipe, prebuiltName, prebuiltRecipe } from "./library-build.js";
import { cachedLibraries, cachedName, cacheFolder, sweepParts } from "./library-cache.js";
import type { CompilerFailure } from "./run-compiler.js";

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
  /** Maps an open file of that size, if that can be; `readAhead` brings its pages in on a thread of its own. */
  mapFile(descriptor: number, size: number, readAhead: boolean): MappingHandle | undefined;
  mappingAddress(mapping: MappingHandle): number;
  unmapFile(mapping: MappingHandle): void;
  addressOf(bytes: Uint8Array): number;
  /** The names of kernels and of elementwise functions in the order of their numbers, a comma after each. */
  kernelNames(): string;
  functionNames(): string;
}

/** The milliseconds of compiling after which the user is informed; a missing compiler is noticed sooner. */
const noticeAfter = 500;

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
async function loadPrebuilt(): Promise<Partial<Bound>> {
  const folder = process.env["RWKV_PREBUILT"] ?? fileURLToPath(new URL("../../../prebuilt/", import.meta.url));
  const recipe = prebuiltRecipe(process.platform, process.arch);
  // Most clones have none, and need not read the sources for it.
  if (!recipe || !folder || !(await isThere(folder))) return {};
  const stamp = await libraryStamp(recipe);
  const path = join(folder, prebuiltName(process.platform, process.arch, stamp));
  return (await isThere(path)) ? bind(path) : {};
}

/** The library from the cache, compiled if it is not there. */
async function loadCompiled(): Promise<NativeLibrary> {
  const command = process.env["CC"] || "cc";
  const recipe = localRecipe(process.platform, process.arch);
  const folder = cacheFolder();
  const stamp = await libraryStamp(recipe, command, process.platform, process.arch);
  const cached = await loadCached(folder, stamp);
  if (cached) return cached;
  const compiler = await findCompiler(command);
  if (!compiler) throw compileError(command, "no such compiler on this machine");
  const failureFile = join(folder, `kernels-${stamp}.failed.json`);
  const checkFailure = async () => {
    const earlier = await recalledFailure(failureFile, compiler);
    if (earlier) throw compileError(command, earlier);
  };
  await checkFailure();
  const notice = setTimeout(() => {
    for (const tell of listeners) tell("compiling the kernels for this machine, once");
  }, noticeAfter);
  let path: string;
  let unlock: Unlock | undefined;
  try {
    await mkdir(folder, { recursive: true });
    await sweepParts(folder);
    unlock = await lockBuild(join(folder, `kernels-${stamp}`));
    // Whoever had the lock may have compiled it, or found that it cannot be.
    const made = await loadCached(folder, stamp);
    if (made) return made;
    await checkFailure();
    path = await buildLibrary(folder, (content) => cachedName(stamp, content), compiler, recipe);
  } catch (cause) {
    if (cause instanceof BackendError) throw cause;
    const reason = failureReason(cause);
    const kind = failureKind(cause);
    if (kind) await rememberFailure(failureFile, compiler, { reason, kind });
    throw compileError(command, reason, cause);
  } finally {
    clearTimeout(notice);
    await unlock?.();
  }
  const { library, failure } = bind(path);
  if (library) return library;
  const reason = `of what it made, ${failure}`;
  await rememberFailure(failureFile, compiler, { reason, kind: "refusal" });
  throw compileError(command, reason);
}

async function loadCached(folder: string, stamp: string): Promise<NativeLibrary | undefined> {
  for (const path of await cachedLibraries(folder, stamp)) {
    const { library } = bind(path);
    if (library) return library;
  }
  return undefined;
}

async function isThere(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined;
}

function compileError(command: string, reason: string, cause?: unknown): BackendError {
  return new BackendError(`native kernels cannot be compiled with ${command}: ${reason}`, { cause });
}

/** Whether the compiler ran and said no, or did not end, and so would again; undefined for another matter, such as a full disk. */
function failureKind(cause: unknown): CompileFailure["kind"] | undefined {
  const { code, isTimeout } = cause as Partial<CompilerFailure>;
  if (isTimeout) return "timeout";
  return typeof code === "number" ? "refusal" : undefined;
}

/** The longest reason that is reported, in characters. */
const longestReason = 200;

/** Why compiling failed, in a line. */
function failureReason(cause: unknown): string {
  const { stderr = "", message, code, signal, isTimeout } = cause as Partial<CompilerFailure> & Error;
  if (isTimeout) return "the compiler did not end in time";
  const lines = stderr.trim().split("\n");
  const line = lines.find((line) => /error/i.test(line)) ?? lines[0];
  if (line) return shortened(line);
  if (typeof code === "number") return `it ended with exit code ${code} and no message`;
  return signal ? `it was ended by ${signal}` : shortened(message);
}

function shortened(line: string): string {
  return line.length > longestReason ? `${line.slice(0, longestReason)}...` : line;
}

/** A library that was loaded, or why it cannot be. */
type Bound =
  | { readonly library: NativeLibrary; readonly failure?: never }
  | { readonly library?: never; readonly failure: string };

/** @throws BackendError where Node may load none */
function bind(path: string): Bound {
  const module = { exports: {} };
  try {
    process.dlopen(module, path);
    return { library: module.exports as NativeLibrary };
  } catch (cause) {
    const { message, code } = cause as NodeJS.ErrnoException;
    if (code === "ERR_DLOPEN_DISABLED")
      throw new BackendError(`native kernels cannot be loaded: ${message}`, { cause });
    const [line = ""] = message.split("\n");
    return { failure: shortened(`${path} cannot be loaded (${line.replace(`${path}: `, "")})`) };
  }
}
