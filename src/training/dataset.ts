// Turns documents into tokens: one stream for training, and the held-out texts for measuring.

import { TrainingError } from "../errors.js";
import { interruptible } from "../interruptible.js";
import type { Tokenizer } from "../tokenizers/tokenizer.js";
import { bytePairTraining, pieceEncoder } from "../tokenizers/train-bpe.js";
import type { Document, SplitDocuments } from "./document.js";

const utf8 = new TextEncoder();

/** Token ids; of vocabularies up to 65536 they may be in half the memory. */
export type TokenArray = Int32Array | Uint16Array;

/** Tokens, and which of them are learned. */
export interface LearnedTokens {
  readonly tokens: TokenArray;
  /** 1 for each token that is to be predicted, 0 for each that is only read; where it is absent, all are predicted. */
  readonly learned?: Uint8Array;
}

/** A held-out text. Begins with the end-of-text token, where the vocabulary has one: so its first token is predicted too. */
export interface HeldOutText extends LearnedTokens {
  /** The number of bytes in UTF-8 of what is predicted. */
  readonly bytes: number;
}

/** All training documents, each after an end-of-text token. */
export interface Dataset extends LearnedTokens {
  /** Of those that are predicted. */
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

/** @throws TrainingError when there is less to learn from than one sequence; InterruptedError */
export async function datasetOf(
  { training, validation }: SplitDocuments,
  { tokenizer, encode }: TrainingTokenizer,
  context: number,
  signal?: AbortSignal,
): Promise<Dataset> {
  const start = tokenizer.endOfText === undefined ? [] : [tokenizer.endOfText];
  const tokensOf = (documents: readonly Document[]) => interruptible(encoded(documents, start, encode), signal);
  const all = await tokensOf(training);
  checkTokenCount(all.tokens.length, context);
  const predicted = predictedCount(all);
  if (predicted === 0) throw new TrainingError("expected answers of an assistant to learn from, found none");
  const heldOut: HeldOutText[] = [];
  for (const document of validation) heldOut.push({ ...(await tokensOf([document])), bytes: bytesOf(document) });
  return {
    ...all,
    bytesPerToken: training.reduce((sum, document) => sum + bytesOf(document), 0) / predicted,
    heldOut: heldOut.filter((text) => text.tokens.length > 1 && targetCount(text) > 0),
  };
}

/** @throws TrainingError when there is less to learn from than one sequence */
export function checkTokenCount(found: number, context: number): void {
  if (found >= context + 1) return;
  throw new TrainingError(
    `expected at least ${context + 1} tokens to train on, one sequence and the token after it, found ${found}: ` +
      "give more text, or a shorter context",
  );
}

function predictedCount({ tokens, learned }: LearnedTokens): number {
  return learned ? learned.reduce((sum, flag) => sum + flag, 0) : tokens.length;
}

/** The number of tokens behind the first, up to `end`, that are predicted. */
export function targetCount({ tokens, learned }: LearnedTokens, end: number = tokens.length - 1): number {
  return learned ? learned.subarray(1, end + 1).reduce((sum, flag) => sum + flag, 0) : end;
}

/** What should follow each of `length` tokens from `start`; -1 where nothing is to be learned. */
export function targetsAt({ tokens, learned }: LearnedTokens, start: number, length: number): TokenArray {
  const next = tokens.subarray(start + 1, start + 1 + length);
  if (!learned) return next;
  return Int32Array.from(next, (token, i) => (learned[start + 1 + i] === 1 ? token : -1));
}

/** The tokens of documents one after another, each after `start`, which is learned as the end of the document before. */
function* encoded(
  documents: readonly Document[],
  start: readonly number[],
  encode: (text: string) => number[],
): Generator<void, LearnedTokens, void> {
  const pieces: { tokens: Int32Array; isLearned: boolean }[] = [];
  let isLearned = true;
  for (const { parts, learned } of documents) {
    pieces.push({ tokens: Int32Array.from(start), isLearned });
    for (const [i, part] of parts.entries()) {
      isLearned = learned?.[i] ?? true;
      pieces.push({ tokens: new Int32Array(encode(part)), isLearned });
      yield;
    }
  }
  const tokens = new Int32Array(pieces.reduce((sum, piece) => sum + piece.tokens.length, 0));
  const flags = pieces.every((piece) => piece.isLearned) ? undefined : new Uint8Array(tokens.length);
  let at = 0;
  for (const piece of pieces) {
    tokens.set(piece.tokens, at);
    if (piece.isLearned) flags?.fill(1, at, at + piece.tokens.length);
    at += piece.tokens.length;
  }
  return { tokens, ...(flags && { learned: flags }) };
}

/** The bytes of what is learned. */
function bytesOf({ parts, learned }: Document): number {
  return parts.reduce((sum, part, i) => sum + ((learned?.[i] ?? true) ? utf8.encode(part).length : 0), 0);
}
