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
  /** What stands for the request's API key; what it makes is no other's. */
  readonly owner: string;
  /** A name for this request, which its answer has as a header. */
  readonly requestId: string;
  /** Aborted when the client has left. */
  readonly signal: AbortSignal;
  /** Notes numbers of tokens, for the record of this request. */
  note(numbers: TokenNumbers): void;
  /** Says that a stream has ended; other answers have when they are returned. */
  finish(): void;
}

/** Numbers of tokens in the record of a request. */
export type TokenNumbers = Pick<RequestRecord, "promptTokens" | "cachedTokens" | "generatedTokens">;

/** A method of a path. */
export interface Route {
  readonly method: "get" | "post" | "delete";
  /** The path, with names after colons: /v1/models/:id */
  readonly path: string;
  /** What it does, in a few words. */
  readonly summary: string;
  /** Whether it needs no key. */
  readonly isPublic?: boolean;
  /** What a body must be; routes without one read none. */
  readonly body?: Schema;
  /** For a route whose body is bytes, and not JSON: how many there may be. */
  readonly maxBytes?: number;
  /** Names of parameters behind the path, for the description of the API. */
  readonly queryNames?: readonly string[];
  /** A JSON schema of the answer, for the description of the API. */
  readonly answer?: object;
  /** The types of an answer's content, where it is not JSON alone. */
  readonly contentTypes?: readonly string[];
  /** The body of an answer that is an error, where it is not that of OpenAI's API. */
  readonly errorBody?: (error: ApiError, requestId: string) => object;
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

/** A route with a body. */
export function withBody<S extends Schema>(
  route: Omit<Route, "handle" | "body"> & {
    readonly body: S;
    handle(call: Call<v.InferOutput<S>>): Response | Promise<Response>;
  },
): Route {
  return route as Route;
}
