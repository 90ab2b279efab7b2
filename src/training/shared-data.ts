// The data of a run on all of its ranks: the first one reads it and makes tokens of it, and sends them to the others. So text is read
// and encoded once, and no rank can have other data than another.

import type { Dataset, HeldOutText, LearnedTokens, TokenArray } from "./dataset.js";
import { type Ranks, shared } from "./ranks.js";

/** What the others have to know before the tokens come. */
interface Outline {
  readonly bytesPerToken: number;
  readonly training: Stretch;
  readonly heldOut: readonly (Stretch & { readonly bytes: number })[];
}

interface Stretch {
  readonly length: number;
  readonly isHalf: boolean;
  readonly hasLearned: boolean;
}

/** @param own the first rank's, which all get */
export async function sharedDataset(ranks: Ranks, own: Dataset | undefined): Promise<Dataset> {
  if (ranks.size === 1 && own) return own;
  const { bytesPerToken, training, heldOut } = await shared<Outline | undefined>(ranks, own && outlineOf(own)).then(
    (outline) => outline as Outline,
  );
  const all = await sharedTokens(ranks, own, training);
  const texts: HeldOutText[] = [];
  for (const [i, { bytes, ...stretch }] of heldOut.entries()) {
    texts.push({ ...(await sharedTokens(ranks, own?.heldOut[i], stretch)), bytes });
  }
  return { ...all, bytesPerToken, heldOut: texts };
}

function outlineOf(data: Dataset): Outline {
  return {
    bytesPerToken: data.bytesPerToken,
    training: stretchOf(data),
    heldOut: data.heldOut.map((text) => ({ ...stretchOf(text), bytes: text.bytes })),
  };
}

function stretchOf({ tokens, learned }: LearnedTokens): Stretch {
  return { length: tokens.length, isHalf: tokens instanceof Uint16Array, hasLearned: learned !== undefined };
}

async function sharedTokens(
  ranks: Ranks,
  own: LearnedTokens | undefined,
  { length, isHalf, hasLearned }: Stretch,
): Promise<LearnedTokens> {
  const tokens: TokenArray = own?.tokens ?? (isHalf ? new Uint16Array(length) : new Int32Array(length));
  await ranks.broadcast(new Uint8Array(tokens.buffer, tokens.byteOffset, tokens.byteLength), 0);
  if (!hasLearned) return { tokens };
  const learned = own?.learned ?? new Uint8Array(length);
  await ranks.broadcast(learned, 0);
  return { tokens, learned };
}
