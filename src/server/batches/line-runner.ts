// Carries out lines of batches as requests to an application, with nothing between them but this process.

import { setMaxListeners } from "node:events";
import { setTimeout as after } from "node:timers/promises";
import {
  type BatchAnswer,
  type BatchProblem,
  type BatchRequest,
  placesOf,
  readBatchLine,
  writeBatchLine,
} from "./batch-lines.js";
import { inOrder } from "./in-order.js";
import type { Line } from "./lines.js";

/** How lines are carried out. */
export interface LineRunnerOptions {
  /** Answers a request. */
  readonly fetch: (request: Request) => Response | Promise<Response>;
  /** Bytes of a line, at most. */
  readonly maxBytes: number;
  /** The API key of requests, where one is needed. */
  readonly apiKey?: string | undefined;
  /** The model that is asked for, whatever lines say; by default what they say. */
  readonly modelName?: string | undefined;
  /** Where a line says none: the seed of the first line; later ones have the numbers after it. */
  readonly seed?: number | undefined;
  /** Where a prompt or messages alone say none: how many tokens to write. */
  readonly maxTokens?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** The line of an answer, and what it took. */
export interface AnsweredLine {
  readonly line: Line;
  readonly text: string;
  readonly hasFailed: boolean;
  readonly promptTokens: number;
  readonly generatedTokens: number;
}

/** How often a request is sent again that the application failed on. */
const maxAttempts = 5;
/** Milliseconds before it is; they double. */
const failedMilliseconds = 200;
/** Milliseconds before a request is sent again for which there was no place: at first, and at most, while they double. */
const [firstPause, longestPause] = [20, 1000];

/** What a line asks for. */
interface AskedLine {
  readonly line: Line;
  readonly asked: BatchRequest | BatchProblem;
}

/**
 * Answers lines, in their order. A line says so where it cannot be carried out.
 *
 * @param limits.atOnce places that lines take at once: a line with `n` takes as many
 * @param limits.ahead lines that are carried out, or whose answers wait for those before them
 * @throws the signal's reason when it is aborted
 */
export function runLines(
  lines: AsyncIterable<Line>,
  options: LineRunnerOptions,
  limits: { readonly atOnce: number; readonly ahead: number },
): AsyncGenerator<AnsweredLine, void, void> {
  if (options.signal) setMaxListeners(0, options.signal); // each line has one
  async function* read(): AsyncGenerator<AskedLine, void, void> {
    for await (const line of lines) yield { line, asked: readBatchLine(line, options.maxBytes) };
  }
  return inOrder(read(), (one) => runLine(one, options), { ...limits, weigh: ({ asked }) => placesOf(asked) });
}

async function runLine({ line, asked }: AskedLine, options: LineRunnerOptions): Promise<AnsweredLine> {
  if (asked.kind === "problem") return written(line, asked, undefined);
  try {
    return written(line, asked, await answered(line, asked, options));
  } catch (error) {
    options.signal?.throwIfAborted();
    // Such as JSON too deep to be written. It would fail again whenever the batch is gone on with.
    const { form, id } = asked;
    const message = `line ${line.number}: ${(error as Error).message}`;
    return written(line, { kind: "problem", form, id, code: "line_failed", message }, undefined);
  }
}

function written(line: Line, asked: BatchRequest | BatchProblem, answer: BatchAnswer | undefined): AnsweredLine {
  const { usage } = (answer?.body ?? {}) as { usage?: Readonly<Record<string, unknown>> };
  const tokens = (...names: string[]) =>
    Number(names.map((name) => usage?.[name]).find((value) => value !== undefined) ?? 0);
  return {
    line,
    ...writeBatchLine(line.number, asked, answer),
    promptTokens: tokens("prompt_tokens", "input_tokens"),
    generatedTokens: tokens("completion_tokens", "output_tokens"),
  };
}

async function answered(
  { number }: Line,
  { form, url, body }: BatchRequest,
  { fetch, apiKey, modelName, seed, maxTokens, signal }: LineRunnerOptions,
): Promise<BatchAnswer> {
  const seeded = seed !== undefined && isWritten(url) ? { seed: seed + number - 1 } : {};
  const limited = form === "plain" && maxTokens !== undefined ? { max_tokens: maxTokens } : {};
  const named = modelName !== undefined ? { model: modelName } : {};
  const sent = JSON.stringify({ ...limited, ...seeded, ...body, ...named });
  // Requests keep their signal until they are collected, so none has that of all lines.
  const own = new AbortController();
  const end = () => own.abort(signal?.reason);
  signal?.addEventListener("abort", end);
  try {
    let [failures, pause] = [0, firstPause];
    for (;;) {
      signal?.throwIfAborted();
      const response = await fetch(
        new Request(`http://localhost${url}`, {
          method: "POST",
          body: sent,
          headers: {
            "Content-Type": "application/json",
            ...(apiKey !== undefined && { Authorization: `Bearer ${apiKey}` }),
          },
          signal: own.signal,
        }),
      );
      const answer = {
        status: response.status,
        requestId: response.headers.get("x-request-id") ?? "",
        body: (await response.json()) as unknown,
      };
      signal?.throwIfAborted();
      if (response.status === 429) {
        // Others have all places: the line waits, however long.
        await after(pause, undefined, { signal: own.signal });
        pause = Math.min(longestPause, pause * 2);
      } else if (response.status >= 500 && ++failures < maxAttempts) {
        await after(failedMilliseconds * 2 ** (failures - 1), undefined, { signal: own.signal });
      } else return answer;
    }
  } finally {
    signal?.removeEventListener("abort", end);
  }
}

/** Whether answers at this address are sampled. */
function isWritten(url: string): boolean {
  return url !== "/v1/embeddings" && url !== "/v1/choose";
}
