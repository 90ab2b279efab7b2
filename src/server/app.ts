// createApp: one model behind an HTTP API, as a fetch handler.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { Hono } from "hono";
import { cors } from "hono/cors";
import { secureHeaders } from "hono/secure-headers";
import type { Model } from "../generation/model.js";
import { resolveSamplingOptions } from "../sampling/sampling-options.js";
import { Admission } from "./admission.js";
import { answer, answersAs, refuse } from "./answering.js";
import { answersForServer, fetchesFor } from "./answering-for.js";
import type { AnswersFor } from "./answers-for.js";
import { ApiKeys } from "./api-keys.js";
import type { BatchDirectory } from "./batches/batch-directory.js";
import { BatchRunner } from "./batches/batch-runner.js";
import { workHere } from "./batches/batch-work.js";
import { ConstraintCache } from "./constraint-cache.js";
import { ApiError } from "./errors.js";
import { Inference } from "./inference.js";
import { Metrics } from "./metrics.js";
import { openApi, openApiDocument } from "./openapi.js";
import { type AppOptions, resolveAppOptions } from "./options.js";
import { PromptReader } from "./prompt-reader.js";
import { PromptEncoder } from "./prompts.js";
import { allRoutes } from "./resources.js";
import type { Route } from "./route.js";
import { ServedModel } from "./served-model.js";
import type { Services } from "./services.js";
import { LocalShelf, type ShelfLimits } from "./shelf.js";
import { StateCache } from "./state-cache.js";
import { answeringIdentity } from "./storage/model-identity.js";
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

/** An application that answers for servers elsewhere, too. */
export interface HostApp extends App {
  /** Answers requests as a server would that has the model under its own names, with limits of its own. */
  fetchFor(server: AnswersFor): (request: Request) => Promise<Response>;
}

/**
 * Makes an application of a model.
 *
 * @throws OptionError; TokenizerError for a model without a tokenizer; StateError for a state of another model
 */
export function createApp(model: Model, options: AppOptions = {}): App {
  return createHostApp(model, options);
}

/** The same, for workers. */
export function createHostApp(model: Model, options: AppOptions = {}): HostApp {
  const resolved = resolveAppOptions(options);
  resolveSamplingOptions(resolved.sampling, model.info.vocabulary);
  const { state, limits, stateCacheBytes } = resolved;
  if (state) void model.createState(state).dispose(); // or it throws
  const admission = new Admission(limits);
  const { storage, batches, batchQueue } = resolved;
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
  const served = new ServedModel(model, resolved.name, resolved.aliases);
  const modelIdentity = identityOnce(model, state);
  const workOf = (directory: BatchDirectory) =>
    batchQueue?.work(directory, answersForServer(served.id, resolved), limits.bodyBytes) ??
    workHere(directory, (owner) => answersAs(owner, routes, services), {
      atOnce: Math.max(1, Math.floor(limits.concurrent / 2)),
      maxBytes: limits.bodyBytes,
    });
  const runner =
    batches &&
    new BatchRunner({
      directory: batches,
      work: workOf(batches),
      modelIdentity,
      modelName: served.id,
      maxBytes: limits.bodyBytes,
      onEnding: resolved.onBatch,
    });
  if (batchQueue) metrics.add(batchQueue);
  const services: Services = {
    model,
    served,
    options: resolved,
    inference,
    prompts,
    constraints: new ConstraintCache(model),
    metrics,
    states,
    responses,
    batches: batches && runner && { directory: batches, runner },
  };
  const routes = allRoutes(services);
  const hono = honoOf(services, routes);
  void runner?.resume().catch(() => {}); // what cannot be read now is gone on with at the next start
  return {
    fetch: (request) => hono.fetch(request),
    fetchFor: fetchesFor(services),
    hono,
    modelName: services.served.id,
    needsKey: resolved.apiKeys.length > 0,
    get load() {
      return admission.statistics;
    },
    async close(milliseconds = 0) {
      const batchesAreLeft = runner?.close();
      await inference.close(milliseconds);
      await batchesAreLeft;
      await batchQueue?.close();
      await prompts.close();
      await cache.close();
      await storage?.close();
    },
  };
}

function honoOf(services: Services, routes: readonly Route[]): Hono {
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
        exposeHeaders: ["X-Request-Id", "Request-Id", "Retry-After"],
        maxAge: 600,
      }),
    );
  }
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
    hono.on(route.method.toUpperCase(), route.path, ({ req }) => {
      const [params, query] = [req.param(), req.query()];
      return answer({ request: req.raw, owner: () => keys.check(req.raw.headers), params, query }, route, services);
    });
  for (const path of new Set(all.map((route) => route.path))) {
    hono.all(path, (context) => {
      const methods = all.filter((route) => route.path === path).map(({ method }) => method.toUpperCase());
      const message = `${path} takes ${methods.join(" and ")}`;
      return refuse(context.req.method, services, path, new ApiError(405, message, { code: "method_not_allowed" }), {
        Allow: methods.join(", "),
      });
    });
  }
  hono.notFound((context) =>
    refuse(
      context.req.method,
      services,
      "unknown",
      new ApiError(404, "there is nothing at this path", { code: "unknown_url" }),
    ),
  );
  return hono;
}

/** What tells the answers from those of others, found out when it is first asked for. */
function identityOnce(model: Model, state: Uint8Array | undefined): () => Promise<string> {
  let identity: Promise<string> | undefined;
  return () => {
    identity ??= answeringIdentity(model, state);
    return identity;
  };
}

function packageVersion(): string {
  const file = new URL("../../package.json", import.meta.url);
  return (JSON.parse(readFileSync(file, "utf8")) as { version: string }).version;
}
