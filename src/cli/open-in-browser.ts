// Opens a page in the browser of whoever sits before this machine.

import { spawn } from "node:child_process";

/** Opens an address, if there is a program for it; nothing happens otherwise. */
export function openInBrowser(url: string): void {
  const [program, ...before] = { darwin: ["open"], win32: ["explorer"] }[process.platform as string] ?? ["xdg-open"];
  const child = spawn(program as string, [...before, url], { stdio: "ignore", detached: true });
  child.on("error", () => {});
  child.unref();
}
