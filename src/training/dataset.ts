// Documents as tokens: one stream to learn from, and the held-out texts to measure with.

import { readFile } from "node:fs/promises";
import { openCheckpoint } from "../checkpoints/open-checkpoint.js";
import { TrainingError } from "../errors.js";
import { bindModel } from "../models/versions.js";
import { openTokenizer, tokenizerFileFor, tokenizerOf } from "../tokenizers/open-tokenizer.js";
import type { Tokenizer } from "../tokenizers/tokenizer.js";
import { pieceEncoder, trainBytePairEncoding } from "../tokenizers/train-bpe.js";
import type { Document, SplitDocuments } from "./documents.js";

/** A held-out text. */
export interface HeldOutText {
  /** Begins with the end-of-text token, where the vocabulary has one: so its first token is predicted too. */
  readonly tokens: Int32Array;
  /** Of the text, in UTF-8. */
  readonly bytes: number;
}

export interface Dataset {
  /** All training documents, each after an end-of-text token. */
  readonly tokens: Int32Array;
  readonly bytesPerToken: number;
  readonly heldOut: readonly HeldOutText[];
}

/** A tokenizer, and how it is kept beside the model. */
export interface TrainingTokenizer {
  readonly tokenizer: Tokenizer;
  readonly encode: (text: string) => number[];
  /** Undefined for bytes, which need no file. */
  readonly file?: { readonly name: string; readonly content: string };
}

/** Trains a tokenizer on the documents that are not held out. */
export async function trainTokenizer(documents: readonly Document[], vocabulary: number): Promise<TrainingTokenizer> {
  const json = trainBytePairEncoding(
    documents.map(({ text }) => text),
    vocabulary,
  );
  return trainedTokenizer(JSON.stringify(json));
}

/** A tokenizer that was trained here. @param content its tokenizer.json */
export async function trainedTokenizer(content: string): Promise<TrainingTokenizer> {
  const { huggingFaceTokenizer } = await import("../tokenizers/hugging-face.js");
  const tokenizer = huggingFaceTokenizer("the trained tokenizer", JSON.parse(content));
  return { tokenizer, encode: pieceEncoder(tokenizer), file: { name: "tokenizer.json", content } };
}

/** A tokenizer that is there already. @throws TokenizerError */
export async function existingTokenizer(path: string): Promise<TrainingTokenizer> {
  const tokenizer = await openTokenizer(path);
  const encode = (text: string) => tokenizer.encode(text);
  if (path === "bytes") return { tokenizer, encode };
  // Under a name by which it is found beside a model.
  const name = tokenizer.kind === "world" ? "rwkv_vocab_v20230424.txt" : "tokenizer.json";
  return { tokenizer, encode, file: { name, content: await readFile(path, "utf8") } };
}

/** The tokenizer of a checkpoint. @throws TokenizerError, CheckpointError */
export async function checkpointTokenizer(path: string): Promise<TrainingTokenizer> {
  const checkpoint = await openCheckpoint(path);
  const { vocabulary } = bindModel(checkpoint).size;
  await checkpoint.close();
  const file = await tokenizerFileFor(path, vocabulary);
  if (file !== undefined) return existingTokenizer(file);
  const tokenizer = tokenizerOf(vocabulary, path);
  return { tokenizer, encode: (text) => tokenizer.encode(text) };
}

/** @throws TrainingError when there is less to learn from than one sequence */
export function datasetOf(
  { training, validation }: SplitDocuments,
  { tokenizer, encode }: TrainingTokenizer,
  context: number,
): Dataset {
  const start = tokenizer.endOfText === undefined ? [] : [tokenizer.endOfText];
  const parts = training.map(({ text }) => Int32Array.from([...start, ...encode(text)]));
  const tokens = new Int32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    tokens.set(part, at);
    at += part.length;
  }
  if (tokens.length < context + 1) {
    throw new TrainingError(
      `expected at least ${context + 1} tokens to train on, one sequence and what follows it, found ${tokens.length}: ` +
        "give more text, or a shorter context",
    );
  }
  const bytes = training.reduce((sum, { text }) => sum + Buffer.byteLength(text), 0);
  const heldOut = validation.map(({ text }) => {
    return { tokens: Int32Array.from([...start, ...encode(text)]), bytes: Buffer.byteLength(text) };
  });
  return { tokens, bytesPerToken: bytes / tokens.length, heldOut: heldOut.filter((text) => text.tokens.length > 1) };
}
