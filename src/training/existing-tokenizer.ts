// Tokenizers that are there already, as files or in checkpoints, for runs that do not train one.

import { readFile, stat } from "node:fs/promises";
import { openCheckpoint } from "../checkpoints/open-checkpoint.js";
import { bindModel } from "../models/versions.js";
import {
  isNamedTokenizer,
  openTokenizer,
  tokenizerFileFor,
  tokenizerIn,
  tokenizerOf,
} from "../tokenizers/open-tokenizer.js";
import { worldVocabularyText } from "../tokenizers/stored-tokenizer.js";
import type { Tokenizer } from "../tokenizers/tokenizer.js";
import { type WorldTokenizer, worldFile } from "../tokenizers/world.js";
import type { TrainingTokenizer } from "./dataset.js";

/** Names by which a tokenizer is found beside a model. */
const jsonFile = "tokenizer.json";
export const tokenizerFiles: readonly string[] = [jsonFile, worldFile];

/**
 * A tokenizer that is there already.
 *
 * @param path of its file, or of a folder with one; or "world" or "bytes"
 * @throws TokenizerError
 */
export async function existingTokenizer(path: string): Promise<TrainingTokenizer> {
  let tokenizer = await openTokenizer(path);
  if (isNamedTokenizer(path)) return withoutFile(tokenizer);
  let file = path;
  if ((await stat(path)).isDirectory()) {
    file = (await tokenizerFileFor(path, tokenizer.vocabularySize)) ?? path;
    tokenizer = await openTokenizer(file);
  }
  const encode = (text: string) => tokenizer.encode(text);
  // Under a name by which it is found beside a model.
  const name = tokenizer.kind === "world" ? worldFile : jsonFile;
  return { tokenizer, encode, file: { name, content: await readFile(file) } };
}

/** The tokenizer of a checkpoint. @throws TokenizerError, CheckpointError */
export async function checkpointTokenizer(path: string): Promise<TrainingTokenizer> {
  const checkpoint = await openCheckpoint(path);
  const { vocabulary } = bindModel(checkpoint).size;
  await checkpoint.close();
  const inside = tokenizerIn(checkpoint);
  if (inside) return withoutFile(inside);
  const file = await tokenizerFileFor(path, vocabulary);
  if (file !== undefined) return existingTokenizer(file);
  return withoutFile(await tokenizerOf(vocabulary, path));
}

/** A tokenizer that was in no file of its own; a run gets one, if it is not that of bytes. */
function withoutFile(tokenizer: Tokenizer): TrainingTokenizer {
  const encode = (text: string) => tokenizer.encode(text);
  if (tokenizer.kind !== "world") return { tokenizer, encode };
  return { tokenizer, encode, file: { name: worldFile, content: worldVocabularyText(tokenizer as WorldTokenizer) } };
}
