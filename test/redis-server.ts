// A Redis for tests: the program redis-server, where it is installed, on a free port of this machine.

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { onTestFinished } from "vitest";

/** Whether tests can have one. */
export const hasRedis: boolean = isInstalled("redis-server");
if (!hasRedis) console.warn("no redis-server on this machine: tests of what is in Redis are skipped");

/** Whether a program is there. @param flag with which it says its version */
export function isInstalled(program: string, flag = "-v"): boolean {
  try {
    execFileSync(program, [flag], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

/** A Redis that runs, until the test is over. */
export interface RedisServer {
  readonly url: string;
  readonly port: number;
  /** Sends a signal: SIGSTOP lets it hang, SIGCONT goes on, SIGKILL ends it. */
  signal(name: NodeJS.Signals): Promise<void>;
  /** Starts it again after it was ended, on the same port, with what `flags` say of its data. */
  start(): Promise<void>;
}

/** A port that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, "close");
  return port;
}

/** Starts a Redis that keeps nothing on a disk. @param flags of the program */
export async function redisServer(...flags: string[]): Promise<RedisServer> {
  const port = await freePort();
  let child: ChildProcess;
  const start = async () => {
    const usual = ["--port", String(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
    child = spawn("redis-server", [...usual, ...flags], { stdio: ["ignore", "pipe", "inherit"] });
    let output = "";
    await new Promise<void>((resolve, reject) => {
      child.stdout?.on("data", (text) => {
        output += text;
        if (output.includes("Ready to accept connections")) resolve();
      });
      child.once("exit", () => reject(new Error(`redis-server has ended: ${output}`)));
    });
  };
  await start();
  onTestFinished(() => void child.kill("SIGKILL"));
  return {
    url: `redis://127.0.0.1:${port}`,
    port,
    start,
    async signal(name) {
      const exited = name === "SIGKILL" ? once(child, "exit") : undefined;
      child.kill(name);
      await exited;
    },
  };
}
