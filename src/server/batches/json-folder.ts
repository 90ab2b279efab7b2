// Records as files of JSON in a folder, each written whole or not at all, and read from the disk each time, since other processes may write
// them, too.

import { mkdir, readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomically } from "../../platform/node/file-writer.js";
import { removeAbandonedParts } from "../../platform/node/part-files.js";

/** Records by id. */
export class JsonFolder<Value extends { readonly id: string }> {
  readonly #folder: string;
  readonly #idPattern: RegExp;

  /** @param idPattern what ids look like; nothing else is looked for */
  constructor(folder: string, idPattern: RegExp) {
    this.#folder = folder;
    this.#idPattern = idPattern;
  }

  async open(): Promise<void> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    await removeAbandonedParts(this.#folder);
  }

  /** Where something of a record is. */
  path(id: string, ending: string): string {
    return join(this.#folder, `${id}.${ending}`);
  }

  async read(id: string): Promise<Value | undefined> {
    if (!this.#idPattern.test(id)) return undefined;
    try {
      const value = JSON.parse(await readFile(this.path(id, "json"), "utf8")) as Value;
      return value.id === id ? value : undefined;
    } catch (error) {
      if (error instanceof SyntaxError || (error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
      throw error;
    }
  }

  async write(value: Value): Promise<void> {
    const bytes = new TextEncoder().encode(`${JSON.stringify(value)}\n`);
    await writeFileAtomically(this.path(value.id, "json"), (file) => file.append(bytes));
  }

  async list(): Promise<Value[]> {
    const names = await readdir(this.#folder);
    const ids = names.flatMap((name) => (name.endsWith(".json") ? [name.slice(0, -5)] : []));
    const values = await Promise.all(ids.map((id) => this.read(id)));
    return values.flatMap((value) => (value ? [value] : []));
  }

  async remove(id: string, ...endings: string[]): Promise<void> {
    for (const ending of ["json", ...endings]) await rm(this.path(id, ending), { force: true });
  }
}
