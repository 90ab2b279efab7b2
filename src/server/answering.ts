// Answers a request of a route: its key, its body, what it comes to, and the record of it.

import { randomUUID } from "node:crypto";
import { type ApiError, toApiError } from "./errors.js";
import type { RequestRecord } from "./options.js";
import { readForm, readJson, readOctets } from "./request-body.js";
import type { Route, TokenNumbers } from "./route.js";
import { parseBody } from "./schema.js";
import type { Services } from "./services.js";
import { RequestTrace } from "./tracing.js";

/** A request, and what is known of it beside. */
export interface Asked {
  readonly request: Request;
  /** What stands for the request's API key. @throws ApiError for one that is not accepted */
  readonly owner: () => string;
  /** Parts of the path by name. */
  readonly params: Readonly<Record<string, string>>;
  /** Parameters behind the path by name. */
  readonly query: Readonly<Record<string, string>>;
}

/** Answers a request of a route. */
export async function answer(
  { request, owner, params, query }: Asked,
  route: Route,
  services: Services,
): Promise<Response> {
  const { signal, headers } = request;
  const record = new OpenRecord(request.method, route.path, services);
  const { requestId } = record;
  // Who asks whether the server is there has no part in it.
  const trace = route.isPublic ? undefined : new RequestTrace(request, route, services.served.id, requestId);
  record.trace = trace;
  const handle = async () => {
    const who = route.isPublic ? "" : owner();
    return route.handle({
      body: await bodyOf(request, route, services),
      params,
      query,
      headers,
      owner: who,
      signal,
      note: (numbers) => record.note(numbers),
      finish: () => record.finish(),
    });
  };
  let response: Response;
  try {
    response = await (trace ? trace.within(handle) : handle());
  } catch (error) {
    const told = toApiError(error);
    record.error = told.status >= 500 ? error : undefined;
    const body = route.errors?.bodyOf(told, record.requestId) ?? told.body;
    response = Response.json(body, { status: told.status, headers: told.headers });
  }
  // OpenAI's clients look for the one, Anthropic's for the other.
  for (const name of ["X-Request-Id", "Request-Id"]) response.headers.set(name, record.requestId);
  record.status = response.status;
  if (!response.headers.get("content-type")?.startsWith("text/event-stream")) record.finish();
  return response;
}

/**
 * What answers requests that come from within, in the name of an owner: those of routes with a body and a fixed path.
 */
export function answersAs(
  owner: string,
  routes: readonly Route[],
  services: Services,
): (request: Request) => Promise<Response> {
  return async (request) => {
    const { pathname } = new URL(request.url);
    const route = routes.find(({ method, path }) => method === "post" && path === pathname);
    if (!route) throw new RangeError(`no route ${pathname}`);
    return answer({ request, owner: () => owner, params: {}, query: {} }, route, services);
  };
}

async function bodyOf(request: Request, route: Route, { options }: Services): Promise<unknown> {
  const { limits, corsOrigins } = options;
  if (route.body) return parseBody(route.body, await readJson(request, limits.bodyBytes));
  if (route.maxBytes !== undefined) return readOctets(request, route.maxBytes);
  if (route.maxFormBytes !== undefined) return readForm(request, route.maxFormBytes, corsOrigins);
  return undefined;
}

/** Refuses a request that is of no route. */
export function refuse(
  method: string,
  services: Services,
  route: string,
  error: ApiError,
  headers: Record<string, string> = {},
): Response {
  const record = new OpenRecord(method, route, services);
  record.status = error.status;
  record.finish();
  return Response.json(error.body, { status: error.status, headers: { ...headers, "X-Request-Id": record.requestId } });
}

/** The record of a request that is not over. */
class OpenRecord {
  readonly requestId = randomUUID();
  status = 200;
  error: unknown;
  trace: RequestTrace | undefined;
  readonly #started = performance.now();
  readonly #method: string;
  readonly #route: string;
  readonly #services: Services;
  #numbers: TokenNumbers = {};
  #isFinished = false;

  constructor(method: string, route: string, services: Services) {
    this.#method = method;
    this.#route = route;
    this.#services = services;
  }

  note(numbers: TokenNumbers): void {
    this.#numbers = { ...this.#numbers, ...numbers };
  }

  finish(): void {
    if (this.#isFinished) return;
    this.#isFinished = true;
    const { metrics, options } = this.#services;
    const milliseconds = performance.now() - this.#started;
    const [method, route] = [knownMethod(this.#method), this.#route];
    metrics.requests.inc({ route, method, status: String(this.status) });
    metrics.requestSeconds.observe({ route }, milliseconds / 1000);
    const { requestId, status, error } = this;
    const record: RequestRecord = {
      requestId,
      method,
      route,
      status,
      milliseconds,
      ...this.#numbers,
      ...(error !== undefined && { error }),
    };
    this.trace?.end(this.status, this.#numbers);
    options.onRequest?.(record);
  }
}

/** A method as a label: a client may write any word there. */
function knownMethod(method: string): string {
  return ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"].includes(method) ? method : "other";
}
