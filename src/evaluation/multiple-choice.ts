// Questions with given answers, of which the most probable counts: the way in which HellaSwag, PIQA, ARC and others are scored
// (EleutherAI's lm-evaluation-harness, metrics acc and acc_norm).

import { RwkvError } from "../errors.js";
import type { Model } from "../generation/model.js";
import { type EvaluationRecord, textField } from "./records.js";
import { type ContinuationScore, type Question, type ScoringOptions, scoreQuestions } from "./score-questions.js";

/** What a model makes of such questions. */
export interface MultipleChoiceResult {
  readonly questions: number;
  /** The share of questions whose right answer is the most probable. */
  readonly accuracy: number;
  /** The same where an answer counts by its log-probability for each byte of UTF-8, so that long ones lose nothing. */
  readonly normalizedAccuracy: number;
}

/**
 * Scores questions.
 *
 * @param records with a text in "context", texts in "choices", and the number of the right one, from 0, in "answer"
 * @throws RwkvError for a record that has not
 */
export async function multipleChoice(
  model: Model,
  records: readonly EvaluationRecord[],
  options: ScoringOptions,
): Promise<MultipleChoiceResult> {
  const read = records.map(questionOf);
  const scores = await scoreQuestions(model, read, options);
  const right = (worth: (score: ContinuationScore, text: string) => number) =>
    read.filter(({ continuations, answer }, i) => {
      const worths = continuations.map((text, k) =>
        worth((scores[i] as ContinuationScore[])[k] as ContinuationScore, text),
      );
      return worths.indexOf(Math.max(...worths)) === answer;
    }).length / read.length;
  return {
    questions: read.length,
    accuracy: right(({ logProbability }) => logProbability),
    normalizedAccuracy: right(({ logProbability }, text) => logProbability / Buffer.byteLength(text)),
  };
}

function questionOf(record: EvaluationRecord): Question & { readonly answer: number } {
  const { place, fields } = record;
  const { choices, answer } = fields;
  const isText = (choice: unknown) => typeof choice === "string" && choice !== "";
  if (!Array.isArray(choices) || choices.length < 2 || !choices.every(isText)) {
    throw new RwkvError(`${place}: field "choices": expected two texts or more, none of them empty`);
  }
  if (!Number.isInteger(answer) || (answer as number) < 0 || (answer as number) >= choices.length) {
    throw new RwkvError(`${place}: field "answer": expected a number from 0 to ${choices.length - 1}`);
  }
  return { context: textField(record, "context"), continuations: choices as string[], answer: answer as number };
}
