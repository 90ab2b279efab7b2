// The files of the playground, which tools/build-playground.mjs lists: nothing that is not in its list is ever read.

import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";

/** A file of the playground. */
export interface PlaygroundFile {
  /** Its name in the page's folder: "index.html", "assets/index-1a2b3c4d.js". */
  readonly name: string;
  /** Where it lies, relative to the package: large files of the package itself are there only once. */
  readonly path: string;
  /** Digest of the content, in hexadecimal. */
  readonly digest: string;
}

const root = new URL("../../", import.meta.url);

const contentTypes: Readonly<Record<string, string>> = {
  html: "text/html; charset=utf-8",
  js: "text/javascript; charset=utf-8",
  css: "text/css; charset=utf-8",
  json: "application/json",
  webmanifest: "application/manifest+json",
  svg: "image/svg+xml",
  wasm: "application/wasm",
};

/** The files by their names; undefined where the playground was not built. */
export function playgroundFiles(): ReadonlyMap<string, PlaygroundFile> | undefined {
  let text: string;
  try {
    text = readFileSync(new URL("playground/built/files.json", root), "utf8");
  } catch {
    return undefined;
  }
  const files = JSON.parse(text) as readonly PlaygroundFile[];
  return new Map(files.map((file) => [file.name, file]));
}

export function contentTypeOf({ name }: PlaygroundFile): string {
  return contentTypes[name.split(".").at(-1) as string] ?? "application/octet-stream";
}

/** The content of a file; compressed for clients that take it, where that makes it smaller. */
export class PlaygroundContents {
  readonly #compressed = new Map<string, Promise<Uint8Array<ArrayBuffer>>>();

  async read({ path }: PlaygroundFile): Promise<Uint8Array<ArrayBuffer>> {
    return Uint8Array.from(await readFile(new URL(path, root)));
  }

  /** Scripts, styles, kernels and texts, not weights. */
  isCompressible(file: PlaygroundFile): boolean {
    return contentTypeOf(file) !== "application/octet-stream";
  }

  /** In gzip's format; each file is compressed once. */
  async gzipped(file: PlaygroundFile): Promise<Uint8Array<ArrayBuffer>> {
    const known = this.#compressed.get(file.name);
    if (known) return known;
    const compressing = this.read(file).then((bytes) => Uint8Array.from(gzipSync(bytes)));
    this.#compressed.set(file.name, compressing);
    compressing.catch(() => this.#compressed.delete(file.name));
    return compressing;
  }
}
