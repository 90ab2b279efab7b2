// The kernels as a native library: an addon for Node, compiled on first use by the machine's C compiler, once for
// each level of instruction sets, and kept in the user's cache folder.

import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { BackendError } from "../../errors.js";
import { type Compiler, findCompiler, recalledFailure, rememberFailure } from "./compiler.js";
import { instructionLevels } from "./instruction-levels.js";

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
  unmapFile(mapping: MappingHandle): void;
  addressOf(bytes: Uint8Array): number;
  /** The names of kernels and of elementwise functions in the order of their numbers, a comma after each. */
  kernelNames(): string;
  functionNames(): string;
}

const sourceFolder = fileURLToPath(new URL("../../../kernels/", import.meta.url));
// GCC would otherwise put off sums until their end, and keep all their terms in memory till then: up to a third of
// the speed of the kernels of quantized weights. Clang does not know these two flags, and says so in a warning only.
const keepSumsInOrder = ["-fno-tree-ter", "-fno-tree-reassoc"];
const compileFlags = [
  ...["-std=gnu17", "-O3", "-fno-math-errno", ...keepSumsInOrder, "-ffp-contract=fast"],
  ...["-fPIC", "-fvisibility=hidden"],
];
/**
 * Node brings the functions of its interface itself. Where the linker knows how, the library stays in memory once it
 * is there: no code may be taken away under a thread.
 */
const linkFlags = [
  "-shared",
  "-pthread",
  ...(process.platform === "darwin" ? ["-undefined", "dynamic_lookup"] : ["-Wl,-z,nodelete"]),
];
/** Milliseconds of compiling after which the user is told; a missing compiler is found out sooner. */
const noticeAfter = 500;
/** One object each: what every level shares, and the kernels of every level. */
const objects: readonly { name: string; source: string; flags: readonly string[] }[] = [
  { name: "native", source: "native.c", flags: [] },
  ...instructionLevels.map(({ name, flags }) => ({ name, source: "level.c", flags: [`-DLEVEL=${name}`, ...flags] })),
];

let loading: Promise<NativeLibrary> | undefined;
/** Who wants to hear that compiling takes its time. */
const listeners = new Set<(message: string) => void>();

/**
 * The library, compiled if need be. Calls share one library; after a failure the next one tries again.
 *
 * @param onNotice called with a line when compiling takes its time, some seconds
 * @throws BackendError when there is no compiler, or compiling or loading fails
 */
export function loadNativeLibrary(onNotice?: (message: string) => void): Promise<NativeLibrary> {
  if (onNotice) listeners.add(onNotice);
  loading ??= compileLibrary()
    .then(bind)
    .catch((error) => {
      loading = undefined;
      throw error;
    })
    .finally(() => listeners.clear());
  return loading;
}

async function compileLibrary(): Promise<string> {
  const all = await readdir(sourceFolder, { recursive: true });
  const names = all.filter((name) => /\.(c|h|def)$/.test(name)).sort();
  const command = process.env["CC"] || "cc";
  const hash = createHash("sha256");
  hash.update(JSON.stringify([command, compileFlags, linkFlags, objects, process.platform, process.arch]));
  const sources = await Promise.all(names.map((name) => readFile(join(sourceFolder, name))));
  names.forEach((name, i) => void hash.update(name).update(sources[i] as Buffer));
  const folder = join(process.env["XDG_CACHE_HOME"] || join(homedir(), ".cache"), "rwkv");
  const library = join(folder, `kernels-${hash.digest("hex").slice(0, 16)}.node`);
  if (await stat(library).catch(() => undefined)) return library;

  const compiler = await findCompiler(command);
  if (!compiler) throw compileError(command, "no such compiler on this machine");
  const failureFile = library.replace(/\.node$/, ".failed.json");
  const earlier = await recalledFailure(failureFile, compiler);
  if (earlier) throw compileError(command, `${earlier} (remembered for a day in ${failureFile})`);
  const notice = setTimeout(() => {
    for (const tell of listeners) tell("compiling the kernels for this machine, once");
  }, noticeAfter);
  try {
    await mkdir(folder, { recursive: true });
    await compileInto(library, compiler);
  } catch (cause) {
    const reason = compileFailure(cause);
    if (isCompilersOwn(cause)) await rememberFailure(failureFile, compiler, reason);
    throw compileError(command, reason, cause);
  } finally {
    clearTimeout(notice);
  }
  return library;
}

/** Several processes may compile at once; each renames its own complete file into place. */
async function compileInto(library: string, compiler: Compiler): Promise<void> {
  const { execFile } = await import("node:child_process");
  const run = (args: string[]) =>
    promisify(execFile)(compiler.path, [...compiler.arguments, ...args], { timeout: 240_000 });
  const temporary = await mkdtemp(`${library}.part-`);
  const path = (name: string) => join(temporary, name);
  try {
    await Promise.all(
      objects.map(({ name, source, flags }) =>
        run([...compileFlags, ...flags, "-I", sourceFolder, "-c", "-o", path(`${name}.o`), join(sourceFolder, source)]),
      ),
    );
    await run([...linkFlags, "-o", path("kernels.node"), ...objects.map(({ name }) => path(`${name}.o`))]);
    await rename(path("kernels.node"), library);
  } finally {
    await rm(temporary, { recursive: true, force: true }).catch(() => {});
  }
}

function compileError(command: string, reason: string, cause?: unknown): BackendError {
  return new BackendError(`native kernels cannot be compiled with ${command}: ${reason}`, { cause });
}

/** Whether the compiler ran and said no, so that it would say so again; a full disk is another matter. */
function isCompilersOwn(cause: unknown): boolean {
  return typeof (cause as { code?: unknown }).code === "number";
}

function compileFailure(cause: unknown): string {
  const { stderr, message } = cause as { stderr?: string; message: string };
  const lines = (stderr || message).trim().split("\n");
  return lines.find((line) => /error/i.test(line)) ?? lines[0] ?? "unknown reason";
}

function bind(path: string): NativeLibrary {
  const module = { exports: {} };
  try {
    process.dlopen(module, path);
  } catch (cause) {
    throw new BackendError(`native kernels cannot be loaded from ${path}: ${(cause as Error).message}`, { cause });
  }
  return module.exports as NativeLibrary;
}
