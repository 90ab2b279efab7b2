// Opens a tokenizer file, whose content says what kind it is, and finds the one that belongs to a checkpoint.

import { dirname, embeddedModel, embeddedTokenizer, fileSize, join, listFolder, readBytes } from "#platform/files";
import { TokenizerError } from "../errors.js";
import { describedBytes, describeForeignFile } from "../foreign-file.js";
import type { StoredVocabulary } from "../stored-vocabulary.js";
import { decodeText } from "../text-files.js";
import { byteTokenizer } from "./bytes.js";
import { packagedTokenizer, packagedVocabularySize } from "./packaged-vocabulary.js";
import { isWorldVocabulary, storedTokenizer } from "./stored-tokenizer.js";
import type { Tokenizer } from "./tokenizer.js";
import { looksLikeWorldVocabulary, type WorldTokenizer, worldFile, worldTokenizer } from "./world.js";

const maxFileSize = 64 * 2 ** 20;

/** The names that are tried where a folder cannot be listed. */
const tokenizerFiles = ["tokenizer.json", "20B_tokenizer.json", worldFile];

/**
 * RWKV's two vocabularies are often kept in one folder. Pile models have 50277 tokens, World models 65536, nearly all
 * of them in use.
 */
const worldVocabulary = 65_000;

/**
 * Vocabularies are padded to a multiple of at most this: 50277 tokens to 50304 rows of the embedding, 65530 to 65536.
 */
const largestMultiple = 512;

/**
 * Opens a tokenizer.
 *
 * @param path a tokenizer.json, a World vocabulary, a folder with either, "world" for the World vocabulary in the package, or "bytes"
 * @param vocabulary the size of the vocabulary of the model that the tokenizer is for; if it is given, the tokenizer
 *   must fit, and the first in a folder that fits is opened
 * @throws TokenizerError when the tokenizer is missing, damaged, or does not fit
 */
export async function openTokenizer(path: string, vocabulary?: number): Promise<Tokenizer> {
  const own = isNamedTokenizer(path) ? await namedTokenizers[path]() : undefined;
  const names = own ? undefined : await listFolder(path, tokenizerFiles);
  if (!names) {
    const tokenizer = own ?? (await openTokenizerFile(path));
    const mismatch = vocabulary !== undefined && sizeMismatch(tokenizer, vocabulary);
    if (mismatch) throw new TokenizerError(`${path}: ${mismatch}`);
    return tokenizer;
  }
  const files = tokenizerFilesIn(path, names, vocabulary);
  if (files.length === 0) throw new TokenizerError(`${path}: no tokenizer file in this folder`);
  if (vocabulary === undefined) return openTokenizerFile(files[0] as string);
  const { found, reasons } = await firstThatFits(files, vocabulary);
  if (!found) throw new TokenizerError(reasons.join("; "));
  return found.tokenizer;
}

/** Tokenizers that are no files. */
const namedTokenizers: Readonly<Record<"bytes" | "world", () => Tokenizer | Promise<Tokenizer>>> = {
  bytes: byteTokenizer,
  world: packagedTokenizer,
};

/** Whether a tokenizer is asked for by a name rather than by the path of a file. */
export function isNamedTokenizer(path: string): path is keyof typeof namedTokenizers {
  return Object.hasOwn(namedTokenizers, path);
}

/** A checkpoint as far as its tokenizer goes. */
export interface TokenizedCheckpoint {
  /** Its path. */
  readonly name: string;
  readonly vocabulary?: StoredVocabulary;
}

/**
 * Finds the tokenizer of a checkpoint: the one in it, or a tokenizer file beside it that fits, or by the size of the vocabulary:
 * bytes for 256, the World vocabulary in the package for 65530 to 65536.
 *
 * @param vocabulary the size of the model's vocabulary
 * @param hasFolder whether files may lie beside the checkpoint
 * @throws TokenizerError when there is none
 */
export async function tokenizerFor(
  checkpoint: TokenizedCheckpoint,
  vocabulary: number,
  hasFolder: boolean = true,
): Promise<Tokenizer> {
  const inside = tokenizerIn(checkpoint);
  if (inside) {
    const mismatch = sizeMismatch(inside, vocabulary);
    if (mismatch) throw new TokenizerError(`${checkpoint.name}: ${mismatch}`);
    return inside;
  }
  const beside = hasFolder ? await tokenizerBeside(checkpoint.name, vocabulary) : undefined;
  return (
    beside?.tokenizer ??
    (await tokenizerOf(vocabulary, hasFolder ? checkpoint.name : undefined, checkpoint.vocabulary?.kind))
  );
}

/**
 * The tokenizer in a checkpoint itself; undefined where there is none, or one that is not RWKV's.
 *
 * @throws TokenizerError when its tokens are not written as expected
 */
export function tokenizerIn({ name, vocabulary }: TokenizedCheckpoint): WorldTokenizer | undefined {
  return vocabulary && isWorldVocabulary(vocabulary) ? storedTokenizer(name, vocabulary) : undefined;
}

/**
 * The path of the tokenizer file beside a checkpoint, or in its folder; undefined when there is none.
 *
 * @throws TokenizerError when there are tokenizer files and none fits
 */
export async function tokenizerFileFor(checkpointPath: string, vocabulary: number): Promise<string | undefined> {
  return (await tokenizerBeside(checkpointPath, vocabulary))?.path;
}

/**
 * The tokenizer of a model without a tokenizer file: bytes for a vocabulary of 256, RWKV World's for 65530 to 65536.
 *
 * @param unused the kind of a vocabulary in the model's file that is not one of RWKV's
 * @throws TokenizerError for any other vocabulary
 */
export async function tokenizerOf(vocabulary: number, name = "the model", unused?: string): Promise<Tokenizer> {
  if (vocabulary === 256) return byteTokenizer();
  if (isWorldSize(vocabulary) && unused === undefined) return packagedTokenizer();
  throw new TokenizerError(
    `${name}: no tokenizer beside it (tokenizer.json, 20B_tokenizer.json or rwkv_vocab_*.txt)` +
      (unused === undefined ? "" : `, and the vocabulary in it, of the kind ${unused.slice(0, 60)}, is not used`) +
      "; put the model's there, or name one with the option tokenizer",
  );
}

/** Whether a vocabulary is that of RWKV World, with or without padding. */
function isWorldSize(vocabulary: number): boolean {
  return vocabulary >= packagedVocabularySize && vocabulary <= 65_536;
}

/**
 * Says why a tokenizer cannot belong to a model with this vocabulary; undefined when it may. It may have too many
 * tokens, or so few that padding does not explain the difference; such a pair would run and give nonsense.
 */
export function sizeMismatch(
  { vocabularySize }: Pick<Tokenizer, "vocabularySize">,
  vocabulary: number,
): string | undefined {
  if (vocabularySize <= vocabulary && vocabulary - vocabularySize < largestMultiple) return undefined;
  return `this tokenizer has ${vocabularySize} tokens, the model ${vocabulary}: they do not belong together`;
}

interface FoundTokenizer {
  readonly path: string;
  readonly tokenizer: Tokenizer;
}

async function openTokenizerFile(path: string): Promise<Tokenizer> {
  const size = await fileSize(path);
  if (size === undefined) {
    throw new TokenizerError(`${path}: no such file (a tokenizer.json, a World vocabulary, "world" or "bytes")`);
  }
  if (size > maxFileSize) throw new TokenizerError(`${path}: expected at most ${maxFileSize} bytes, found ${size}`);
  const bytes = await readBytes(path).catch((error: Error) => {
    throw new TokenizerError(error.message, { cause: error });
  });
  const foreign = describeForeignFile(bytes.subarray(0, describedBytes));
  const text = decodeText(bytes, (reason) => new TokenizerError(`${path}: ${foreign ? `found ${foreign}` : reason}`));
  if (looksLikeWorldVocabulary(text)) return worldTokenizer(path, text);
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    const found = text.trimStart().startsWith("{") ? "JSON that is damaged or cut off" : foreign;
    throw new TokenizerError(`${path}: expected a tokenizer.json or a World vocabulary, found ${found ?? "neither"}`, {
      cause,
    });
  }
  // Imported only now, because the library takes a while to load and many models do not need it.
  const { huggingFaceTokenizer } = await import("./hugging-face.js");
  return huggingFaceTokenizer(path, json);
}

/** The tokenizer beside a checkpoint; undefined when there is no file, or when the model's tokens are bytes. */
async function tokenizerBeside(checkpointPath: string, vocabulary: number): Promise<FoundTokenizer | undefined> {
  // Bundlers rename and move the two files in the package.
  if (checkpointPath === embeddedModel) {
    return { path: embeddedTokenizer, tokenizer: await openTokenizerFile(embeddedTokenizer) };
  }
  const inside = await listFolder(checkpointPath, tokenizerFiles);
  const folder = inside ? checkpointPath : dirname(checkpointPath);
  const names = inside ?? (await listFolder(folder, tokenizerFiles)) ?? [];
  const { found, reasons, damaged } = await firstThatFits(tokenizerFilesIn(folder, names, vocabulary), vocabulary);
  if (found || reasons.length === 0 || vocabulary === 256) return found;
  // Beside others, such as that of a Pile model in the same folder, a World model has that of the package. But a file that cannot be
  // read may be the model's own.
  if (isWorldSize(vocabulary) && !damaged) return undefined;
  throw new TokenizerError(
    `${checkpointPath}: no tokenizer beside it that fits; name one with the option tokenizer (${reasons.join("; ")})`,
  );
}

/** The first file that can be opened and fits, and the reasons why those before it cannot be used. */
async function firstThatFits(
  files: readonly string[],
  vocabulary: number,
): Promise<{ found?: FoundTokenizer; reasons: string[]; damaged: boolean }> {
  const reasons: string[] = [];
  let damaged = false;
  for (const path of files) {
    try {
      const tokenizer = await openTokenizerFile(path);
      const mismatch = sizeMismatch(tokenizer, vocabulary);
      if (!mismatch) return { found: { path, tokenizer }, reasons, damaged };
      reasons.push(`${path}: ${mismatch}`);
    } catch (error) {
      if (!(error instanceof TokenizerError)) throw error;
      reasons.push(error.message);
      damaged = true;
    }
  }
  return { reasons, damaged };
}

/** The tokenizer files in a folder, the most likely first. */
function tokenizerFilesIn(folder: string, all: readonly string[], vocabulary?: number): string[] {
  const names = all.toSorted();
  const exact = names.filter((name) => name === "tokenizer.json");
  const json = names.filter((name) => name !== "tokenizer.json" && /tokenizer\.json$/i.test(name));
  const world = names.filter((name) => /^rwkv_vocab_.*\.txt$/i.test(name));
  const worldFirst = vocabulary !== undefined && vocabulary >= worldVocabulary;
  return [...(worldFirst ? world : []), ...exact, ...json, ...(worldFirst ? [] : world)].map((name) =>
    join(folder, name),
  );
}
