// How probable a model finds continuations of many texts: several texts are read at once, so that each pass over the weights serves all
// of them.

import { scoreContinuations } from "../generation/continuations.js";
import type { Model } from "../generation/model.js";

/** How many texts are read at once: with more, passes hardly become faster (docs/performance.md). */
const textsAtOnce = 16;

/** A text and what may follow it. */
export interface Question {
  readonly context: string;
  readonly continuations: readonly string[];
}

/** What is known of a continuation. */
export interface ContinuationScore {
  /** The log-probability of all its tokens, in nats. */
  readonly logProbability: number;
  /** Whether each of its tokens is the most probable where it stands. */
  readonly isMostProbable: boolean;
}

/** Options of `scoreQuestions`. */
export interface ScoringOptions {
  /** Called after each question with the number of those done. */
  readonly onProgress?: (done: number) => void;
}

/**
 * Scores the continuations of each question. Contexts and continuations become tokens by themselves, and before each context stands what
 * documents of the model's training began with: the end of a text in RWKV World, else a line break. Both are RWKV-LM's ways
 * (RWKV-v7/rwkv_v7_demo.py, and ChatRWKV's v2/benchmark.py for models of the Pile).
 *
 * @returns of each question the scores of its continuations
 * @throws TokenizerError for text without tokens in the vocabulary; LimitError when the model holds too many states; BackendError when it
 *   is disposed of meanwhile
 */
export async function scoreQuestions(
  model: Model,
  questions: readonly Question[],
  { onProgress }: ScoringOptions = {},
): Promise<ContinuationScore[][]> {
  const scores: ContinuationScore[][] = new Array(questions.length);
  const ending = new AbortController();
  let [next, done] = [0, 0];
  const work = async () => {
    while (next < questions.length && !ending.signal.aborted) {
      const at = next++;
      scores[at] = await scoreQuestion(model, questions[at] as Question, ending.signal);
      onProgress?.(++done);
    }
  };
  const workers = Array.from({ length: textsAtOnce }, () =>
    work().catch((error) => {
      ending.abort(error);
      throw error;
    }),
  );
  await Promise.allSettled(workers);
  await Promise.all(workers);
  return scores;
}

async function scoreQuestion(
  model: Model,
  { context, continuations }: Question,
  signal: AbortSignal,
): Promise<ContinuationScore[]> {
  const { tokenizer } = model;
  const begin = tokenizer.kind === "world" ? [tokenizer.endOfText as number] : tokenizer.encode("\n");
  const tokens = continuations.map((text) => Int32Array.from(tokenizer.encode(text)));
  const session = model.session();
  try {
    await session.read([...begin, ...tokenizer.encode(context)], { keepLogits: true, signal });
    const scored = await scoreContinuations(model, await session.snapshot(), tokens, 1, signal);
    return scored.map((each) => ({
      logProbability: each.reduce((sum, { logProbability }) => sum + logProbability, 0),
      isMostProbable: each.every(({ isMostProbable }) => isMostProbable),
    }));
  } finally {
    await session.dispose();
  }
}
