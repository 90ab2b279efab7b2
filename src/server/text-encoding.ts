// Encodes texts without holding up the event loop: short ones at once, with a pause between many of them, long ones in a thread.

import { setImmediate as nextTurn } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { TokenizerError } from "../errors.js";
import { huggingFaceJson } from "../tokenizers/hugging-face.js";
import type { Tokenizer } from "../tokenizers/tokenizer.js";
import type { WorldTokenizer } from "../tokenizers/world.js";

/** What a thread makes a tokenizer of. */
export type TokenizerDefinition =
  | { readonly kind: "huggingface"; readonly json: unknown }
  | { readonly kind: "world"; readonly tokens: readonly Uint8Array[] };

/** What a thread answers to { id, text }. */
export type Encoded =
  | { readonly id: number; readonly tokens: Int32Array<ArrayBuffer> }
  | { readonly id: number; readonly error: string };

/** Characters that are encoded in a turn of the event loop: some milliseconds, and 25 where each is a token. */
const charactersOfTurn = 8192;

interface Asked {
  readonly text: string;
  readonly resolve: (tokens: Int32Array) => void;
  readonly reject: (error: unknown) => void;
}

/** Encodes texts of one tokenizer. */
export class TextEncoding {
  readonly #tokenizer: Tokenizer;
  readonly #definition: TokenizerDefinition | undefined;
  readonly #asked = new Map<number, Asked>();
  #worker: Worker | undefined;
  #nextId = 0;
  /** Characters that were encoded in this turn. */
  #characters = 0;

  constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer;
    this.#definition = definitionOf(tokenizer);
  }

  /**
   * The tokens of a text.
   *
   * @throws TokenizerError where the vocabulary has no token for a byte
   */
  async encode(text: string): Promise<Int32Array> {
    if (this.#definition && text.length > charactersOfTurn) return this.#encodeInThread(text, this.#definition);
    if (this.#characters + text.length > charactersOfTurn) {
      await nextTurn();
      this.#characters = 0;
    }
    this.#characters += text.length;
    return this.#encodeHere(text);
  }

  /** Ends the thread. A later text begins another. */
  async close(): Promise<void> {
    await this.#worker?.terminate();
  }

  #encodeHere(text: string): Int32Array {
    return Int32Array.from(this.#tokenizer.encode(text));
  }

  #encodeInThread(text: string, definition: TokenizerDefinition): Promise<Int32Array> {
    return new Promise((resolve, reject) => {
      const id = this.#nextId++;
      this.#asked.set(id, { text, resolve, reject });
      try {
        this.#worker ??= this.#begin(definition);
        this.#worker.ref();
        this.#worker.postMessage({ id, text });
      } catch {
        this.#failed(); // Node was not allowed to begin a thread
      }
    });
  }

  #begin(definition: TokenizerDefinition): Worker {
    const worker = new Worker(new URL("./encoding-worker.js", import.meta.url), { workerData: definition });
    worker.on("message", (encoded: Encoded) => {
      const asked = this.#asked.get(encoded.id);
      this.#asked.delete(encoded.id);
      if ("error" in encoded) asked?.reject(new TokenizerError(encoded.error));
      else asked?.resolve(encoded.tokens);
      if (this.#asked.size === 0) worker.unref();
    });
    worker.on("error", () => {}); // its end follows
    worker.on("exit", () => {
      this.#worker = undefined;
      this.#failed();
    });
    return worker;
  }

  /** Encodes here what a thread did not: it may have no memory, or its script may not be where it is expected. */
  #failed(): void {
    const all = [...this.#asked.values()];
    this.#asked.clear();
    for (const { text, resolve, reject } of all) {
      try {
        resolve(this.#encodeHere(text));
      } catch (error) {
        reject(error);
      }
    }
  }
}

/** Undefined for a tokenizer that is none of this package's, or quick. */
function definitionOf(tokenizer: Tokenizer): TokenizerDefinition | undefined {
  const json = huggingFaceJson(tokenizer);
  if (json !== undefined) return { kind: "huggingface", json };
  const { tokens } = tokenizer as Partial<WorldTokenizer>;
  return tokenizer.kind === "world" && tokens ? { kind: "world", tokens } : undefined;
}
