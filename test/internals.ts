// Where tests find the modules that are not part of the public API: `#rwkv/x` is dist/x.js, for vitest by this alias and for
// TypeScript by `paths` in tsconfig.json. The published package has no such name.

import { fileURLToPath } from "node:url";

/** For `resolve.alias` of vitest's configurations. */
export const internals: { find: RegExp; replacement: string }[] = [
  { find: /^#rwkv\/(.*)$/, replacement: fileURLToPath(new URL("../dist/", import.meta.url)).concat("$1.js") },
];
