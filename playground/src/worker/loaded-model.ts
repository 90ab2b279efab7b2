// The one model that the page has loaded: another one takes its place.

import { type ChatFormatName, type CheckpointInput, chatFormatFor, load, type Model, type Tokenizer } from "rwkv";
import type { LoadRequest, ModelFacts, Progress } from "../protocol.js";
import { bytesPerWeight } from "./model-sizes.js";
import { openSource } from "./open-source.js";
import { StateShelf } from "./state-shelf.js";
import type { Context } from "./worker.js";

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
  load(request: LoadRequest, context: Context<Progress>): Promise<ModelFacts> {
    const loading = this.#loading.then(() => this.#load(request, context));
    this.#loading = loading.catch(() => {});
    return loading;
  }

  async #load({ source, dtype, backend }: LoadRequest, { signal, send }: Context<Progress>): Promise<ModelFacts> {
    signal.throwIfAborted();
    const warnings: string[] = [];
    const { input, name, tokenizer, close, named } = await openSource(source, signal);
    try {
      // The memory of one model at a time: a page has little.
      await this.#release();
      const loading = load(input, {
        ...(tokenizer !== undefined && { tokenizer }),
        ...(dtype !== "stored" && { dtype }),
        backend,
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
      this.#facts = factsOf(model, name, source.kind === "embedded", warnings);
      return this.#facts;
    } catch (error) {
      const { name: kind, message } = error as Error;
      throw Object.assign(new Error(named(message), { cause: error }), { name: kind });
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

function factsOf(model: Model, name: string, isEmbedded: boolean, warnings: readonly string[]): ModelFacts {
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
    name,
    tokenizer: tokenizer?.kind,
    ...(whyNoTokenizer !== undefined && { whyNoTokenizer }),
    format: tokenizer && formatOf(model, isEmbedded ? "" : name),
    isEmbedded,
    weightBytes: info.parameters * (bytesPerWeight[info.dtype] ?? 1),
    warnings,
  };
}

/** By the file's own name, which a model that was given as a file does not know. */
function formatOf({ info, tokenizer }: Model, name: string) {
  return chatFormatFor({ info: { source: name, metadata: info.metadata }, tokenizer });
}
