// An addon for Node that is compiled on first use by a compiler of this machine, and kept in the user's cache folder: the kernels, and
// what training on several machines calls MPI by.

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { BackendError } from "../../errors.js";
import { lockBuild, type Unlock } from "./build-lock.js";
import { type CompileFailure, findCompiler, recalledFailure, rememberFailure } from "./compiler.js";
import { buildLibrary, type LibraryRecipe } from "./library-build.js";
import { cachedLibraries, cachedName, cacheFolder, sweepParts } from "./library-cache.js";
import type { CompilerFailure } from "./run-compiler.js";

/** The milliseconds of compiling after which the user is informed; a missing compiler is noticed sooner. */
const noticeAfter = 500;

/** An addon, and what it is compiled with. */
export interface CompiledAddon {
  /** A name with a stamp of all that it is made of. */
  readonly name: string;
  /** What errors call it, such as "native kernels". */
  readonly what: string;
  /** The compiler, as in the variable CC. */
  readonly command: string;
  readonly recipe: LibraryRecipe;
  /** How it is loaded (`os.constants.dlopen`). */
  readonly dlopenFlags?: number;
  /** Called when compiling takes its time, some seconds. */
  readonly onSlow?: () => void;
}

/**
 * The addon from the cache, compiled if it is not there.
 *
 * @throws BackendError when there is no compiler, or compiling or loading fails
 */
export async function loadCompiledAddon<Library>(addon: CompiledAddon): Promise<Library> {
  const { name, what, command, recipe, dlopenFlags } = addon;
  const compileError = (reason: string, cause?: unknown) =>
    new BackendError(`${what} cannot be compiled with ${command}: ${reason}`, { cause });
  const folder = cacheFolder();
  const cached = await loadCached<Library>(folder, addon);
  if (cached) return cached;
  const compiler = await findCompiler(command);
  if (!compiler) throw compileError("no such compiler on this machine");
  const failureFile = join(folder, `${name}.failed.json`);
  const checkFailure = async () => {
    const earlier = await recalledFailure(failureFile, compiler);
    if (earlier) throw compileError(earlier);
  };
  await checkFailure();
  const notice = setTimeout(() => addon.onSlow?.(), noticeAfter);
  let path: string;
  let unlock: Unlock | undefined;
  try {
    await mkdir(folder, { recursive: true });
    await sweepParts(folder);
    unlock = await lockBuild(join(folder, name));
    // Whoever had the lock may have compiled it, or found that it cannot be.
    const made = await loadCached<Library>(folder, addon);
    if (made) return made;
    await checkFailure();
    path = await buildLibrary(folder, (content) => cachedName(name, content), compiler, recipe);
  } catch (cause) {
    if (cause instanceof BackendError) throw cause;
    const reason = failureReason(cause);
    const kind = failureKind(cause);
    if (kind) await rememberFailure(failureFile, compiler, { reason, kind });
    throw compileError(reason, cause);
  } finally {
    clearTimeout(notice);
    await unlock?.();
  }
  const { library, failure } = bind<Library>(path, what, dlopenFlags);
  if (library) return library;
  const reason = `of what it made, ${failure}`;
  await rememberFailure(failureFile, compiler, { reason, kind: "refusal" });
  throw compileError(reason);
}

async function loadCached<Library>(
  folder: string,
  { name, what, dlopenFlags }: CompiledAddon,
): Promise<Library | undefined> {
  for (const path of await cachedLibraries(folder, name)) {
    const { library } = bind<Library>(path, what, dlopenFlags);
    if (library) return library;
  }
  return undefined;
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
export type Bound<Library> =
  | { readonly library: Library; readonly failure?: never }
  | { readonly library?: never; readonly failure: string };

/** Loads an addon. @param what it is called in errors @throws BackendError where Node may load none */
export function bind<Library>(path: string, what: string, flags?: number): Bound<Library> {
  const module = { exports: {} };
  try {
    process.dlopen(module, path, ...(flags === undefined ? [] : [flags]));
    return { library: module.exports as Library };
  } catch (cause) {
    const { message, code } = cause as NodeJS.ErrnoException;
    if (code === "ERR_DLOPEN_DISABLED") throw new BackendError(`${what} cannot be loaded: ${message}`, { cause });
    const [line = ""] = message.split("\n");
    return { failure: shortened(`${path} cannot be loaded (${line.replace(`${path}: `, "")})`) };
  }
}
