// The model's name in the API.

import { basename } from "node:path";
import type { Model } from "../generation/model.js";
import { ApiError } from "./errors.js";

/** A model as clients name it. */
export class ServedModel {
  readonly id: string;
  /** When it was loaded, in seconds since 1970. */
  readonly created = Math.floor(Date.now() / 1000);
  readonly #names: ReadonlySet<string>;

  constructor(model: Model, name: string | undefined, aliases: readonly string[]) {
    this.id = name ?? nameOf(model.info.source);
    this.#names = new Set([this.id, ...aliases]);
  }

  get names(): readonly string[] {
    return [...this.#names];
  }

  /**
   * Checks the name that a request asks for.
   *
   * @throws ApiError for one that is not this model's
   */
  check(name: string | null | undefined): void {
    if (name === undefined || name === null || this.#names.has(name)) return;
    const message = `the model ${JSON.stringify(name.slice(0, 100))} does not exist here; there is ${[...this.#names].join(", ")}`;
    throw new ApiError(404, message, { param: "model", code: "model_not_found" });
  }
}

/** The name of a file without its ending, and without what queries and folders say. */
function nameOf(source: string): string {
  const file = basename(source.replace(/[?#].*$/, ""));
  return file.replace(/\.(pth|safetensors|gguf|bin)$/i, "") || "rwkv";
}
