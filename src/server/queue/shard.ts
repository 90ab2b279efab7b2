// Shards: consecutive lines of a batch, which one worker carries out together.

import type { AnswersFor } from "../answers-for.js";
import type { AnsweredLine } from "../batches/line-runner.js";
import type { Line } from "../batches/lines.js";

/** What a worker is given. */
export interface ShardData {
  readonly lines: readonly { readonly number: number; readonly text: string | null }[];
  readonly maxBytes: number;
  readonly seed?: number | undefined;
  readonly maxTokens?: number | undefined;
  /** In whose name the lines are answered; without it the worker's model is asked, whatever they say. */
  readonly answersFor?: AnswersFor | undefined;
  /** The batch, where that may be over before its lines are done: the worker asks now and then. */
  readonly batch?: string | undefined;
}

/** What it gives back: of each line its answer; of the first ones only, where the batch was over meanwhile. */
export interface ShardResult {
  /** What tells the worker's model from others. */
  readonly model: string;
  readonly answers: readonly Omit<AnsweredLine, "line">[];
}

/** The most bytes of a shard, about, whatever its number of lines: all of it is in Redis. */
const maxBytes = 2 ** 20;

/**
 * Groups lines. Where shards begin does not depend on where reading began, so that a batch which is gone on with has the shards it had.
 *
 * @param most lines of a shard
 */
export async function* shardsOf(lines: AsyncIterable<Line>, most: number): AsyncGenerator<Line[], void, void> {
  let shard: Line[] = [];
  let bytes = 0;
  for await (const line of lines) {
    const [first] = shard;
    const isNext = first && Math.floor((line.number - 1) / most) !== Math.floor((first.number - 1) / most);
    if (first && (isNext || bytes > maxBytes)) {
      yield shard;
      shard = [];
      bytes = 0;
    }
    shard.push(line);
    bytes += line.text?.length ?? 0;
  }
  if (shard.length > 0) yield shard;
}
