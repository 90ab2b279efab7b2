// The data of a run on all of its ranks: the first one alone has it, and sends the others what they compute, step by step. So text is read
// and encoded once, no rank can have other data than another, and what a rank holds does not depend on how much there is.

import type { Batches, Window } from "./batches.js";
import type { HeldOutText, LearnedTokens, TokenArray } from "./dataset.js";
import { type Ranks, shared } from "./ranks.js";
import type { RowShare } from "./row-share.js";

/** All data of a run: what it learns from, in which order, and the texts that it is measured with. */
export interface RunData {
  readonly bytesPerToken: number;
  readonly batches: Batches;
  readonly heldOut: readonly HeldOutText[];
}

/** What a rank computes of a step. */
export interface StepShare {
  /** Its rows of the batch. */
  readonly windows: readonly Window[];
  /** Tokens that all ranks predict in it. */
  readonly targetCount: number;
}

/** The data of a run as one of its ranks has it. */
export interface RankData {
  readonly bytesPerToken: number;
  readonly stepsPerEpoch: number;
  /** The texts that this rank measures, and how many all ranks do. */
  readonly heldOut: readonly HeldOutText[];
  readonly heldOutCount: number;
  /** @param step from 0; all ranks ask for the same one at the same time */
  at(step: number): Promise<StepShare>;
}

/** What the others have to know before tokens come. */
interface Outline {
  readonly bytesPerToken: number;
  readonly stepsPerEpoch: number;
  readonly heldOut: readonly { readonly length: number; readonly hasLearned: boolean; readonly bytes: number }[];
}

/**
 * Divides data among ranks.
 *
 * @param own all of it, on the first rank; what others give does not matter
 * @param rows of a batch, of `context` tokens each, of which those in `share` are this rank's
 */
export async function rankData(
  ranks: Ranks,
  own: RunData | undefined,
  { batch, context }: { readonly batch: number; readonly context: number },
  share: RowShare,
): Promise<RankData> {
  const { bytesPerToken, stepsPerEpoch, heldOut } = await shared(ranks, outlineOf(own));
  const texts: HeldOutText[] = [];
  for (const [i, { length, hasLearned, bytes }] of heldOut.entries()) {
    const text = ranks.size === 1 ? own?.heldOut[i] : await sharedText(ranks, own?.heldOut[i], length, hasLearned);
    if (text && i % ranks.size === ranks.rank) texts.push({ ...text, bytes });
  }
  const sent = ranks.size === 1 ? undefined : new SentBatches(ranks, own?.batches, batch, context);
  return {
    bytesPerToken,
    stepsPerEpoch,
    heldOut: texts,
    heldOutCount: heldOut.length,
    async at(step) {
      const windows = (await sent?.at(step)) ?? own?.batches.at(step) ?? [];
      const targetCount = windows.reduce((sum, { targets }) => sum + targetsIn(targets), 0);
      return { windows: windows.slice(share.begin, share.end), targetCount };
    },
  };
}

function outlineOf(own: RunData | undefined): Outline {
  return {
    bytesPerToken: own?.bytesPerToken ?? 0,
    stepsPerEpoch: own?.batches.stepsPerEpoch ?? 0,
    heldOut: (own?.heldOut ?? []).map(({ tokens, learned, bytes }) => {
      return { length: tokens.length, hasLearned: learned !== undefined, bytes };
    }),
  };
}

/** A text of the first rank, on all of them. */
async function sharedText(
  ranks: Ranks,
  own: LearnedTokens | undefined,
  length: number,
  hasLearned: boolean,
): Promise<LearnedTokens> {
  const tokens = own ? Int32Array.from(own.tokens) : new Int32Array(length);
  await ranks.broadcast(new Uint8Array(tokens.buffer), 0);
  if (!hasLearned) return { tokens };
  const learned = own?.learned ?? new Uint8Array(length);
  await ranks.broadcast(learned, 0);
  return { tokens, learned };
}

/** The batches of the first rank, which it sends to all. */
class SentBatches {
  readonly #ranks: Ranks;
  readonly #own: Batches | undefined;
  readonly #context: number;
  /** Of each row its tokens, what should follow each, and whether it continues: [batch, 2 * context + 1]. */
  readonly #rows: readonly Int32Array[];
  readonly #bytes: Uint8Array;

  constructor(ranks: Ranks, own: Batches | undefined, batch: number, context: number) {
    this.#ranks = ranks;
    this.#own = own;
    this.#context = context;
    const length = 2 * context + 1;
    const all = new Int32Array(batch * length);
    this.#bytes = new Uint8Array(all.buffer);
    this.#rows = Array.from({ length: batch }, (_, row) => all.subarray(row * length, (row + 1) * length));
  }

  /** The windows are good until the next step is asked for. */
  async at(step: number): Promise<Window[]> {
    const context = this.#context;
    this.#own?.at(step).forEach(({ tokens, targets, continues }, row) => {
      const packed = this.#rows[row] as Int32Array;
      packed.set(tokens);
      packed.set(targets, context);
      packed[2 * context] = Number(continues);
    });
    await this.#ranks.broadcast(this.#bytes, 0);
    return this.#rows.map((row) => ({
      tokens: row.subarray(0, context),
      targets: row.subarray(context, 2 * context),
      continues: row[2 * context] === 1,
    }));
  }
}

function targetsIn(targets: TokenArray): number {
  let count = 0;
  for (const target of targets) if (target >= 0) count++;
  return count;
}
