// The World vocabulary in the package, so that a lone file of weights runs without a vocabulary beside it. It is a gzip of three
// parts: for each token from id 1 how many of its first bytes are those of the token before; then for each how many follow; then
// these. tools/pack-vocabulary.mjs writes it from RWKV's own file.

import { packagedVocabulary, readBytes } from "#platform/files";
import { TokenizerError } from "../errors.js";
import { tokenizerOfTokens, type WorldTokenizer } from "./world.js";

/** Tokens of rwkv_vocab_v20230424.txt, whose ids are 1 to this. */
const tokenCount = 65_529;
/** One more than its largest id. */
export const packagedVocabularySize: number = tokenCount + 1;

/** The tokenizer of RWKV World models. @throws TokenizerError when the package's file is missing or damaged */
export async function packagedTokenizer(): Promise<WorldTokenizer> {
  const name = "the World vocabulary in the package";
  let bytes: Uint8Array;
  try {
    const packed = await readBytes(packagedVocabulary);
    const stream = new Blob([packed as Uint8Array<ArrayBuffer>]).stream().pipeThrough(new DecompressionStream("gzip"));
    bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  } catch (cause) {
    throw new TokenizerError(`${name}: cannot be read (${(cause as Error).message})`, { cause });
  }
  return tokenizerOfTokens(name, unpacked(bytes));
}

/** The bytes of each token, by id. */
function unpacked(bytes: Uint8Array): Uint8Array[] {
  const tokens = new Array<Uint8Array>(packagedVocabularySize);
  let before = new Uint8Array(0);
  let at = 2 * tokenCount;
  for (let i = 0; i < tokenCount; i++) {
    const [shared, own] = [bytes[i] as number, bytes[tokenCount + i] as number];
    const token = new Uint8Array(shared + own);
    token.set(before.subarray(0, shared));
    token.set(bytes.subarray(at, at + own), shared);
    at += own;
    tokens[i + 1] = token;
    before = token;
  }
  return tokens;
}
