// Builds the playground into playground/built, a folder that any web server can serve, and lists its files for `rwkv serve`. Files of
// the package that the page needs, such as the model, are in it once more under names of their own; the list leads to the package's, so
// that a package has them only once.
//
//   node tools/build-playground.mjs

import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "vite";

const root = new URL("../", import.meta.url);
const digestOf = (path) =>
  createHash("sha256")
    .update(readFileSync(new URL(path, root)))
    .digest("hex");

await build({ configFile: fileURLToPath(new URL("playground/vite.config.ts", root)), logLevel: "warn" });

const shared = ["dist", "embedded"].flatMap((folder) =>
  readdirSync(new URL(folder, root))
    .filter((name) => /\.(wasm|safetensors|json)$/.test(name))
    .map((name) => `${folder}/${name}`),
);
const sharedByDigest = new Map(shared.map((path) => [digestOf(path), path]));
const names = readdirSync(new URL("playground/built", root), { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile() && entry.name !== "files.json")
  .map((entry) => (entry.parentPath.endsWith("assets") ? `assets/${entry.name}` : entry.name))
  .sort();
const files = names.map((name) => {
  const digest = digestOf(`playground/built/${name}`);
  return { name, path: sharedByDigest.get(digest) ?? `playground/built/${name}`, digest };
});
writeFileSync(new URL("playground/built/files.json", root), `${JSON.stringify(files, undefined, 1)}\n`);
