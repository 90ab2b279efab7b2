// Prompts as tokens, with the places in them where messages end.

import type { Snapshot } from "../generation/snapshot.js";
import type { Tokenizer } from "../tokenizers/tokenizer.js";
import { ApiError } from "./errors.js";
import { TextEncoding } from "./text-encoding.js";

/** A state that a prompt begins with, in place of the server's own. */
export interface PromptStart {
  /** What names the state, so that states after it are told from others. */
  readonly root: string;
  readonly snapshot: Snapshot;
}

/** A text for the model to continue. */
export interface Prompt {
  /** What it begins with; by default what every prompt does. */
  readonly start?: PromptStart | undefined;
  readonly tokens: Int32Array;
  /** Numbers of tokens after which a message ends, in ascending order. */
  readonly boundaries: readonly number[];
}

/** Characters of texts whose tokens are remembered, in all. */
const rememberedCharacters = 2 ** 23;

/** Texts with more characters for a token than any text has are not encoded. */
const charactersOfToken = 8;

/** Encodes prompts. A conversation comes back with every turn, so the tokens of its pieces are remembered for a while. */
export class PromptEncoder {
  readonly #tokenizer: Tokenizer;
  readonly #encoding: TextEncoding;
  readonly #maxTokens: number;
  /** The tokens of texts, the least recently used first. */
  readonly #remembered = new Map<string, Int32Array>();
  #characters = 0;

  /** @param maxTokens how many tokens a prompt may have */
  constructor(tokenizer: Tokenizer, maxTokens: number) {
    this.#tokenizer = tokenizer;
    this.#encoding = new TextEncoding(tokenizer);
    this.#maxTokens = maxTokens;
  }

  /**
   * Encodes pieces of a text, each alone, so that the end of each is the end of a token.
   *
   * @throws TokenizerError where the vocabulary has no token for a byte; ApiError for a text that is too long to be encoded at all, or
   *   that has no tokens where the tokenizer has none to begin a text with
   */
  async ofPieces(pieces: readonly string[], start?: PromptStart): Promise<Prompt> {
    const characters = pieces.reduce((sum, piece) => sum + piece.length, 0);
    if (characters > this.#maxTokens * charactersOfToken)
      throw promptTooLong(`${characters} characters`, this.#maxTokens);
    const encoded: Int32Array[] = [];
    for (const piece of pieces) encoded.push(await this.#encode(piece));
    const boundaries: number[] = [];
    let length = 0;
    for (const tokens of encoded) {
      length += tokens.length;
      boundaries.push(length);
    }
    const tokens = new Int32Array(length);
    encoded.forEach((piece, i) => tokens.set(piece, i === 0 ? 0 : boundaries[i - 1]));
    return { start, tokens: this.#orBeginning(tokens, start), boundaries: boundaries.slice(0, -1) };
  }

  /** A prompt of token ids. */
  ofTokens(tokens: ArrayLike<number>, start?: PromptStart): Prompt {
    return { start, tokens: this.#orBeginning(Int32Array.from(tokens), start), boundaries: [] };
  }

  /**
   * A text without tokens begins where texts of the training data do, after the end of another; or it goes on from a state that knows
   * what comes next.
   */
  #orBeginning(tokens: Int32Array, start: PromptStart | undefined): Int32Array {
    const isKnown = start?.snapshot.hasLogits || start?.snapshot.pendingToken !== undefined;
    if (tokens.length > 0 || isKnown) return tokens;
    const { endOfText } = this.#tokenizer;
    if (endOfText === undefined) {
      const message = "prompt: expected some text (the model's tokenizer has no token to begin a text with)";
      throw new ApiError(400, message, { param: "prompt", code: "invalid_value" });
    }
    return Int32Array.of(endOfText);
  }

  /** The tokens of any text. @throws TokenizerError where the vocabulary has no token for a byte */
  tokensOf(text: string): Promise<Int32Array> {
    return this.#encoding.encode(text);
  }

  /** Ends what encodes long texts. */
  close(): Promise<void> {
    return this.#encoding.close();
  }

  async #encode(text: string): Promise<Int32Array> {
    const tokens = this.#remembered.get(text) ?? (await this.#encoding.encode(text));
    // It may have been encoded for another request meanwhile.
    if (!this.#remembered.delete(text)) this.#characters += text.length;
    this.#remembered.set(text, tokens);
    for (const oldest of this.#remembered.keys()) {
      if (this.#characters <= rememberedCharacters) break;
      this.#remembered.delete(oldest);
      this.#characters -= oldest.length;
    }
    return tokens;
  }
}

/** The error for a prompt that has more than a server reads. */
export function promptTooLong(found: string, maxTokens: number): ApiError {
  const message = `the prompt has ${found}; this server reads at most ${maxTokens} tokens`;
  return new ApiError(400, message, { code: "context_length_exceeded" });
}
