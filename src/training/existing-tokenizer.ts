// Tokenizers that are there already, as files or in checkpoints, for runs that do not train one.

import { readFile, stat } from "node:fs/promises";
import { openCheckpoint } from "../checkpoints/open-checkpoint.js";
import { bindModel } from "../models/versions.js";
import { openTokenizer, tokenizerFileFor, tokenizerIn, tokenizerOf } from "../tokenizers/open-tokenizer.js";
import { worldVocabularyText } from "../tokenizers/stored-tokenizer.js";
import { worldFile } from "../tokenizers/world.js";
import type { TrainingTokenizer } from "./dataset.js";

/** Names by which a tokenizer is found beside a model. */
const jsonFile = "tokenizer.json";
export const tokenizerFiles: readonly string[] = [jsonFile, worldFile];

/** A tokenizer that is there already. @param path of its file, or of a folder with one; or "bytes" @throws TokenizerError */
export async function existingTokenizer(path: string): Promise<TrainingTokenizer> {
  let tokenizer = await openTokenizer(path);
  let file = path;
  if (path !== "bytes" && (await stat(path)).isDirectory()) {
    file = (await tokenizerFileFor(path, tokenizer.vocabularySize)) ?? path;
    tokenizer = await openTokenizer(file);
  }
  const encode = (text: string) => tokenizer.encode(text);
  if (path === "bytes") return { tokenizer, encode };
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
  if (inside) {
    const file = { name: worldFile, content: worldVocabularyText(inside) };
    return { tokenizer: inside, encode: (text) => inside.encode(text), file };
  }
  const file = await tokenizerFileFor(path, vocabulary);
  if (file !== undefined) return existingTokenizer(file);
  const tokenizer = tokenizerOf(vocabulary, path);
  return { tokenizer, encode: (text) => tokenizer.encode(text) };
}
