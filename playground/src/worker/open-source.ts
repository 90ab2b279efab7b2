// From where a model comes to what the library's `load` takes. A new kind of source is a case here.

import type { CheckpointInput } from "rwkv";
import type { Source } from "../protocol.js";

export interface OpenSource {
  /** What the page calls the model. */
  readonly name: string;
  /** Where it is from: a repository on a hub, a URL, "" for a file of the user. */
  readonly from: string;
  /** undefined is the model in the package. */
  readonly input: CheckpointInput | undefined;
  readonly tokenizer?: string;
  /** To be called when the model is loaded. */
  close(): void;
  /** A message about the source, with the files' own names. */
  named(message: string): string;
}

/** @param signal ends what is asked of a hub */
export async function openSource(source: Source, signal?: AbortSignal): Promise<OpenSource> {
  const asItIs = { name: nameOf(source), from: "", close() {}, named: (message: string) => message };
  switch (source.kind) {
    case "embedded":
      return { input: undefined, ...asItIs };
    case "name": {
      const { modelUrl } = await import("./library.js"); // which few pages need
      const url = await modelUrl(source.name, { endpoint: source.hub, ...(signal && { signal }) });
      const [, from = ""] = /([^/]+\/[^/]+)\/resolve\//.exec(url) ?? [];
      return { input: url, ...asItIs, name: lastOf(url), from }; // a short name becomes that of its file
    }
    case "url":
      return { input: source.url, ...asItIs, from: new URL(source.url, location.href).href };
    case "kept":
      return {
        ...asItIs,
        input: source.path,
        from: keptFrom(source.path),
        named: (message) => message.replaceAll(source.path, nameOf(source)),
      };
    case "files": {
      const { model, others } = source;
      const named = (message: string) => message.replace(/^blob\b(?!:http)/, model.name);
      const [tokenizer] = others;
      if (!tokenizer) return { ...asItIs, input: model, named };
      const url = URL.createObjectURL(tokenizer);
      return {
        ...asItIs,
        input: model,
        tokenizer: url,
        close: () => URL.revokeObjectURL(url),
        named: (message) => named(message.replaceAll(url, tokenizer.name)),
      };
    }
  }
}

/** The repository in the path of a kept file, rwkv-models:/repository/commit/file. */
function keptFrom(path: string): string {
  const repository = decodeURIComponent(path.split("/")[1] ?? "");
  return repository.startsWith("local:") ? "" : repository;
}

/** What the page calls a model. */
export function nameOf(source: Source): string {
  switch (source.kind) {
    case "embedded":
      return "rwkv-tales";
    case "name":
      return lastOf(source.name.replace(/^hf:/i, ""));
    case "url":
      return lastOf(new URL(source.url, location.href).pathname);
    case "kept":
      return lastOf(source.path);
    case "files":
      return source.model.name;
  }
}

function lastOf(path: string): string {
  const last = path.split("/").filter(Boolean).at(-1) ?? path;
  try {
    return decodeURIComponent(last);
  } catch {
    return last; // with a percent sign that begins no escape
  }
}
