// The machine's C compiler: its location, and its earlier failures, so that not every process repeats them.

import { readFile, stat, writeFile } from "node:fs/promises";
import { delimiter, isAbsolute, join } from "node:path";

/** A compiler that is there. */
export interface Compiler {
  readonly path: string;
  /** What it is given before all other arguments, such as the compiler that ccache is to call. */
  readonly arguments: readonly string[];
  /** Changes with the file. */
  readonly version: string;
}

/**
 * Finds the compiler of a command as in the variable CC: a path or a name, and perhaps arguments. Undefined where
 * there is none.
 */
export async function findCompiler(command: string): Promise<Compiler | undefined> {
  // A path may have spaces in it; then it is no command with arguments.
  for (const [name = "", ...rest] of [[command], command.trim().split(/\s+/)]) {
    const program = await findProgram(name);
    if (!program) continue;
    // The compiler may be the one that ccache is to call.
    const others = await Promise.all(rest.map((argument) => findProgram(argument)));
    const versions = [program, ...others].flatMap((found) => (found ? [found.version] : []));
    return { path: program.path, arguments: rest, version: versions.join(" ") };
  }
  return undefined;
}

async function findProgram(name: string): Promise<{ path: string; version: string } | undefined> {
  for (const path of candidates(name)) {
    const status = await stat(path).catch(() => undefined);
    if (status?.isFile()) return { path, version: `${path} ${status.size} ${status.mtimeMs}` };
  }
  return undefined;
}

function candidates(name: string): string[] {
  if (isAbsolute(name) || /[/\\]/.test(name)) return [name];
  const folders = (process.env["PATH"] ?? "").split(delimiter).filter((folder) => folder !== "");
  return folders.map((folder) => join(folder, name));
}

/** What is known of a failure. */
export interface CompileFailure {
  readonly reason: string;
  /** Whether the compiler said no, or was ended since it took too long, as on a machine with much else to do. */
  readonly kind: "refusal" | "timeout";
}

/** How long a failure is believed, in milliseconds and in words: headers may be installed meanwhile, a machine may have more time. */
const believedFor = {
  refusal: { time: 24 * 60 * 60 * 1000, words: "a day" },
  timeout: { time: 10 * 60 * 1000, words: "ten minutes" },
} as const;

/** Why this compiler failed lately, if it did, and where that is noted. */
export async function recalledFailure(file: string, { version }: Compiler): Promise<string | undefined> {
  try {
    const note = JSON.parse(await readFile(file, "utf8")) as CompileFailure & { compiler: string; time: number };
    const { time, words } = believedFor[note.kind];
    const age = Date.now() - note.time;
    const isBelieved = note.compiler === version && age >= 0 && age < time;
    return isBelieved ? `${note.reason} (remembered for ${words} in ${file})` : undefined;
  } catch {
    return undefined; // none, or none that can be read
  }
}

/** Notes a failure, where notes can be kept. */
export async function rememberFailure(file: string, { version }: Compiler, failure: CompileFailure): Promise<void> {
  await writeFile(file, JSON.stringify({ ...failure, compiler: version, time: Date.now() })).catch(() => {});
}
