// MPI, called through a small addon (kernels/mpi/), which is compiled by the MPI's own compiler on first use and kept in the
// user's cache folder, as kernels are.

import { constants } from "node:os";
import { type CompiledAddon, loadCompiledAddon } from "../backends/native/compiled-addon.js";
import { findCompiler } from "../backends/native/compiler.js";
import { libraryStamp, localRecipe } from "../backends/native/library-build.js";
import { BackendError } from "../errors.js";

/** The functions of kernels/mpi/ranks.c. Promises are rejected with what MPI says. */
export interface MpiLibrary {
  /** Joins the ranks that were started together; once in a process. */
  join(): Promise<void>;
  rank(): number;
  size(): number;
  /** Adds up arrays over all ranks, in place. */
  sumFloats(arrays: readonly Float32Array[]): Promise<void>;
  sumDoubles(array: Float64Array): Promise<void>;
  /** Copies the bytes of the rank `root` into those of all others. */
  broadcast(bytes: Uint8Array, root: number): Promise<void>;
  /** Waits until all ranks leave; nothing can be asked for afterwards. */
  leave(): Promise<void>;
  /** Ends the processes of all ranks, this one too. */
  abort(): void;
}

/**
 * Loads the addon, compiled if need be by the command in the variable MPICC, by default mpicc.
 *
 * @param onNotice called with a line when compiling takes its time
 * @throws BackendError when there is no such compiler, or compiling or loading fails
 */
export async function loadMpi(onNotice: (message: string) => void): Promise<MpiLibrary> {
  const command = mpiCompiler();
  const compiler = await findCompiler(command);
  if (!compiler) {
    throw new BackendError(
      `${command}: no such compiler on this machine, which training on several ranks needs: install that of the MPI whose mpirun ` +
        "started this (Debian: libopenmpi-dev or libmpich-dev), or name it by the variable MPICC",
    );
  }
  const local = localRecipe(process.platform, process.arch);
  const recipe: CompiledAddon["recipe"] = {
    ...local,
    compileFlags: ["-std=gnu17", "-O2", "-fPIC", "-fvisibility=hidden"],
    objects: ["group", "ranks"].map((name) => ({ name, source: `mpi/${name}.c`, flags: [] })),
  };
  // Of another MPI the same source is another library.
  const stamp = await libraryStamp(recipe, command, compiler.version, process.platform, process.arch);
  return loadCompiledAddon<MpiLibrary>({
    name: `ranks-${stamp}`,
    what: "the part that calls MPI",
    command,
    recipe,
    // Some MPIs load parts of themselves, which look for its functions among those of the program.
    dlopenFlags: constants.dlopen.RTLD_NOW | constants.dlopen.RTLD_GLOBAL,
    onSlow: () => onNotice(`compiling the part that calls MPI with ${command}, once`),
  });
}

/** The compiler of the MPI. */
export function mpiCompiler(): string {
  return process.env["MPICC"] || "mpicc";
}
