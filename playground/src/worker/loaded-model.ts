// The one model that the page has loaded: another one takes its place.

import { type ChatFormatName, type CheckpointInput, chatFormatFor, load, type Model, type Tokenizer } from "rwkv";
import type { LoadRequest, ModelFacts, Source } from "../protocol.js";
import { openSource } from "./open-source.js";
import { StateShelf } from "./state-shelf.js";
import type { Context } from "./worker.js";

/** Bytes of a weight in memory by its type; those of blocks have a scale for each block. */
export const bytesPerWeight: Readonly<Record<string, number>> = { f32: 4, f16: 2, bf16: 2, q8: 1.0625, q4: 0.5625 };

export class LoadedModel {
  #model: Model | undefined;
  #facts: ModelFacts | undefined;
  #input: CheckpointInput | undefined;
  /** States of what was read, by its text. */
  states = new StateShelf();
  #loading: Promise<unknown> = Promise.resolve();

  /** @throws Error where nothing is loaded */
  get model(): Model {
    if (!this.#model) throw new Error("no model is loaded");
    return this.#model;
  }

  /** The file, for those who look into it. */
  get input(): CheckpointInput | undefined {
    return this.#input;
  }

  /** How it knows conversations; undefined where it has no tokenizer. */
  get format(): ChatFormatName | undefined {
    return this.#facts?.format;
  }

  /** Loads one after another; what is asked for last stays. */
  load(request: LoadRequest, context: Context<{ done: number; total: number }>): Promise<ModelFacts> {
    const loading = this.#loading.then(() => this.#load(request, context));
    this.#loading = loading.catch(() => {});
    return loading;
  }

  async #load(
    { source, dtype, backend }: LoadRequest,
    { signal, send }: Context<{ done: number; total: number }>,
  ): Promise<ModelFacts> {
    signal.throwIfAborted();
    const warnings: string[] = [];
    const { input, tokenizer, close, named } = await openSource(source);
    try {
      // The memory of one model at a time: a page has little.
      await this.#release();
      const loading = load(input, {
        ...(tokenizer !== undefined && { tokenizer }),
        ...(dtype !== "stored" && { dtype }),
        ...(backend !== "auto" && { backend }),
        onWarning: (line) => void warnings.push(line),
        // What this throws ends the loading.
        onProgress: (done, total) => {
          signal.throwIfAborted();
          send({ done, total });
        },
      });
      // A server may be silent for minutes: who cancels does not wait for it.
      const model = await unlessAborted(loading, signal);
      this.#model = model;
      this.#input = input;
      this.#facts = factsOf(model, source, warnings);
      return this.#facts;
    } catch (error) {
      throw new Error(named((error as Error).message), { cause: error });
    } finally {
      close();
    }
  }

  async #release(): Promise<void> {
    const model = this.#model;
    this.#model = undefined;
    this.#input = undefined;
    this.#facts = undefined;
    this.states = new StateShelf();
    await model?.dispose();
  }
}

/** Resolves with a model, or rejects once the signal is aborted; the model is then disposed of when it comes. */
function unlessAborted(loading: Promise<Model>, signal: AbortSignal): Promise<Model> {
  return new Promise((resolve, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    loading.then((model) => (signal.aborted ? void model.dispose() : resolve(model)), reject);
  });
}

function factsOf(model: Model, source: Source, warnings: readonly string[]): ModelFacts {
  const { metadata: _, ...info } = model.info;
  let tokenizer: Tokenizer | undefined;
  let whyNoTokenizer: string | undefined;
  try {
    tokenizer = model.tokenizer;
  } catch (error) {
    whyNoTokenizer = (error as Error).message;
  }
  return {
    ...info,
    name: nameOf(source),
    tokenizer: tokenizer?.kind,
    ...(whyNoTokenizer !== undefined && { whyNoTokenizer }),
    format: tokenizer && formatOf(model, source),
    isEmbedded: source.kind === "embedded",
    weightBytes: info.parameters * (bytesPerWeight[info.dtype] ?? 1),
    warnings,
  };
}

/** By the file's own name, which a model that was given as a file does not know. */
function formatOf(model: Model, source: Source) {
  const { info, tokenizer } = model;
  return chatFormatFor({
    info: { source: source.kind === "embedded" ? "" : nameOf(source), metadata: info.metadata },
    tokenizer,
  });
}

export function nameOf(source: Source): string {
  switch (source.kind) {
    case "embedded":
      return "rwkv-tales";
    case "url":
      return decodeURIComponent(
        new URL(source.url, location.href).pathname.split("/").filter(Boolean).at(-1) ?? source.url,
      );
    case "files":
      return source.model.name;
  }
}
