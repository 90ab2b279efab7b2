// The tokenizer of a run: an existing one, that of the base model, or one that is trained; and the copy of it in the run's
// folder, which is all that resuming needs.

import { readFile } from "node:fs/promises";
import { OptionError, TrainingError } from "../errors.js";
import { type TrainingTokenizer, trainedTokenizer, trainTokenizer } from "./dataset.js";
import type { Document } from "./document.js";
import type { ReadOptions } from "./documents.js";
import { checkpointTokenizer, existingTokenizer } from "./existing-tokenizer.js";
import type { Recipe } from "./recipe.js";
import type { RunFolder } from "./run-folder.js";

/** The tokenizer of a run that begins, which it leaves a copy of in the folder. @throws TokenizerError, InterruptedError */
export async function newTokenizer(
  recipe: Recipe,
  folder: RunFolder,
  documents: readonly Document[],
  { signal, onNotice }: ReadOptions,
): Promise<TrainingTokenizer> {
  const found = await existing(recipe);
  if (!found) onNotice?.(`training a tokenizer of ${recipe.vocabulary} tokens`);
  const tokenizer = found ?? (await trainTokenizer(documents, recipe.vocabulary, signal));
  if (tokenizer.file) await folder.writeTokenizer(tokenizer.file);
  return tokenizer;
}

/** The tokenizer of a run that is resumed. @throws TrainingError where its copy is gone */
export async function tokenizerOfRun(recipe: Recipe, folder: RunFolder): Promise<TrainingTokenizer> {
  if (recipe.tokenizer === "bytes") return existingTokenizer("bytes");
  const file = await folder.tokenizerFile();
  const trained = recipe.tokenizer === null && recipe.from === null;
  if (file !== undefined) return trained ? trainedTokenizer(await readFile(file, "utf8")) : existingTokenizer(file);
  // A base model of bytes has no file either.
  const tokenizer = recipe.tokenizer === null ? await existing(recipe) : undefined;
  if (tokenizer && !tokenizer.file) return tokenizer;
  throw new TrainingError(`${folder.path}: expected the tokenizer of the run to resume in this folder, found none`);
}

/** @throws OptionError where the tokenizer at a path is not that of the run */
export async function checkTokenizer(path: string, recipe: Recipe, folder: RunFolder): Promise<void> {
  const file = recipe.tokenizer === "bytes" ? undefined : await folder.tokenizerFile();
  const given = (await existingTokenizer(path)).file?.content;
  const same =
    file === undefined || given === undefined ? file === given : (await readFile(file)).equals(Buffer.from(given));
  if (same) return;
  const begun = recipe.tokenizer ?? "one of its own";
  throw new OptionError("tokenizer", path, `${begun}, with which the run in ${folder.path} was started`);
}

/** Undefined where one is to be trained. */
async function existing({ tokenizer, from }: Recipe): Promise<TrainingTokenizer | undefined> {
  if (tokenizer !== null) return existingTokenizer(tokenizer);
  return from === null ? undefined : checkpointTokenizer(from);
}
