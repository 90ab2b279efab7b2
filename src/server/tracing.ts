// Traces of requests through OpenTelemetry's API. Where the process has registered no SDK nothing is recorded, and what is called here does
// next to nothing. Attributes are numbers and names of the server's own: no text that a client wrote.

import { type Context, context, propagation, type Span, SpanKind, SpanStatusCode, trace } from "@opentelemetry/api";
import type { GenerationOptions } from "../generation/generation-options.js";
import { ApiError } from "./errors.js";
import type { Route, TokenNumbers } from "./route.js";

/** The span of a request, from its headers to the end of its answer; a stream has ended when it was read. */
export class RequestTrace {
  readonly #span: Span;
  readonly #context: Context;

  /** @param model the model's name in the API */
  constructor(request: Request, route: Route, model: string, requestId: string) {
    const { method, path, operation } = route;
    const name = `${method.toUpperCase()} ${path}`;
    this.#span = tracer().startSpan(name, { kind: SpanKind.SERVER }, callerOf(request.headers));
    this.#context = trace.setSpan(context.active(), this.#span);
    if (!this.#span.isRecording()) return;
    this.#span.setAttributes({
      "http.request.method": method.toUpperCase(),
      "http.route": path,
      "rwkv.request.id": requestId,
      ...(operation && {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "rwkv",
        "gen_ai.request.model": model,
        "gen_ai.response.model": model,
      }),
    });
  }

  /** Does work whose spans are below this one. */
  within<T>(work: () => T): T {
    return context.with(this.#context, work);
  }

  end(status: number, { promptTokens, cachedTokens, generatedTokens }: TokenNumbers): void {
    if (this.#span.isRecording()) {
      this.#span.setAttributes({
        "http.response.status_code": status,
        "gen_ai.usage.input_tokens": promptTokens,
        "gen_ai.usage.cache_read.input_tokens": cachedTokens,
        "gen_ai.usage.output_tokens": generatedTokens,
      });
      if (status >= 500) fail(this.#span, String(status));
    }
    this.#span.end();
  }
}

/** Notes on the span of the request in progress how its texts are to be written. */
export function noteTexts(
  { maxTokens, temperature, topP, topK, presencePenalty, frequencyPenalty, seed }: GenerationOptions,
  choices: number,
): void {
  const span = trace.getActiveSpan();
  if (!span?.isRecording()) return;
  span.setAttributes({
    "gen_ai.request.max_tokens": maxTokens,
    "gen_ai.request.temperature": temperature,
    "gen_ai.request.top_p": topP,
    "gen_ai.request.top_k": topK,
    "gen_ai.request.presence_penalty": presencePenalty,
    "gen_ai.request.frequency_penalty": frequencyPenalty,
    "gen_ai.request.seed": seed,
    ...(choices > 1 && { "gen_ai.request.choice.count": choices }),
  });
}

/** Does work within a span, below that of the request in progress. */
export async function traced<T>(name: string, work: (span: Span) => Promise<T>): Promise<T> {
  const span = tracer().startSpan(name);
  try {
    return await context.with(trace.setSpan(context.active(), span), work, undefined, span);
  } catch (error) {
    // Messages may say what a client wrote.
    fail(span, error instanceof ApiError ? (error.code ?? error.name) : error instanceof Error ? error.name : "error");
    throw error;
  } finally {
    span.end();
  }
}

/** Does work in which the model makes passes over its weights, for this and for whoever else is served. @param passes how many it has made */
export function tracedPasses<T>(name: string, passes: () => number, work: (span: Span) => Promise<T>): Promise<T> {
  return traced(name, async (span) => {
    const before = passes();
    try {
      return await work(span);
    } finally {
      span.setAttribute("rwkv.passes", passes() - before);
    }
  });
}

/** The span of a text that is written. It goes on while its reader takes its time. */
export class TextTrace {
  readonly #span: Span;
  readonly #passes: () => number;
  readonly #before: number;

  constructor(index: number, passes: () => number) {
    this.#span = tracer().startSpan("decode", { attributes: { "rwkv.choice": index } });
    this.#passes = passes;
    this.#before = passes();
  }

  /** @param reason why the text has ended */
  end(tokens: number, reason: string): void {
    this.#span.setAttributes({
      "gen_ai.usage.output_tokens": tokens,
      "gen_ai.response.finish_reasons": [reason],
      "rwkv.passes": this.#passes() - this.#before,
    });
    this.#span.end();
  }
}

function tracer() {
  return trace.getTracer("rwkv");
}

/** What a request is part of: a span of this process that is in progress, as one of Node's HTTP, or what its headers say. */
function callerOf(headers: Headers): Context {
  const active = context.active();
  if (trace.getSpan(active)) return active;
  return propagation.extract(active, headers, {
    get: (carrier, name) => carrier.get(name) ?? undefined,
    keys: (carrier) => [...carrier.keys()],
  });
}

function fail(span: Span, type: string): void {
  span.setAttribute("error.type", type);
  span.setStatus({ code: SpanStatusCode.ERROR });
}
