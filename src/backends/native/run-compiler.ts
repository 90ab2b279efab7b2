// Runs a compiler, and ends it with all that it has started when it takes too long or is no longer needed. A compiler is a driver
// that starts others; ended alone, it leaves those computing.

import { type ChildProcess, spawn } from "node:child_process";
import { onExit } from "signal-exit";
import type { Compiler } from "./compiler.js";

/** How long a compiler may take, in milliseconds. */
const longestRun = 240_000;

/** The most of a compiler's messages that is kept, in characters. */
const longestMessage = 2 ** 16;

/** Why a compiler made nothing. */
export class CompilerFailure extends Error {
  /** The exit code, where it ran to its end. */
  readonly code: number | undefined;
  readonly signal: string | undefined;
  /** Whether it was ended since it took too long. */
  readonly isTimeout: boolean;
  readonly stderr: string;

  constructor(ending: Pick<CompilerFailure, "code" | "signal" | "isTimeout" | "stderr">) {
    super("the compiler failed");
    this.code = ending.code;
    this.signal = ending.signal;
    this.isTimeout = ending.isTimeout;
    this.stderr = ending.stderr;
  }
}

/**
 * Runs a compiler with these arguments until it has succeeded. It and what it has started are ended when it takes longer than
 * four minutes, when `signal` is aborted, or when this process ends.
 *
 * @param temporary a folder for files between its steps; what cleans the system's would make it fail
 * @throws CompilerFailure when it fails or takes too long
 * @throws Error as the system gives it when it cannot be started
 */
export async function runCompiler(
  compiler: Compiler,
  args: readonly string[],
  temporary: string,
  signal: AbortSignal,
): Promise<void> {
  // A group of processes of its own can be ended as a whole. Ctrl-C in a terminal does not reach it, so it ends with this process.
  const detached = process.platform !== "win32";
  let child: ChildProcess | undefined;
  const end = () => {
    if (child) endWithChildren(child, detached);
  };
  // Before it is started: a signal that comes while it starts waits until it can be ended.
  const stopWatching = onExit(end);
  let [stderr, isTimeout] = ["", false];
  const timer = setTimeout(() => {
    isTimeout = true;
    end();
  }, longestRun);
  signal.addEventListener("abort", end);
  try {
    const started = spawn(compiler.path, [...compiler.arguments, ...args], {
      detached,
      env: { ...process.env, TMPDIR: temporary, TMP: temporary, TEMP: temporary },
      stdio: ["ignore", "ignore", "pipe"],
    });
    child = started;
    started.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr = (stderr + text).slice(0, longestMessage);
    });
    await new Promise<void>((resolve, reject) => {
      started.on("error", reject);
      started.on("close", (code, ended) => {
        if (code === 0) resolve();
        else reject(new CompilerFailure({ code: code ?? undefined, signal: ended ?? undefined, isTimeout, stderr }));
      });
    });
  } finally {
    clearTimeout(timer);
    stopWatching();
    signal.removeEventListener("abort", end);
  }
}

function endWithChildren(child: ChildProcess, isGroup: boolean): void {
  if (child.pid === undefined) return; // it did not start
  try {
    if (isGroup) process.kill(-child.pid, "SIGKILL");
    else child.kill("SIGKILL");
  } catch {
    // It has ended meanwhile.
  }
}
