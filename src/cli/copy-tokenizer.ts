// Puts the tokenizer of a model beside a file that it was written to, so that the file can be used at once.

import { writeFileAtomically } from "#platform/file-writer";
import { basename, dirname, fileSize, join, readBytes } from "#platform/files";
import { TokenizerError } from "../errors.js";
import { type TokenizedCheckpoint, tokenizerFileFor, tokenizerIn } from "../tokenizers/open-tokenizer.js";
import { worldVocabularyText } from "../tokenizers/stored-tokenizer.js";
import { worldFile } from "../tokenizers/world.js";
import { note } from "./terminal.js";

/** Copies the tokenizer in a checkpoint, or beside it, to a file written elsewhere; never over another one. */
export async function copyTokenizer(
  checkpoint: TokenizedCheckpoint,
  output: string,
  vocabulary: number,
): Promise<void> {
  const found = await tokenizerBytes(checkpoint, vocabulary).catch((error) => {
    if (!(error instanceof TokenizerError)) throw error;
    return undefined; // there are some, but they do not fit
  });
  if (!found) return;
  const { name, bytes } = found;
  const to = join(dirname(output), basename(name));
  if ((await fileSize(to)) === undefined) {
    await writeFileAtomically(to, (file) => file.append(bytes));
    note(`${to}: its tokenizer`);
  } else if (!Buffer.from(bytes).equals(await readBytes(to))) {
    note(`${to} is another tokenizer${name === worldFile ? "" : `; use ${output} with --tokenizer ${name}`}`);
  }
}

async function tokenizerBytes(checkpoint: TokenizedCheckpoint, vocabulary: number) {
  const inside = tokenizerIn(checkpoint);
  if (inside) return { name: worldFile, bytes: new TextEncoder().encode(worldVocabularyText(inside)) };
  const name = await tokenizerFileFor(checkpoint.name, vocabulary);
  return name === undefined ? undefined : { name, bytes: await readBytes(name) };
}
