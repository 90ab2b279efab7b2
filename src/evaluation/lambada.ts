// LAMBADA (Paperno et al. 2016, arXiv 1606.06031): the last word of a passage, which can be told from the whole passage only. Scored as
// RWKV-LM does (RWKV-v7/rwkv_v7_demo.py).

import { RwkvError } from "../errors.js";
import type { Model } from "../generation/model.js";
import { type EvaluationRecord, textField } from "./records.js";
import { type ScoringOptions, scoreQuestions } from "./score-questions.js";

/** What a model makes of LAMBADA. */
export interface LambadaResult {
  readonly passages: number;
  /** e to the mean of -log p of a last word, all its tokens taken together. */
  readonly perplexity: number;
  /** The share of the words of which every token is the most probable. */
  readonly accuracy: number;
}

/**
 * Scores the last word of each passage.
 *
 * @param records with a passage in "text"
 * @throws RwkvError for a record that has no such text, or whose text has no space
 */
export async function lambada(
  model: Model,
  records: readonly EvaluationRecord[],
  options: ScoringOptions,
): Promise<LambadaResult> {
  const questions = records.map((record) => {
    const text = textField(record, "text");
    const space = text.lastIndexOf(" ");
    if (space < 1 || space === text.length - 1) {
      throw new RwkvError(`${record.place}: field "text": expected several words, with spaces between them`);
    }
    return { context: text.slice(0, space), continuations: [text.slice(space)] };
  });
  const scores = (await scoreQuestions(model, questions, options)).flat();
  const nats = -scores.reduce((sum, { logProbability }) => sum + logProbability, 0);
  return {
    passages: scores.length,
    perplexity: Math.exp(nats / scores.length),
    accuracy: scores.filter(({ isMostProbable }) => isMostProbable).length / scores.length,
  };
}
