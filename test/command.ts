// Runs the command line as a program.

import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";

export const program: string = fileURLToPath(new URL("../dist/cli/main.js", import.meta.url));

export interface Outcome {
  code: number;
  stdout: string;
  stderr: string;
}

export function rwkv(args: readonly string[], input: string | Uint8Array = ""): Promise<Outcome> {
  return runProgram(program, args, input);
}

/** Runs the command line of another copy of the package. */
export function runProgram(
  program: string,
  args: readonly string[],
  input: string | Uint8Array = "",
): Promise<Outcome> {
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [program, ...args], { maxBuffer: 2 ** 26 }, (error, stdout, stderr) => {
      resolve({ code: error ? Number(error.code ?? 1) : 0, stdout, stderr });
    });
    child.stdin?.on("error", () => {}); // a program that fails at once does not read it
    child.stdin?.end(input);
  });
}
