// Runs programs by mpirun, where the machine has MPI.

import { execFileSync, spawn } from "node:child_process";
import type { Ending } from "./node-process.js";

/** The MPI that tests run with; of another one than the machine's first: MPIRUN=mpirun.mpich MPICC=mpicc.mpich. */
const launcher = process.env["MPIRUN"] ?? "mpirun";
export const mpiCompiler: string = process.env["MPICC"] ?? "mpicc";

/** Whether it is there. */
export const hasMpi: boolean = (() => {
  try {
    for (const program of [launcher, mpiCompiler]) execFileSync(program, ["--version"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
})();

if (!hasMpi) {
  console.warn(
    "no mpirun and mpicc on this machine: tests on several ranks are skipped (apt-get install openmpi-bin libopenmpi-dev)",
  );
}

/** Open MPI refuses both to root, and as more ranks than cores, unless it is told. */
const permissions = {
  OMPI_ALLOW_RUN_AS_ROOT: "1",
  OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: "1",
  OMPI_MCA_rmaps_base_oversubscribe: "1",
};

/** Runs of `mpirun`. */
export interface MpiOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** Called with what all ranks have printed so far, and with a function that sends mpirun a signal. */
  readonly onOutput?: (text: string, kill: (signal: NodeJS.Signals) => void) => void;
}

/** Runs node on several ranks. @param groups the number of ranks and the arguments of node, for each kind of rank */
export function mpirun(
  groups: readonly (readonly [ranks: number, args: readonly string[]])[],
  { env, onOutput }: MpiOptions = {},
): Promise<Ending> {
  const args = groups.flatMap(([ranks, own], i) => [
    ...(i > 0 ? [":"] : []),
    "-n",
    String(ranks),
    process.execPath,
    ...own,
  ]);
  const child = spawn(launcher, args, {
    env: { ...process.env, ...permissions, ...env },
    stdio: ["ignore", "pipe", "pipe"],
    timeout: 100_000, // one that hangs fails its test and is not left behind
    killSignal: "SIGKILL",
  });
  let [output, errors] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    output += text;
    onOutput?.(output + errors, (signal) => child.kill(signal));
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    errors += text;
    onOutput?.(output + errors, (signal) => child.kill(signal));
  });
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => resolve({ code, signal, output, errors }));
  });
}
