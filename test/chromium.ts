// The Chromium that tests in pages run in, and how it is started.

import { existsSync } from "node:fs";

/** Its path; undefined on a machine without one. */
export const chromiumPath: string | undefined = [
  process.env["CHROMIUM"],
  "/usr/bin/chromium",
  "/usr/bin/chromium-browser",
  "/usr/bin/google-chrome",
].find((path) => path && existsSync(path));

export const chromiumArguments: string[] = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** With WebGPU, on Chromium's own software adapter. */
export const webgpuArguments: string[] = [
  ...chromiumArguments,
  "--enable-unsafe-webgpu",
  "--use-webgpu-adapter=swiftshader",
];

/** Only pages that are served with these headers may share memory with workers. */
export const isolationHeaders: Record<string, string> = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};
