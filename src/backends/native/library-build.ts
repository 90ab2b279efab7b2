// How the native library is made of kernels/*.c: what the compiler is told, on a user's machine and when the package is packed,
// and a stamp that changes with the sources and with that.

import { createHash } from "node:crypto";
import { mkdtemp, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Compiler } from "./compiler.js";
import { levelsOf } from "./instruction-levels.js";

/** One object of the library. */
interface LibraryObject {
  readonly name: string;
  readonly source: string;
  readonly flags: readonly string[];
}

/** What a library is made with, and of. */
export interface LibraryRecipe {
  readonly compileFlags: readonly string[];
  readonly objects: readonly LibraryObject[];
  /** Before the objects. */
  readonly linkFlags: readonly string[];
  /** After the objects. */
  readonly libraries: readonly string[];
}

const sourceFolder = fileURLToPath(new URL("../../../kernels/", import.meta.url));

/** In it: what calls MPI, of which the kernels' library has nothing. */
const mpiFolder = "mpi/";

// GCC would otherwise put off sums until their end, and keep all their terms in memory till then: up to a third of
// the speed of the kernels of quantized weights. Clang does not know these two flags, and says so in a warning only.
const keepSumsInOrder = ["-fno-tree-ter", "-fno-tree-reassoc"];

/**
 * The recipe of a library that is compiled where it runs.
 *
 * @param platform as Node names it, as is `architecture`
 */
export function localRecipe(platform: string, architecture: string): LibraryRecipe {
  return {
    compileFlags: [
      ...["-std=gnu17", "-O3", "-fno-math-errno", ...keepSumsInOrder, "-ffp-contract=fast"],
      ...["-fPIC", "-fvisibility=hidden"],
    ],
    // One object of what every level shares, and one of the kernels of each level.
    objects: [
      { name: "native", source: "native.c", flags: [] },
      ...levelsOf(architecture).flatMap(({ name, flags }) =>
        flags ? [{ name, source: "level.c", flags: [`-DLEVEL=${name}`, ...flags] }] : [],
      ),
    ],
    linkFlags: ["-shared", "-pthread", ...platformLinkFlags(platform)],
    libraries: [],
  };
}

/**
 * Node brings the functions of its interface itself. Where the linker knows how, the library stays in memory once it is
 * there, since no code may be taken away under a thread, and what it lacks is found out when it is loaded, not later.
 */
function platformLinkFlags(platform: string): string[] {
  if (platform === "win32") return [];
  return platform === "darwin" ? ["-undefined", "dynamic_lookup"] : ["-Wl,-z,nodelete", "-Wl,-z,now"];
}

/**
 * The recipe of a library that is built once and runs everywhere on its platform, or undefined for platforms that none is built
 * for. tools/build-prebuilt.mjs builds it.
 */
export function prebuiltRecipe(platform: string, architecture: string): LibraryRecipe | undefined {
  if (platform === "linux" && architecture in linuxFlags) return linuxRecipe(architecture as keyof typeof linuxFlags);
  return platform === "win32" && architecture === "x64" ? windowsRecipe() : undefined;
}

/** The helpers of libgcc that choose between two kinds of atomic instructions ask glibc alone for the processor. */
const linuxFlags = { x64: [], arm64: ["-mno-outline-atomics"] };

/**
 * For Linux it is linked with no C library, so it asks for no version of one: the functions that it calls are found in the
 * process, which is Node, with glibc or musl. Whoever builds it checks that both have had these functions for long.
 */
function linuxRecipe(architecture: keyof typeof linuxFlags): LibraryRecipe {
  const local = localRecipe("linux", architecture);
  // What distributions add by default calls functions that others lack.
  const plain = ["-U_FORTIFY_SOURCE", "-fno-stack-protector"];
  return {
    ...local,
    compileFlags: [...local.compileFlags, ...plain, ...linuxFlags[architecture]],
    linkFlags: [...local.linkFlags, "-nostdlib", "-s", "-Wl,--build-id=none"],
    libraries: ["-lgcc"],
  };
}

/**
 * For Windows, by mingw-w64, with its threads inside; what it calls of Node is in node.exe, for which the builder makes
 * libnode.a.
 */
function windowsRecipe(): LibraryRecipe {
  const local = localRecipe("win32", "x64");
  return {
    ...local,
    // Wide vectors on the stack are not aligned there as GCC believes (its bug 54412), so no move may rely on it.
    compileFlags: [...local.compileFlags, "-Wa,-muse-unaligned-vector-move"],
    linkFlags: [...local.linkFlags, "-static", "-s", "-Wl,--no-insert-timestamp"],
    libraries: ["-lnode"],
  };
}

/** A stamp of the sources, of a recipe, and of what else the library depends on: 16 digits. */
export async function libraryStamp(recipe: LibraryRecipe, ...others: readonly string[]): Promise<string> {
  // The same names on every system, so that a library that was built on another has the same stamp.
  const all = (await readdir(sourceFolder, { recursive: true })).map((name) => name.replaceAll("\\", "/"));
  const callsMpi = recipe.objects.some(({ source }) => source.startsWith(mpiFolder));
  const names = all.filter((name) => /\.(c|h|def)$/.test(name) && (callsMpi || !name.startsWith(mpiFolder))).sort();
  const sources = await Promise.all(names.map((name) => readFile(join(sourceFolder, name))));
  const hash = createHash("sha256").update(JSON.stringify([recipe, ...others]));
  names.forEach((name, i) => void hash.update(name).update(sources[i] as Buffer));
  return hash.digest("hex").slice(0, 16);
}

/** The name of a library that was built ahead. A stamp in it keeps one of other sources from being taken. */
export function prebuiltName(platform: string, architecture: string, stamp: string): string {
  return `${platform}-${architecture}-${stamp}.node`;
}

/**
 * Compiles a library into a folder. Several processes that do so at once do no harm; each renames its own complete file into place.
 *
 * @param nameOf the name of the file, by its content
 * @returns the path of the library
 * @throws CompilerFailure, or the system's errors, as `runCompiler`; Error when files of it are removed meanwhile
 */
export async function buildLibrary(
  folder: string,
  nameOf: (content: Uint8Array) => string,
  compiler: Compiler,
  recipe: LibraryRecipe,
): Promise<string> {
  const { runCompiler } = await import("./run-compiler.js");
  const ending = new AbortController();
  const temporary = await mkdtemp(join(folder, temporaryName));
  const run = (args: string[]) => runCompiler(compiler, args, temporary, ending.signal);
  const path = (name: string) => join(temporary, name);
  const objects = recipe.objects.map(({ name }) => path(`${name}.o`));
  const made: string[] = [];
  try {
    await Promise.all(
      recipe.objects.map(async ({ source, flags }, i) => {
        const object = objects[i] as string;
        const common = [...recipe.compileFlags, ...flags, "-I", sourceFolder];
        await run([...common, "-c", "-o", object, join(sourceFolder, source)]);
        made.push(object);
      }),
    );
    await run([...recipe.linkFlags, "-o", path("kernels.node"), ...objects, ...recipe.libraries]);
    const library = join(folder, nameOf(await readFile(path("kernels.node"))));
    await rename(path("kernels.node"), library);
    return library;
  } catch (cause) {
    if (await areThere([temporary, ...made])) throw cause;
    throw new Error(`files were removed from ${temporary} while it compiled`, { cause });
  } finally {
    ending.abort(); // after a failure, the compilers of the other objects
    await rm(temporary, { recursive: true, force: true }).catch(() => {});
  }
}

async function areThere(paths: readonly string[]): Promise<boolean> {
  const found = await Promise.all(paths.map((path) => stat(path).catch(() => undefined)));
  return found.every((status) => status !== undefined);
}

/** What the names of folders begin with that builds work in. */
export const temporaryName = "kernels.part-";
