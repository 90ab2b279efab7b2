// Turns documents into tokens: one stream for training, and the held-out texts for measuring.

import { readFile, stat } from "node:fs/promises";
import { openCheckpoint } from "../checkpoints/open-checkpoint.js";
import { TrainingError } from "../errors.js";
import { interruptible } from "../interruptible.js";
import { bindModel } from "../models/versions.js";
import { openTokenizer, tokenizerFileFor, tokenizerIn, tokenizerOf } from "../tokenizers/open-tokenizer.js";
import { worldVocabularyText } from "../tokenizers/stored-tokenizer.js";
import type { Tokenizer } from "../tokenizers/tokenizer.js";
import { bytePairTraining, pieceEncoder } from "../tokenizers/train-bpe.js";
import type { Document, SplitDocuments } from "./documents.js";

/** Names by which a tokenizer is found beside a model. */
const jsonFile = "tokenizer.json";
const worldFile = "rwkv_vocab_v20230424.txt";
export const tokenizerFiles: readonly string[] = [jsonFile, worldFile];

/** A held-out text. */
export interface HeldOutText {
  /** Begins with the end-of-text token, where the vocabulary has one: so its first token is predicted too. */
  readonly tokens: Int32Array;
  /** The number of bytes of the text in UTF-8. */
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
  readonly file?: { readonly name: string; readonly content: string | Uint8Array };
}

/**
 * Trains a tokenizer on the documents that are not held out.
 *
 * @throws InterruptedError
 */
export async function trainTokenizer(
  documents: readonly Document[],
  vocabulary: number,
  signal?: AbortSignal,
): Promise<TrainingTokenizer> {
  const parts = documents.flatMap((document) => document.parts);
  return trainedTokenizer(JSON.stringify(await interruptible(bytePairTraining(parts, vocabulary), signal)));
}

/** A tokenizer that was trained here. @param content its tokenizer.json */
export async function trainedTokenizer(content: string): Promise<TrainingTokenizer> {
  const { huggingFaceTokenizer } = await import("../tokenizers/hugging-face.js");
  const tokenizer = huggingFaceTokenizer("the trained tokenizer", JSON.parse(content));
  return { tokenizer, encode: pieceEncoder(tokenizer), file: { name: "tokenizer.json", content } };
}

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

/** @throws TrainingError when there is less to learn from than one sequence; InterruptedError */
export async function datasetOf(
  { training, validation }: SplitDocuments,
  { tokenizer, encode }: TrainingTokenizer,
  context: number,
  signal?: AbortSignal,
): Promise<Dataset> {
  const start = tokenizer.endOfText === undefined ? [] : [tokenizer.endOfText];
  const tokensOf = (documents: readonly Document[]) => interruptible(encoded(documents, start, encode), signal);
  const tokens = await tokensOf(training);
  if (tokens.length < context + 1) {
    throw new TrainingError(
      `expected at least ${context + 1} tokens to train on, one sequence and the token after it, found ${tokens.length}: ` +
        "give more text, or a shorter context",
    );
  }
  const heldOut: HeldOutText[] = [];
  for (const document of validation) heldOut.push({ tokens: await tokensOf([document]), bytes: bytesOf(document) });
  return {
    tokens,
    bytesPerToken: training.reduce((sum, document) => sum + bytesOf(document), 0) / tokens.length,
    heldOut: heldOut.filter((text) => text.tokens.length > 1),
  };
}

/** The tokens of documents one after another, each after `start`. */
function* encoded(
  documents: readonly Document[],
  start: readonly number[],
  encode: (text: string) => number[],
): Generator<void, Int32Array, void> {
  const pieces: Int32Array[] = [];
  for (const { parts } of documents) {
    pieces.push(Int32Array.from(start));
    for (const part of parts) {
      pieces.push(new Int32Array(encode(part)));
      yield;
    }
  }
  const tokens = new Int32Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    tokens.set(piece, at);
    at += piece.length;
  }
  return tokens;
}

function bytesOf({ parts }: Document): number {
  return parts.reduce((sum, part) => sum + Buffer.byteLength(part), 0);
}
