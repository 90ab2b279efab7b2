// createApp: one model behind an HTTP API, as a fetch handler.

import { createHash, randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { type Context, Hono } from "hono";
import { cors } from "hono/cors";
import { secureHeaders } from "hono/secure-headers";
import type { Model } from "../generation/model.js";
import { resolveSamplingOptions } from "../sampling/sampling-options.js";
import { Admission } from "./admission.js";
import { ApiKeys } from "./api-keys.js";
import { ConstraintCache } from "./constraint-cache.js";
import { ApiError, toApiError } from "./errors.js";
import { Inference } from "./inference.js";
import { Metrics } from "./metrics.js";
import { openApi, openApiDocument } from "./openapi.js";
import { type AppOptions, type RequestRecord, resolveAppOptions } from "./options.js";
import { PromptReader } from "./prompt-reader.js";
import { PromptEncoder } from "./prompts.js";
import { readJson, readOctets } from "./request-body.js";
import { allRoutes } from "./resources.js";
import type { Route, TokenNumbers } from "./route.js";
import { parseBody } from "./schema.js";
import { ServedModel } from "./served-model.js";
import type { Services } from "./services.js";
import { LocalShelf, type ShelfLimits } from "./shelf.js";
import { StateCache } from "./state-cache.js";
import { MemoryObjects, type ObjectKind } from "./storage/stored-objects.js";

/** A model behind an HTTP API. It does not own the model. */
export interface App {
  /** Answers a request; to be given to any server that speaks fetch. */
  readonly fetch: (request: Request) => Response | Promise<Response>;
  /** The same as an application of Hono, to be mounted in another: `other.route("/llm", app.hono)`. */
  readonly hono: Hono;
  /** The model's name in the API. */
  readonly modelName: string;
  /** Whether requests must bring an API key. */
  readonly needsKey: boolean;
  /** How many texts are in progress, and how many requests wait. */
  readonly load: { readonly running: number; readonly waiting: number };
  /**
   * Takes no new requests and resolves when those in progress have ended. Streams that have not by then end where they are.
   *
   * @param milliseconds how long they may take; calling it again can only shorten it. Default 0
   */
  close(milliseconds?: number): Promise<void>;
}

/**
 * Makes an application of a model.
 *
 * @throws OptionError; TokenizerError for a model without a tokenizer; StateError for a state of another model
 */
export function createApp(model: Model, options: AppOptions = {}): App {
  const resolved = resolveAppOptions(options);
  resolveSamplingOptions(resolved.sampling, model.info.vocabulary);
  const { state, limits, stateCacheBytes } = resolved;
  if (state) void model.createState(state).dispose(); // or it throws
  const admission = new Admission(limits);
  const { storage } = resolved;
  const cache = new StateCache(stateCacheBytes, storage?.prefixes);
  const objects = new MemoryObjects();
  const shelf = (kind: ObjectKind, shelfLimits: ShelfLimits) =>
    storage?.shelf(kind, shelfLimits) ?? new LocalShelf(kind, objects, shelfLimits);
  const states = shelf("state", {
    count: limits.keptStates,
    bytes: limits.keptStateBytes,
    whenFull: "refuse",
  });
  const responses = shelf("response", {
    count: limits.keptResponses,
    bytes: limits.keptResponseBytes,
    whenFull: "drop oldest",
  });
  const metrics = new Metrics(model, admission, { cache, states, responses, storage });
  const root = state ? createHash("sha256").update(state).digest("hex") : "";
  const reader = new PromptReader(model, cache, state, root);
  const inference = new Inference(model, reader, admission, metrics, limits);
  const prompts = new PromptEncoder(model.tokenizer, limits.promptTokens);
  const services: Services = {
    model,
    served: new ServedModel(model, resolved.name, resolved.aliases),
    options: resolved,
    inference,
    prompts,
    constraints: new ConstraintCache(model),
    metrics,
    states,
    responses,
  };
  const hono = honoOf(services);
  return {
    fetch: (request) => hono.fetch(request),
    hono,
    modelName: services.served.id,
    needsKey: resolved.apiKeys.length > 0,
    get load() {
      return admission.statistics;
    },
    async close(milliseconds = 0) {
      await inference.close(milliseconds);
      await prompts.close();
      await cache.close();
      await storage?.close();
    },
  };
}

function honoOf(services: Services): Hono {
  const { options } = services;
  const { corsOrigins } = options;
  const keys = new ApiKeys(options.apiKeys);
  const hono = new Hono();
  hono.use(secureHeaders({ xFrameOptions: "DENY", referrerPolicy: "no-referrer", strictTransportSecurity: false }));
  if (corsOrigins.length > 0) {
    const origin = corsOrigins.includes("*") ? "*" : [...corsOrigins];
    hono.use(
      cors({
        origin,
        // Clients' libraries have many headers of their own, so a page may send those that it asks for.
        exposeHeaders: ["X-Request-Id", "Retry-After"],
        maxAge: 600,
      }),
    );
  }
  const routes = allRoutes(services);
  const all: Route[] = [
    ...routes,
    {
      method: "get",
      path: "/openapi.json",
      summary: "This description",
      answer: openApiDocument,
      handle: () => Response.json(description),
    },
  ];
  const description = openApi(all, packageVersion(), options.apiKeys.length > 0);
  for (const route of all)
    hono.on(route.method.toUpperCase(), route.path, (context) => answer(context, route, services, keys));
  for (const path of new Set(all.map((route) => route.path))) {
    hono.all(path, (context) => {
      const methods = all.filter((route) => route.path === path).map(({ method }) => method.toUpperCase());
      const message = `${path} takes ${methods.join(" and ")}`;
      return refuse(context, services, path, new ApiError(405, message, { code: "method_not_allowed" }), {
        Allow: methods.join(", "),
      });
    });
  }
  hono.notFound((context) =>
    refuse(context, services, "unknown", new ApiError(404, "there is nothing at this path", { code: "unknown_url" })),
  );
  return hono;
}

/** Answers a request of a route. */
async function answer(context: Context, route: Route, services: Services, keys: ApiKeys): Promise<Response> {
  const { options } = services;
  const { raw } = context.req;
  const { signal } = raw;
  const record = new OpenRecord(raw.method, route.path, services);
  let response: Response;
  try {
    const owner = route.isPublic ? "" : keys.check(raw.headers);
    const body = route.body
      ? parseBody(route.body, await readJson(raw, options.limits.bodyBytes))
      : route.maxBytes && (await readOctets(raw, route.maxBytes));
    const { requestId } = record;
    response = await route.handle({
      body,
      params: context.req.param(),
      query: context.req.query(),
      headers: raw.headers,
      owner,
      requestId,
      signal,
      note: (numbers) => record.note(numbers),
      finish: () => record.finish(),
    });
  } catch (error) {
    const told = toApiError(error);
    record.error = told.status >= 500 ? error : undefined;
    const body = route.errors?.bodyOf(told, record.requestId) ?? told.body;
    response = Response.json(body, { status: told.status, headers: told.headers });
  }
  response.headers.set("X-Request-Id", record.requestId);
  record.status = response.status;
  if (!response.headers.get("content-type")?.startsWith("text/event-stream")) record.finish();
  return response;
}

function refuse(
  context: Context,
  services: Services,
  route: string,
  error: ApiError,
  headers: Record<string, string> = {},
): Response {
  const record = new OpenRecord(context.req.method, route, services);
  record.status = error.status;
  record.finish();
  return Response.json(error.body, { status: error.status, headers: { ...headers, "X-Request-Id": record.requestId } });
}

/** The record of a request that is not over. */
class OpenRecord {
  readonly requestId = randomUUID();
  status = 200;
  error: unknown;
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
    options.onRequest?.(record);
  }
}

/** A method as a label: a client may write any word there. */
function knownMethod(method: string): string {
  return ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"].includes(method) ? method : "other";
}

function packageVersion(): string {
  const file = new URL("../../package.json", import.meta.url);
  return (JSON.parse(readFileSync(file, "utf8")) as { version: string }).version;
}
