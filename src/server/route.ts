// What a resource says of each of its routes. From this come the handlers (app.ts) and the description of the API (openapi.ts).

import type * as v from "valibot";
import type { ApiError } from "./errors.js";
import type { RequestRecord } from "./options.js";
import type { Schema } from "./schema.js";

/** A request whose body was checked. */
export interface Call<Body = undefined> {
  readonly body: Body;
  /** Parts of the path by name. */
  readonly params: Readonly<Record<string, string>>;
  /** Parameters behind the path by name. */
  readonly query: Readonly<Record<string, string>>;
  /** Those of the request. */
  readonly headers: Headers;
  /** What stands for the request's API key; what it makes is no other's. */
  readonly owner: string;
  /** Aborted when the client has left. */
  readonly signal: AbortSignal;
  /** Notes numbers of tokens, for the record of this request. */
  note(numbers: TokenNumbers): void;
  /** Says that a stream has ended; other answers have when they are returned. */
  finish(): void;
}

/** Numbers of tokens in the record of a request. */
export type TokenNumbers = Pick<RequestRecord, "promptTokens" | "cachedTokens" | "generatedTokens">;

/** How errors are told. */
export interface ErrorForm {
  readonly schema: Schema;
  readonly bodyOf: (error: ApiError, requestId: string) => object;
}

/** A method of a path. */
export interface Route {
  readonly method: "get" | "post" | "delete";
  /** The path, with names after colons: /v1/models/:id */
  readonly path: string;
  /** What it does, in a few words. */
  readonly summary: string;
  /** What it does by the names of OpenTelemetry's conventions, where they have one for it. */
  readonly operation?: "chat" | "text_completion" | "embeddings";
  /** Whether it needs no key. */
  readonly isPublic?: boolean;
  /** Whether it is no part of the API, as the files of a page are not, and so not of its description. */
  readonly isUndescribed?: boolean;
  /** What a body must be; routes without one read none. */
  readonly body?: Schema;
  /** For a route whose body is bytes, and not JSON: how many there may be. */
  readonly maxBytes?: number;
  /** For a route whose body is a form with a file: how many bytes it may have. */
  readonly maxFormBytes?: number;
  /** Names of parameters behind the path, for the description of the API. */
  readonly queryNames?: readonly string[];
  /** The schema of an answer of JSON. */
  readonly answer?: Schema;
  /** The schema of the events of an answer that is a stream. */
  readonly events?: Schema;
  /** The types of an answer's content, where it is neither. */
  readonly contentTypes?: readonly string[];
  /** Answers that are errors, where they are not those of OpenAI's API. */
  readonly errors?: ErrorForm;
  /** @throws ApiError, RwkvError */
  handle(call: Call<unknown>): Response | Promise<Response>;
}

/** A route whose body is bytes (application/octet-stream). */
export function withBytes(
  route: Omit<Route, "handle" | "body"> & {
    readonly maxBytes: number;
    handle(call: Call<Uint8Array>): Response | Promise<Response>;
  },
): Route {
  return route as Route;
}

/** A route whose body is a form (multipart/form-data). */
export function withForm(
  route: Omit<Route, "handle" | "body"> & {
    readonly maxFormBytes: number;
    handle(call: Call<FormData>): Response | Promise<Response>;
  },
): Route {
  return route as Route;
}

/** A route with a body. */
export function withBody<S extends Schema>(
  route: Omit<Route, "handle" | "body"> & {
    readonly body: S;
    handle(call: Call<v.InferOutput<S>>): Response | Promise<Response>;
  },
): Route {
  return route as Route;
}
