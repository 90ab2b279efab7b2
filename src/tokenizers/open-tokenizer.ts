// Opens a tokenizer file, whose kind is told by its content, and finds the one that belongs to a checkpoint.

import { dirname, embeddedModel, embeddedTokenizer, fileSize, join, listFolder, readText } from "#platform/files";
import { TokenizerError } from "../errors.js";
import { byteTokenizer } from "./bytes.js";
import type { Tokenizer } from "./tokenizer.js";
import { looksLikeWorldVocabulary, worldTokenizer } from "./world.js";

const maxFileSize = 64 * 2 ** 20;

/** Where a folder cannot be listed, these are looked for. */
const tokenizerFiles = ["tokenizer.json", "20B_tokenizer.json", "rwkv_vocab_v20230424.txt"];

/**
 * Opens a tokenizer.
 *
 * @param path a tokenizer.json, a World vocabulary, a folder with either, or "bytes"
 * @throws TokenizerError
 */
export async function openTokenizer(path: string): Promise<Tokenizer> {
  if (path === "bytes") return byteTokenizer();
  const names = await listFolder(path, tokenizerFiles);
  if (names) {
    const found = tokenizerFileIn(path, names);
    if (!found) throw new TokenizerError(`${path}: no tokenizer file in this folder`);
    return openTokenizer(found);
  }
  const size = await fileSize(path);
  if (size === undefined) {
    throw new TokenizerError(`${path}: no such file (a tokenizer.json, a World vocabulary, or "bytes")`);
  }
  if (size > maxFileSize) throw new TokenizerError(`${path}: expected at most ${maxFileSize} bytes, found ${size}`);
  const text = await readText(path);
  if (looksLikeWorldVocabulary(text)) return worldTokenizer(path, text);
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new TokenizerError(`${path}: neither a tokenizer.json nor a World vocabulary`, { cause });
  }
  // The library takes a while to load, and models without such a file do without it.
  const { huggingFaceTokenizer } = await import("./hugging-face.js");
  return huggingFaceTokenizer(path, json);
}

/**
 * Finds the tokenizer of a checkpoint: a tokenizer file beside it; bytes for a vocabulary of 256.
 *
 * @throws TokenizerError when there is none
 */
export async function tokenizerFor(checkpointPath: string, vocabulary: number): Promise<Tokenizer> {
  const found = await tokenizerFileFor(checkpointPath, vocabulary);
  return found ? openTokenizer(found) : tokenizerOf(vocabulary, checkpointPath);
}

/** The tokenizer file beside a checkpoint, or in its folder; undefined where there is none. */
export async function tokenizerFileFor(checkpointPath: string, vocabulary: number): Promise<string | undefined> {
  if (checkpointPath === embeddedModel) return embeddedTokenizer; // bundlers rename and move the two
  const inside = await listFolder(checkpointPath, tokenizerFiles);
  const folder = inside ? checkpointPath : dirname(checkpointPath);
  return tokenizerFileIn(folder, inside ?? (await listFolder(folder, tokenizerFiles)) ?? [], vocabulary);
}

/**
 * The tokenizer of a model that has no file for it: bytes, for a vocabulary of 256.
 *
 * @throws TokenizerError for any other
 */
export function tokenizerOf(vocabulary: number, name = "the model"): Tokenizer {
  if (vocabulary === 256) return byteTokenizer();
  throw new TokenizerError(
    `${name}: no tokenizer beside it (tokenizer.json, 20B_tokenizer.json or rwkv_vocab_*.txt); name one with the option tokenizer`,
  );
}

/**
 * The tokenizer file of a folder. RWKV's two vocabularies are often kept side by side; the size of the model's embedding
 * tells them apart: Pile models have 50277 words, World models 65536.
 */
function tokenizerFileIn(folder: string, all: readonly string[], vocabulary?: number): string | undefined {
  const names = all.toSorted();
  const json = names.find((name) => name === "tokenizer.json") ?? names.find((name) => /tokenizer\.json$/i.test(name));
  const world = names.find((name) => /^rwkv_vocab_.*\.txt$/i.test(name));
  if (vocabulary === 256) return names.includes("tokenizer.json") ? join(folder, "tokenizer.json") : undefined;
  const name = json && world ? (vocabulary === 65536 ? world : json) : (json ?? world);
  return name && join(folder, name);
}
