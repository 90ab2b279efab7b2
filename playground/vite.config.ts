// How the playground is built: `npm run build:playground`, or `npx vite playground` to work on it.

import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";
import { serviceWorker } from "./service-worker-plugin.js";

export default defineConfig({
  root: fileURLToPath(new URL(".", import.meta.url)),
  // It works in any folder of any server.
  base: "./",
  plugins: [serviceWorker()],
  worker: { format: "es" },
  build: {
    outDir: "built",
    emptyOutDir: true,
    target: "es2022",
    // A content security policy without data: needs files.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    rolldownOptions: { checks: { pluginTimings: false } },
  },
  server: {
    headers: { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" },
  },
});
