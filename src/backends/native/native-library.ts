// The kernels as a native library: compiled on first use by the machine's C compiler, once for each level of instruction sets,
// kept in the user's cache folder, loaded through koffi.

import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { BackendError } from "../../errors.js";
import { instructionLevels } from "./instruction-levels.js";

/** The functions of kernels/native.c. Addresses are numbers; every address of today's machines is exact as one. */
export interface NativeLibrary {
  /** Number of the level of that name, or of the highest that the processor has for ""; -1 where it has not. */
  findLevel(name: string): number;
  /** Floats in a vector of a level's kernels. */
  levelLanes(level: number): number;
  createPool(threads: number, level: number): number;
  poolThreads(pool: number): number;
  /** Runs a pass on the pool, from a thread of libuv's; resolves when it is done. */
  runPool(pool: number, pass: number): Promise<void>;
  destroyPool(pool: number): void;
  /** Asks for huge pages under memory that has not been touched yet. */
  useHugePages(address: number, size: number): void;
  mapFile(path: string, size: number): number;
  unmapFile(address: number, size: number): void;
  addressOf(bytes: Uint8Array): number;
}

const interfaceVersion = 5;
const sourceFolder = fileURLToPath(new URL("../../../kernels/", import.meta.url));
// GCC would otherwise put off sums until their end, and keep all their terms in memory till then: up to a third of the speed of
// the kernels of quantized weights. Clang does not know these two flags, and says so in a warning only.
const keepSumsInOrder = ["-fno-tree-ter", "-fno-tree-reassoc"];
const compileFlags = ["-std=gnu17", "-O3", "-fno-math-errno", ...keepSumsInOrder, "-ffp-contract=fast", "-fPIC"];
const linkFlags = ["-shared", "-pthread", "-lm"];
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
 * The library, compiled if need be. Later calls share the first one's result.
 *
 * @param onNotice called with a line when compiling takes its time, some seconds
 * @throws BackendError when there is no compiler, or compiling or loading fails
 */
export function loadNativeLibrary(onNotice?: (message: string) => void): Promise<NativeLibrary> {
  if (onNotice) listeners.add(onNotice);
  loading ??= compileLibrary()
    .then(bind)
    .finally(() => listeners.clear());
  return loading;
}

async function compileLibrary(): Promise<string> {
  const names = (await readdir(sourceFolder)).filter((name) => /\.[ch]$/.test(name)).sort();
  const compiler = process.env["CC"] || "cc";
  const hash = createHash("sha256");
  hash.update(JSON.stringify([compiler, compileFlags, linkFlags, objects, process.platform, process.arch]));
  const sources = await Promise.all(names.map((name) => readFile(join(sourceFolder, name))));
  names.forEach((name, i) => void hash.update(name).update(sources[i] as Buffer));
  const folder = join(process.env["XDG_CACHE_HOME"] || join(homedir(), ".cache"), "rwkv");
  const library = join(folder, `kernels-${hash.digest("hex").slice(0, 16)}.so`);
  if (await stat(library).catch(() => undefined)) return library;

  const notice = setTimeout(() => {
    for (const tell of listeners) tell("compiling the kernels for this machine, once");
  }, noticeAfter);
  // Several processes may compile at once; each renames its own complete file into place.
  const { execFile } = await import("node:child_process");
  const run = (args: string[]) => promisify(execFile)(compiler, args, { timeout: 240_000 });
  let temporary: string | undefined;
  try {
    await mkdir(folder, { recursive: true });
    temporary = await mkdtemp(`${library}.part-`);
    const path = (name: string) => join(temporary as string, name);
    await Promise.all(
      objects.map(({ name, source, flags }) =>
        run([...compileFlags, ...flags, "-c", "-o", path(`${name}.o`), join(sourceFolder, source)]),
      ),
    );
    await run([...linkFlags, "-o", path("kernels.so"), ...objects.map(({ name }) => path(`${name}.o`))]);
    await rename(path("kernels.so"), library);
  } catch (cause) {
    throw new BackendError(`native kernels cannot be compiled with ${compiler}: ${compileFailure(cause)}`, { cause });
  } finally {
    clearTimeout(notice);
    if (temporary) await rm(temporary, { recursive: true, force: true }).catch(() => {});
  }
  return library;
}

function compileFailure(cause: unknown): string {
  const { code, stderr, message } = cause as { code?: unknown; stderr?: string; message: string };
  if (code === "ENOENT") return "no such compiler on this machine";
  return (stderr || message).trim().split("\n")[0] ?? "unknown reason";
}

async function bind(path: string): Promise<NativeLibrary> {
  try {
    const { default: koffi } = await import("koffi");
    // Kernels keep blocks of matrices on the stack; koffi's default for calls that are not waited for would be too small.
    koffi.config({ async_stack_size: 2 ** 20 });
    const library = koffi.load(path);
    if (library.func("int32_t rwkv_interface_version()")() !== interfaceVersion) {
      throw new Error("it is of another version");
    }
    const run = library.func("void rwkv_pool_run(uint64_t pool, uint64_t pass)");
    return {
      findLevel: library.func("int32_t rwkv_find_level(const char* name)"),
      levelLanes: library.func("uint32_t rwkv_level_lanes(int32_t level)"),
      createPool: library.func("uint64_t rwkv_pool_create(uint32_t threads, int32_t level)"),
      poolThreads: library.func("uint32_t rwkv_pool_threads(uint64_t pool)"),
      destroyPool: library.func("void rwkv_pool_destroy(uint64_t pool)"),
      useHugePages: library.func("void rwkv_use_huge_pages(uint64_t address, uint64_t size)"),
      mapFile: library.func("uint64_t rwkv_map_file(const char* path, uint64_t size)"),
      unmapFile: library.func("void rwkv_unmap_file(uint64_t address, uint64_t size)"),
      addressOf: (bytes) => Number(koffi.address(bytes)),
      runPool: (pool, pass) =>
        new Promise((resolve, reject) =>
          run.async(pool, pass, (error: unknown) => (error ? reject(error) : resolve())),
        ),
    };
  } catch (cause) {
    throw new BackendError(`native kernels cannot be loaded from ${path}: ${(cause as Error).message}`, { cause });
  }
}
