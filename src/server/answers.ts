// What answers of several resources have in common: usage, ids, and the texts of one request as they come.

import { randomBytes } from "node:crypto";
import * as v from "valibot";
import type { GenerationStep } from "../generation/generation.js";
import { eventStream, type StreamOptions } from "./event-stream.js";
import type { TextRun } from "./inference.js";
import type { ServerLimits } from "./options.js";
import type { Call, TokenNumbers } from "./route.js";
import { type Described, wholeNumber } from "./schema.js";
import type { TextChoice } from "./text-choice.js";

/** The schemas of what identifies an answer. @param object what kind of answer it is */
export function answerHead<Kind extends string>(object: Kind) {
  return { id: v.string(), object: v.literal(object), created: wholeNumber(0), model: v.string() };
}

/** The schema of numbers of tokens. */
export const usage = v.strictObject({
  prompt_tokens: wholeNumber(0),
  completion_tokens: wholeNumber(0),
  total_tokens: wholeNumber(0),
  prompt_tokens_details: v.strictObject({ cached_tokens: wholeNumber(0) }),
  completion_tokens_details: v.exactOptional(v.strictObject({ reasoning_tokens: wholeNumber(0) })),
});

/** A step of one of several texts; without one the text has ended. */
export interface ChoiceStep {
  readonly choice: TextChoice;
  readonly step: GenerationStep | undefined;
}

/** The steps of all texts of a request, each as soon as it is there. */
export function stepsOf(run: TextRun): AsyncGenerator<ChoiceStep, void, void> {
  const [first] = run.choices;
  return first && run.choices.length === 1 ? stepsOfOne(run, first) : stepsOfSeveral(run);
}

async function* stepsOfOne(run: TextRun, choice: TextChoice): AsyncGenerator<ChoiceStep, void, void> {
  const steps = choice.steps();
  const ask = () => {
    const asked = steps.next();
    asked.catch(() => {}); // it is told where it is waited for, if it is
    return asked;
  };
  try {
    for (let asked = ask(); ; ) {
      const { done, value } = await asked;
      if (!done) asked = ask(); // it is computed while this one is taken
      yield { choice, step: done ? undefined : value };
      if (done) return;
    }
  } finally {
    await run.end();
  }
}

async function* stepsOfSeveral(run: TextRun): AsyncGenerator<ChoiceStep, void, void> {
  const iterators = run.choices.map((choice) => ({ choice, steps: choice.steps() }));
  const ask = async (one: (typeof iterators)[number]) => ({ one, result: await one.steps.next() });
  const asked = new Map(iterators.map((one) => [one, ask(one)]));
  try {
    while (asked.size > 0) {
      const { one, result } = await Promise.race(asked.values());
      if (result.done) asked.delete(one);
      else asked.set(one, ask(one));
      yield { choice: one.choice, step: result.done ? undefined : result.value };
    }
  } finally {
    for (const waiting of asked.values()) waiting.catch(() => {}); // one of them has failed, or nobody wants the others
    await run.end();
  }
}

/** The numbers of tokens of a request, as OpenAI's API tells them. */
export function usageOf(run: TextRun, reasoningTokens?: number): Described<typeof usage> {
  const generated = run.choices.reduce((sum, { tokens }) => sum + tokens, 0);
  return {
    prompt_tokens: run.promptTokens,
    completion_tokens: generated,
    total_tokens: run.promptTokens + generated,
    prompt_tokens_details: { cached_tokens: run.cachedTokens },
    ...(reasoningTokens !== undefined && { completion_tokens_details: { reasoning_tokens: reasoningTokens } }),
  };
}

/** An answer as one object, once all of it is there. */
export async function wholeAnswer<Body>(call: Call<Body>, run: TextRun, answer: Promise<object>): Promise<Response> {
  return Response.json(await answer.finally(() => call.note(numbersOf(run))));
}

/**
 * An answer as a stream of objects. Whoever leaves it ends its texts.
 *
 * @param form how events are written; by default as those of chat completions
 */
export function streamedAnswer<Body>(
  call: Call<Body>,
  run: TextRun,
  values: AsyncGenerator<object, void, void>,
  limits: ServerLimits,
  form: Pick<StreamOptions, "areNamed" | "last"> = {},
): Response {
  return eventStream(values, {
    ...form,
    stalledSeconds: limits.stalledSeconds,
    onEnd: (how) => {
      if (how !== "read") run.stop("client");
      call.note(numbersOf(run));
      call.finish();
    },
  });
}

function numbersOf(run: TextRun): TokenNumbers {
  const { prompt_tokens, completion_tokens } = usageOf(run);
  return { promptTokens: prompt_tokens, cachedTokens: run.cachedTokens, generatedTokens: completion_tokens };
}

/** A new id of an answer. */
export function newId(prefix: string): string {
  return `${prefix}-${randomBytes(12).toString("hex")}`;
}

export function secondsSince1970(): number {
  return Math.floor(Date.now() / 1000);
}
