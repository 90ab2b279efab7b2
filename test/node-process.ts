// Runs scripts in processes of their own, to see how those end.

import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

/** How a process ended. */
export interface Ending {
  /** The exit code; null after a signal. */
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly output: string;
  readonly errors: string;
}

/** Options of `runScript`. */
export interface ScriptOptions {
  /** Flags for node. */
  readonly flags?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** A signal that is sent when the script has printed "ready". */
  readonly signal?: NodeJS.Signals;
}

const dist = new URL("../dist/", import.meta.url);

/** Runs the text of a module; in it, `dist` is the URL of the built package. */
export function runScript(source: string, { flags = [], env, signal }: ScriptOptions = {}): Promise<Ending> {
  const text = `const dist = ${JSON.stringify(dist.href)};\n${source}`;
  const child = spawn(process.execPath, [...flags, "--input-type=module", "-e", text], {
    cwd: fileURLToPath(new URL("../", import.meta.url)),
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
    timeout: 50_000, // one that hangs fails its test and is not left behind
    killSignal: "SIGKILL",
  });
  let [output, errors] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    output += text;
    if (signal && output.includes("ready")) child.kill(signal);
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    errors += text;
  });
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, ended) => resolve({ code, signal: ended, output, errors }));
  });
}
