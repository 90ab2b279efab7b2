// What Redis answers, looked at before it is used. What speaks its protocol need not be a Redis, and what stands at a key need not be what was
// written there.

import type { ChainableCommander } from "ioredis";

/** Says whether an answer has a shape. */
export type Shape<T> = (answer: unknown) => answer is T;

/** What a command of a pipeline was answered: an error, or null and the answer. */
export type PipelineResult = readonly [Error | null, unknown?];

export const isNumber: Shape<number> = (answer): answer is number => typeof answer === "number";
export const isText: Shape<string> = (answer): answer is string => typeof answer === "string";
export const isTextOrNothing: Shape<string | null> = (answer): answer is string | null =>
  answer === null || isText(answer);
export const isBytesOrNothing: Shape<Buffer | null> = (answer): answer is Buffer | null =>
  answer === null || Buffer.isBuffer(answer);

/** A list of so many things of a shape; of any number where none is said. */
export function listOf<T>(isItem: Shape<T>, length?: number): Shape<T[]> {
  return (answer): answer is T[] =>
    Array.isArray(answer) && (length === undefined || answer.length === length) && answer.every(isItem);
}

/** What a pipeline of so many commands was answered, errors included. */
export function resultsOf(length: number): Shape<PipelineResult[]> {
  return listOf((result): result is PipelineResult => Array.isArray(result) && result.length > 0, length);
}

/** Whether Redis answered with an error, rather than not at all. */
export function isReply(error: unknown): error is Error {
  return (error as Error | null)?.name === "ReplyError";
}

/** Whether something else stands at a key than what was asked for: another program has put it there. */
export function isOfAnotherType(error: unknown): boolean {
  return isReply(error) && error.message.startsWith("WRONGTYPE");
}

/** Asks a pipeline. @throws the first error of its commands, but for that of a key at which something else stands */
export async function answersOf(pipeline: ChainableCommander): Promise<unknown> {
  const results = await pipeline.exec();
  for (const [error] of results ?? []) if (error && !isOfAnotherType(error)) throw error;
  return results;
}

/** One of the answers to a pipeline; undefined where something else stands at its key, or it is none that Redis gives. */
export function answerOf<T>(result: PipelineResult | undefined, isRight: Shape<T>): T | undefined {
  const [error, answer] = result ?? [];
  return !error && isRight(answer) ? answer : undefined;
}
