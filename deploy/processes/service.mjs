// Programs that run beside each other, can be killed and started again, and end with this process at the latest.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";

/** A port that was free a moment ago. */
export async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

const running = new Set();
process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});

/** A process that can be killed and started again. */
export class Service {
  /**
   * @param name what errors call it
   * @param command the program with its arguments
   * @param line what it prints when it is ready; without one it is ready when it was started
   * @param environment further variables
   */
  constructor(name, [program, ...args], { line, environment = {} } = {}) {
    Object.assign(this, { name, program, args, line, environment });
  }

  /** Resolves when it is ready. @throws Error with what it has printed, where it ends before */
  async start() {
    const env = { ...process.env, ...this.environment };
    const child = spawn(this.program, this.args, { stdio: ["ignore", "pipe", "pipe"], env });
    this.child = child;
    running.add(child);
    this.exited = new Promise((resolve) => {
      child.once("exit", resolve);
      child.once("error", resolve); // a program that is not there
    }).then(() => running.delete(child));
    let output = "";
    await new Promise((resolve, reject) => {
      for (const stream of [child.stdout, child.stderr]) {
        stream.on("data", (text) => {
          output = (output + text).slice(-10_000);
          if (this.line !== undefined && output.includes(this.line)) resolve();
        });
      }
      child.once("error", reject);
      child.once("exit", (code, signal) => reject(new Error(`${this.name} has ended (${code ?? signal}): ${output}`)));
      if (this.line === undefined) child.once("spawn", resolve);
    });
  }

  signal(name) {
    this.child.kill(name);
  }

  /** Ends it, where it runs, and resolves when it has ended. */
  async kill(name = "SIGKILL") {
    this.child?.kill(name);
    await this.exited;
  }
}
