// Errors as clients of OpenAI's API expect them: a status, and an object with message, type, param and code.

import * as v from "valibot";
import { BackendError, LimitError, OptionError, RwkvError, StateError, TokenizerError } from "../errors.js";

/** The schema of the body of an answer that is an error. */
export const errorBody = v.strictObject({
  error: v.strictObject({
    message: v.string(),
    type: v.picklist(["invalid_request_error", "rate_limit_error", "server_error"]),
    param: v.nullable(v.string()),
    code: v.nullable(v.string()),
  }),
});

/** The body of an answer that is an error. */
export type ErrorBody = v.InferOutput<typeof errorBody>;

/** What `type` says of an error. */
export type ApiErrorType = ErrorBody["error"]["type"];

/** A request cannot be carried out. */
export class ApiError extends RwkvError {
  override name = "ApiError";
  readonly status: number;
  readonly type: ApiErrorType;
  /** The field of the request that is wrong, as `messages[0].content`. */
  readonly param: string | null;
  readonly code: string | null;
  readonly headers: Readonly<Record<string, string>>;

  /** @param retryAfter seconds after which the same request may succeed */
  constructor(
    status: number,
    message: string,
    about: {
      readonly param?: string;
      readonly code?: string;
      readonly retryAfter?: number;
      readonly cause?: unknown;
    } = {},
  ) {
    super(message, { cause: about.cause });
    this.status = status;
    this.type = status === 429 ? "rate_limit_error" : status >= 500 ? "server_error" : "invalid_request_error";
    this.param = about.param ?? null;
    this.code = about.code ?? null;
    this.headers = about.retryAfter === undefined ? {} : { "Retry-After": String(about.retryAfter) };
  }

  get body(): ErrorBody {
    const { message, type, param, code } = this;
    return { error: { message, type, param, code } };
  }
}

/** A field of a request has a value that cannot be used. */
export function invalidField(param: string, message: string): ApiError {
  return new ApiError(400, message.startsWith(param) ? message : `${param}: ${message}`, {
    param,
    code: "invalid_value",
  });
}

/** The error for a state that a client made up, with which the model computes nothing. */
export function senselessState(): ApiError {
  return invalidField("state", "its values are none that a model has: nothing can be computed with them");
}

/** A field asks for what this server does not do. */
export function notSupported(param: string, message: string): ApiError {
  return new ApiError(400, `${param}: ${message}`, { param, code: "unsupported_parameter" });
}

/** What a client is told of an error: what it caused itself in full, of anything else only that it happened. */
export function toApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  if (error instanceof OptionError) return new ApiError(400, error.message, { code: "invalid_value", cause: error });
  if (error instanceof TokenizerError) return new ApiError(400, error.message, { cause: error });
  if (error instanceof LimitError) {
    return new ApiError(503, "the model has no place for a further sequence", {
      code: "overloaded",
      retryAfter: 1,
      cause: error,
    });
  }
  if (error instanceof BackendError || error instanceof StateError) {
    return new ApiError(503, "the model is not available", { code: "unavailable", cause: error });
  }
  return new ApiError(500, "the server failed on this request", { code: "internal_error", cause: error });
}
