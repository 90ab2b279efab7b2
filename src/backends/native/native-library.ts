// The kernels as a native library: compiled on first use by the machine's C compiler for the machine's processor, kept in
// the user's cache folder, loaded through koffi.

import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { cpus, homedir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { BackendError } from "../../errors.js";

/** The functions of kernels/native.c. Addresses are numbers; every address of today's machines is exact as one. */
export interface NativeLibrary {
  createPool(threads: number): number;
  poolThreads(pool: number): number;
  /** Runs a pass on the pool, from a thread of libuv's; resolves when it is done. */
  runPool(pool: number, pass: number): Promise<void>;
  destroyPool(pool: number): void;
  /** Floats in a vector of the kernels. */
  lanes(): number;
  mapFile(path: string, size: number): number;
  unmapFile(address: number, size: number): void;
  addressOf(bytes: Uint8Array): number;
}

const interfaceVersion = 2;
const sourceFolder = fileURLToPath(new URL("../../../kernels/", import.meta.url));
/** Compilers for ARM tell the machine's own processor by another flag than those for x86. */
const thisProcessor = process.arch === "arm64" ? "-mcpu=native" : "-march=native";
const flags = ["-std=gnu17", "-O3", thisProcessor, "-ffp-contract=fast", "-fPIC", "-shared", "-pthread"];

let loading: Promise<NativeLibrary> | undefined;

/**
 * The library, compiled if need be. Later calls share the first one's result.
 *
 * @throws BackendError when there is no compiler, or compiling or loading fails
 */
export function loadNativeLibrary(): Promise<NativeLibrary> {
  loading ??= compileLibrary().then(bind);
  return loading;
}

async function compileLibrary(): Promise<string> {
  const names = (await readdir(sourceFolder)).filter((name) => /\.[ch]$/.test(name)).sort();
  const compiler = process.env["CC"] || "cc";
  const hash = createHash("sha256");
  hash.update([compiler, ...flags, process.platform, process.arch, cpus()[0]?.model].join("\n"));
  for (const name of names) hash.update(name).update(await readFile(join(sourceFolder, name)));
  const folder = join(process.env["XDG_CACHE_HOME"] || join(homedir(), ".cache"), "rwkv");
  const library = join(folder, `kernels-${hash.digest("hex").slice(0, 16)}.so`);
  if (await stat(library).catch(() => undefined)) return library;

  // Several processes may compile at once; each renames its own complete file into place.
  const temporary = `${library}.${process.pid}.part`;
  const sources = names.filter((name) => name.endsWith(".c")).map((name) => join(sourceFolder, name));
  try {
    await mkdir(folder, { recursive: true });
    await promisify(execFile)(compiler, [...flags, "-o", temporary, ...sources, "-lm"], { timeout: 120_000 });
    await rename(temporary, library);
  } catch (cause) {
    await rm(temporary, { force: true }).catch(() => {});
    throw new BackendError(`native kernels cannot be compiled with ${compiler}: ${compileFailure(cause)}`, { cause });
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
    const library = koffi.load(path);
    if (library.func("int32_t rwkv_interface_version()")() !== interfaceVersion) {
      throw new Error("it is of another version");
    }
    const run = library.func("void rwkv_pool_run(uint64_t pool, uint64_t pass)");
    return {
      createPool: library.func("uint64_t rwkv_pool_create(uint32_t threads)"),
      poolThreads: library.func("uint32_t rwkv_pool_threads(uint64_t pool)"),
      destroyPool: library.func("void rwkv_pool_destroy(uint64_t pool)"),
      lanes: library.func("uint32_t rwkv_lanes()"),
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
