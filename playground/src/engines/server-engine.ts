// Texts that a server writes, `rwkv serve` or another with OpenAI's API.

import { EventSourceParserStream } from "eventsource-parser/stream";
import type { Sampling } from "../protocol.js";
import type { Engine } from "./engine.js";

export interface ServerAddress {
  /** Of the API's folder: "https://example.org/v1/". */
  readonly url: string;
  readonly key: string;
}

export interface ServerModel {
  readonly id: string;
  readonly info?: {
    readonly version: string;
    readonly layers: number;
    readonly width: number;
    readonly parameters: number;
    readonly dtype: string;
    readonly backend: string;
  };
}

/** The API's folder of what a user typed: with the scheme and the version, where they were left out. */
export function apiFolder(typed: string): string {
  const url = new URL(/^[a-z]+:\/\//i.test(typed) ? typed : `http://${typed}`);
  const path = url.pathname.replace(/\/+$/, "");
  url.pathname = `${/\/v\d+$/.test(path) ? path : `${path}/v1`}/`;
  return url.href;
}

/** @throws Error that says what the server answered */
export async function listModels(address: ServerAddress, signal?: AbortSignal): Promise<ServerModel[]> {
  const response = await call(address, "models", undefined, signal);
  const { data } = (await response.json()) as { data?: readonly ServerModel[] };
  if (!Array.isArray(data)) throw new Error(`${address.url}: expected a list of models, found something else`);
  return data.filter((model) => typeof model?.id === "string");
}

export function serverEngine(address: ServerAddress, model: string): Engine {
  return {
    async chat({ messages, sampling, maxTokens, thinks, begun }, { signal, onPiece }) {
      const body = {
        model,
        // What was begun is sent as an answer to be continued, which many servers understand so.
        messages: begun === "" ? messages : [...messages, { role: "assistant", content: begun }],
        ...serverSampling(sampling),
        max_tokens: maxTokens,
        ...(!thinks && { reasoning_effort: "none" }),
      };
      return stream(address, "chat/completions", body, signal, (choice) => {
        const { content = "", reasoning_content: thought = "" } = choice.delta ?? {};
        if (content || thought) onPiece?.({ text: content ?? "", thought: thought ?? "", raw: content ?? "" });
        return content || thought ? 1 : 0;
      });
    },
    async complete({ prompt, kept, sampling, maxTokens }, { signal, onPiece }) {
      const text = prompt + kept.map((token) => token.text).join("");
      const body = { model, prompt: text, ...serverSampling(sampling), max_tokens: maxTokens, logprobs: 8 };
      return stream(address, "completions", body, signal, (choice) => {
        const { tokens = [], token_logprobs: own = [], top_logprobs: top = [] } = choice.logprobs ?? {};
        tokens.forEach((token, i) => {
          onPiece?.({
            id: -1,
            text: token,
            probability: Math.exp(own[i] ?? Number.NEGATIVE_INFINITY),
            others: Object.entries(top[i] ?? {}).map(([other, logprob]) => ({
              id: -1,
              text: other,
              probability: Math.exp(logprob),
            })),
          });
        });
        if (tokens.length === 0 && choice.text)
          onPiece?.({ id: -1, text: choice.text, probability: Number.NaN, others: [] });
        return Math.max(tokens.length, choice.text ? 1 : 0);
      });
    },
  };
}

function serverSampling({ temperature, topP, topK, presencePenalty, frequencyPenalty }: Sampling) {
  return {
    temperature,
    top_p: topP,
    top_k: topK,
    presence_penalty: presencePenalty,
    frequency_penalty: frequencyPenalty,
  };
}

interface Choice {
  readonly text?: string;
  readonly delta?: { readonly content?: string | null; readonly reasoning_content?: string | null };
  readonly logprobs?: {
    readonly tokens?: readonly string[];
    readonly token_logprobs?: readonly (number | null)[];
    readonly top_logprobs?: readonly (Readonly<Record<string, number>> | null)[];
  } | null;
  readonly finish_reason?: string | null;
}

/** @param take takes a choice, and says how many tokens it had */
async function stream(
  address: ServerAddress,
  path: string,
  body: object,
  signal: AbortSignal | undefined,
  take: (choice: Choice) => number,
) {
  let reason: "stop" | "length" | "aborted" = "stop";
  let tokens = 0;
  let first = 0;
  let usage: { prompt_tokens?: number; prompt_tokens_details?: { cached_tokens?: number } } | undefined;
  try {
    const response = await call(
      address,
      path,
      { ...body, stream: true, stream_options: { include_usage: true } },
      signal,
    );
    const events = (response.body as ReadableStream<Uint8Array<ArrayBuffer>>)
      .pipeThrough(new TextDecoderStream())
      .pipeThrough(new EventSourceParserStream());
    const reader = events.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done || value.data === "[DONE]") break;
      const chunk = JSON.parse(value.data);
      if (chunk.error) throw new Error(chunk.error.message ?? "the server failed");
      usage = chunk.usage ?? usage;
      const choice = chunk.choices?.[0] as Choice | undefined;
      if (!choice) continue;
      tokens += take(choice);
      if (tokens > 0 && first === 0) first = performance.now();
      if (choice.finish_reason) reason = choice.finish_reason === "length" ? "length" : "stop";
    }
  } catch (error) {
    if (!signal?.aborted) throw error;
    reason = "aborted";
  }
  const seconds = (performance.now() - first) / 1000;
  return {
    reason,
    generatedTokens: tokens,
    tokensPerSecond: first > 0 && tokens > 1 ? (tokens - 1) / seconds : 0,
    ...(usage?.prompt_tokens !== undefined && { promptTokens: usage.prompt_tokens }),
    ...(usage?.prompt_tokens_details?.cached_tokens !== undefined && {
      reusedTokens: usage.prompt_tokens_details.cached_tokens,
    }),
  };
}

async function call(
  { url, key }: ServerAddress,
  path: string,
  body: object | undefined,
  signal: AbortSignal | undefined,
): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(new URL(path, url), {
      ...(body && { method: "POST", body: JSON.stringify(body) }),
      headers: {
        ...(body && { "Content-Type": "application/json" }),
        ...(key !== "" && { Authorization: `Bearer ${key}` }),
      },
      ...(signal && { signal }),
      credentials: "omit",
    });
  } catch (cause) {
    if (signal?.aborted) throw cause;
    throw new Error(
      `${url}: no answer. Does a server run there, and does it allow this page (--cors-origin ${location.origin})?`,
      { cause },
    );
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => undefined);
  throw new Error(`${url}: status ${response.status}${told?.error?.message ? `, ${told.error.message}` : ""}`);
}
