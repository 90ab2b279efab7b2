// A lock among the processes of a machine: a local socket that its holder listens on. The system takes it back when the process ends,
// however it ends, so that one that was killed never leaves a lock behind, and a thread or another process cannot take it twice.

import { createHash } from "node:crypto";
import { rm } from "node:fs/promises";
import { connect, createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Gives the lock back. */
export type Unlock = () => Promise<void>;

/**
 * Takes a lock.
 *
 * @param purpose a word that keeps locks of one kind from those of another
 * @param text what is locked, such as a path
 * @returns undefined while another call, here or in another process, has it
 */
export async function socketLock(purpose: string, text: string): Promise<Unlock | undefined> {
  const path = socketPath(`rwkv-${purpose}-${createHash("sha256").update(text).digest("hex").slice(0, 32)}`);
  let server = await listen(path);
  // Only a socket in the file system outlives its process; then nobody answers.
  if (!server && process.platform !== "win32" && !path.startsWith("\0") && !(await answers(path))) {
    await rm(path, { force: true });
    server = await listen(path);
  }
  if (!server) return undefined;
  const held = server;
  held.unref();
  return () => new Promise((resolve) => void held.close(() => resolve()));
}

function socketPath(name: string): string {
  if (process.platform === "win32") return `\\\\.\\pipe\\${name}`;
  // Linux has names for sockets that are no files.
  return process.platform === "linux" ? `\0${name}` : join(tmpdir(), name);
}

/** Undefined where somebody listens, or did. */
function listen(path: string): Promise<Server | undefined> {
  return new Promise((resolve) => {
    const server = createServer((socket) => void socket.destroy());
    server.once("error", (error: NodeJS.ErrnoException) => {
      // Where there can be no such socket there is no lock, but the work can be done.
      resolve(error.code === "EADDRINUSE" ? undefined : createServer());
    });
    // Exclusive: processes of a cluster would share it.
    server.listen({ path, exclusive: true }, () => resolve(server));
  });
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ path });
    const answer = (value: boolean) => {
      socket.destroy();
      resolve(value);
    };
    socket.once("connect", () => answer(true));
    socket.once("error", () => answer(false));
  });
}
