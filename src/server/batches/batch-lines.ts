// The lines of batches: requests in the format of OpenAI's Batch API, or just a prompt or messages with fields beside; and the lines of their
// answers. A line has one answer, which names it, whatever becomes of it.

import { textsAtOnce } from "../texts-at-once.js";
import type { Line } from "./lines.js";

/** What a line asks for. */
export interface BatchRequest {
  readonly kind: "request";
  /** How its answer is written: as in the Batch API, or as a text alone. */
  readonly form: "openai" | "plain";
  readonly id: string | undefined;
  readonly url: string;
  readonly body: Readonly<Record<string, unknown>>;
}

/** Why a line asks for nothing. */
export interface BatchProblem {
  readonly kind: "problem";
  readonly form: "openai" | "plain";
  readonly id: string | undefined;
  readonly code: string;
  readonly message: string;
}

/** What a request was answered with. */
export interface BatchAnswer {
  readonly status: number;
  readonly requestId: string;
  readonly body: unknown;
}

/** Where requests of batches may go. */
export const batchUrls = [
  "/v1/chat/completions",
  "/v1/completions",
  "/v1/responses",
  "/v1/embeddings",
  "/v1/messages",
  "/v1/choose",
] as const;

type Fields = Record<string, unknown>;

/**
 * Reads a line.
 *
 * @param maxBytes what lines may have, for the message of one that has more
 */
export function readBatchLine({ number, text }: Line, maxBytes: number): BatchRequest | BatchProblem {
  const problem = (
    code: string,
    message: string,
    { custom_id: id }: Fields = {},
    form: "openai" | "plain" = "openai",
  ) => ({
    kind: "problem" as const,
    form,
    id: typeof id === "string" ? id : undefined,
    code,
    message: `line ${number}: ${message}`,
  });
  if (text === undefined) return problem("invalid_line", `expected UTF-8, and at most ${maxBytes} bytes`);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return problem("invalid_json", "expected JSON, it does not parse");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value))
    return problem("invalid_line", "expected an object");
  const fields = value as Fields;
  const { custom_id: id, method, url, body, prompt, messages } = fields;
  if (url === undefined && body === undefined) {
    if ((prompt === undefined) === (messages === undefined)) {
      const message = "expected a request (custom_id, method, url, body), or either a prompt or messages";
      return problem("invalid_line", message, fields);
    }
    if (id !== undefined && typeof id !== "string")
      return problem("invalid_line", "custom_id: expected a text", fields, "plain");
    const { custom_id: _, stream: __, ...rest } = fields;
    const to = prompt === undefined ? "/v1/chat/completions" : "/v1/completions";
    return { kind: "request", form: "plain", id, url: to, body: rest };
  }
  if (typeof id !== "string" || id === "") return problem("invalid_line", "custom_id: expected a text", fields);
  if (method !== "POST") return problem("invalid_method", "method: expected POST", fields);
  if (!(batchUrls as readonly unknown[]).includes(url))
    return problem("invalid_url", `url: expected one of ${batchUrls.join(", ")}`, fields);
  if (typeof body !== "object" || body === null || Array.isArray(body))
    return problem("invalid_line", "body: expected an object", fields);
  if ((body as Fields)["stream"])
    return problem("invalid_request", "body.stream: answers of batches are whole", fields);
  return { kind: "request", form: "openai", id, url: url as string, body: body as Fields };
}

/** How many places of a server a line takes, as far as it tells: texts that are read or written at once. */
export function placesOf(asked: BatchRequest | BatchProblem): number {
  if (asked.kind === "problem") return 1;
  const { n, prompt, input, choices } = asked.body;
  const texts = [prompt, input, choices].map(textsIn).find((count) => count > 1) ?? 1;
  if (asked.url === "/v1/embeddings") return Math.min(texts, textsAtOnce);
  return texts * (Number.isSafeInteger(n) && (n as number) > 0 ? (n as number) : 1);
}

/** A list is many texts, but for one of token ids. */
function textsIn(field: unknown): number {
  return Array.isArray(field) && typeof field[0] !== "number" ? field.length : 1;
}

/** The line of an answer, without a newline. */
export function writeBatchLine(
  number: number,
  asked: BatchRequest | BatchProblem,
  answer: BatchAnswer | undefined,
): { readonly text: string; readonly hasFailed: boolean } {
  const hasFailed = answer === undefined || answer.status >= 400;
  const { form, id } = asked;
  if (form === "openai") {
    const line = {
      id: `batch_req_${number}`,
      custom_id: id ?? null,
      response: answer ? { status_code: answer.status, request_id: answer.requestId, body: answer.body } : null,
      error: asked.kind === "problem" ? { code: asked.code, message: asked.message } : null,
    };
    return { text: JSON.stringify(line), hasFailed };
  }
  const head = { line: number, ...(id !== undefined && { custom_id: id }) };
  const rest = asked.kind === "problem" ? { error: { code: asked.code, message: asked.message } } : plainAnswer(answer);
  return { text: JSON.stringify({ ...head, ...rest }), hasFailed };
}

/** The texts of an answer, or what is wrong. */
function plainAnswer(answer: BatchAnswer | undefined): object {
  const {
    error,
    choices = [],
    usage,
  } = (answer?.body ?? {}) as {
    error?: unknown;
    choices?: {
      text?: string;
      message?: { content: string | null; tool_calls?: unknown };
      logprobs?: unknown;
      finish_reason: string;
    }[];
    usage?: unknown;
  };
  if (error) return { error };
  const texts = choices.map(({ text, message, logprobs, finish_reason }) => ({
    text: text ?? message?.content ?? "",
    ...(message?.tool_calls !== undefined && { tool_calls: message.tool_calls }),
    ...(logprobs != null && { logprobs }),
    finish_reason,
  }));
  return { ...(texts.length === 1 ? texts[0] : { texts }), usage };
}
