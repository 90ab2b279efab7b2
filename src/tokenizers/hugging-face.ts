// Tokenizers in Hugging Face's tokenizer.json format, run by @huggingface/tokenizers. This file adds decoding by
// bytes, and merges that are fast for long texts without spaces, too.

import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import { TokenizerError } from "../errors.js";
import { byteLevelCharacters } from "./byte-level.js";
import { bytePairMerges } from "./byte-pair-merges.js";
import { byteTokenDecoding, checkId, checkText, type Tokenizer, type TokenStream } from "./tokenizer.js";

/** What tokenizers were made of. */
const definitions = new WeakMap<Tokenizer, unknown>();

/** The tokenizer.json that a tokenizer was made of, for another thread to make the same; undefined for other tokenizers. */
export function huggingFaceJson(tokenizer: Tokenizer): unknown {
  return definitions.get(tokenizer);
}

/** The largest id that is accepted, since the library makes an array with an element for each. */
const maxId = 2 ** 20;

interface TokenizerJson {
  model?: { type?: unknown; vocab?: unknown };
  added_tokens?: { id?: unknown; content?: unknown }[];
  decoder?: { type?: unknown; decoders?: { type?: unknown }[] } | null;
}

/**
 * Makes a tokenizer from a parsed tokenizer.json.
 *
 * @param name the name of the file, for errors
 * @throws TokenizerError when the value is not a tokenizer.json
 */
export function huggingFaceTokenizer(name: string, json: unknown): Tokenizer {
  const { model, decoder } = (json ?? {}) as TokenizerJson;
  if (typeof model !== "object" || model === null || typeof model.vocab !== "object") {
    throw new TokenizerError(`${name}: expected a tokenizer.json with a model and its vocab`);
  }
  checkIds(name, json as TokenizerJson);
  let tokenizer: HuggingFaceTokenizer;
  try {
    tokenizer = new HuggingFaceTokenizer(json as object, { clean_up_tokenization_spaces: false });
  } catch (cause) {
    throw new TokenizerError(`${name}: not a usable tokenizer.json (${(cause as Error).message})`, { cause });
  }
  mergeFaster(tokenizer.model as Partial<BytePairModel> | null);
  const vocabulary = tokenizer.get_vocab(true);
  const added = tokenizer.get_added_tokens_decoder();
  const used = new Set([...vocabulary.values(), ...added.keys()]);
  let vocabularySize = 0;
  for (const id of used) vocabularySize = Math.max(vocabularySize, id + 1);
  const endOfText = ["<|endoftext|>", "</s>", "<|end_of_text|>"]
    .map((t) => tokenizer.token_to_id(t))
    .find((id) => id !== undefined);

  const byteLevel = decoder?.type === "ByteLevel" || decoder?.decoders?.some((part) => part.type === "ByteLevel");
  const made: Tokenizer = {
    kind: "huggingface",
    vocabularySize,
    ...(endOfText !== undefined && { endOfText }),
    unusedIds: used.size === vocabularySize ? [] : unusedIn(used, vocabularySize),
    encode: (text) => (checkText(text) === "" ? [] : tokenizer.encode(text, { add_special_tokens: false }).ids),
    ...(byteLevel ? byteLevelDecoding(tokenizer) : windowDecoding(tokenizer)),
  };
  definitions.set(made, json);
  return made;
}

function unusedIn(used: ReadonlySet<number>, vocabularySize: number): number[] {
  return Array.from({ length: vocabularySize }, (_, id) => id).filter((id) => !used.has(id));
}

function checkIds(name: string, { model, added_tokens: added }: TokenizerJson): void {
  // The vocabulary of Unigram is a list, in which positions are ids.
  const vocab = Array.isArray(model?.vocab) ? [] : Object.entries((model?.vocab ?? {}) as Record<string, unknown>);
  const more = Array.isArray(added) ? added.map((token) => [String(token?.content), token?.id] as const) : [];
  for (const [token, id] of [...vocab, ...more]) {
    if (!(Number.isInteger(id) && (id as number) >= 0 && (id as number) <= maxId)) {
      throw new TokenizerError(
        `${name}: token ${JSON.stringify(token.slice(0, 60))}: expected an id from 0 to ${maxId}, found ` +
          `${String(id).slice(0, 60)}`,
      );
    }
  }
}

/** What is used of the library's class `BPE`, whose types it does not export to ECMAScript modules. */
interface BytePairModel {
  readonly merges: string[][];
  readonly end_of_word_suffix?: string | null;
  readonly continuing_subword_suffix?: string | null;
  bpe(piece: string): string[];
}

function mergeFaster(model: Partial<BytePairModel> | null): void {
  if (!model?.bpe || !model.merges || model.end_of_word_suffix || model.continuing_subword_suffix) return;
  model.bpe = bytePairMerges(model.merges);
}

/** Byte-level vocabularies write each byte as a character (GPT-2's table); added tokens stand there as they are. */
function byteLevelDecoding(tokenizer: HuggingFaceTokenizer): Pick<Tokenizer, "decode" | "stream"> {
  const byteOf = new Map(byteLevelCharacters().map((character, byte) => [character, byte]));
  const added = tokenizer.get_added_tokens_decoder();
  const encoder = new TextEncoder();
  const cache = new Map<number, Uint8Array>();
  return byteTokenDecoding((id) => {
    let bytes = cache.get(id);
    if (!bytes) {
      const token = tokenizer.id_to_token(id) ?? "";
      const whole = added.has(id) || [...token].some((character) => !byteOf.has(character));
      bytes = whole ? encoder.encode(token) : Uint8Array.from([...token], (c) => byteOf.get(c) as number);
      cache.set(id, bytes);
    }
    return bytes;
  });
}

/**
 * Decoding for other kinds, where a token's text depends on its neighbours: decodes a window of the last tokens with
 * and without the new one, and emits the difference once it ends in a whole character.
 */
function windowDecoding(tokenizer: HuggingFaceTokenizer): Pick<Tokenizer, "decode" | "stream"> {
  const decode = (ids: ArrayLike<number>) =>
    ids.length === 0 ? "" : tokenizer.decode(Array.from(ids, checkId), { clean_up_tokenization_spaces: false });
  const stream = (): TokenStream => {
    let window: number[] = [];
    let emitted = 0; // how many of the window's tokens have been emitted
    const emit = (ending: boolean) => {
      const before = decode(window.slice(0, emitted));
      const text = decode(window);
      if (!ending && (text.length <= before.length || text.endsWith("\ufffd"))) return "";
      window = window.slice(emitted);
      emitted = window.length;
      return text.slice(before.length);
    };
    return {
      push(id) {
        window.push(checkId(id));
        return emit(false);
      },
      end: () => (window.length > emitted ? emit(true) : ""),
    };
  };
  return { decode, stream };
}
