// Writes the service worker into the build, with the list of all files that it keeps.

import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import type { Plugin } from "vite";

export function serviceWorker(): Plugin {
  return {
    name: "rwkv-service-worker",
    apply: "build",
    enforce: "post",
    generateBundle(_, bundle) {
      const assets = Object.keys(bundle).filter((name) => name.startsWith("assets/"));
      const names = ["./", ...readdirSync(new URL("public", import.meta.url)), ...assets].sort();
      const all = JSON.stringify(names);
      const version = createHash("sha256").update(all).digest("hex").slice(0, 16);
      const template = readFileSync(new URL("service-worker.js", import.meta.url), "utf8");
      const source = template.replace("__FILES__", () => all).replace("__VERSION__", () => JSON.stringify(version));
      this.emitFile({ type: "asset", fileName: "service-worker.js", source });
    },
  };
}
