// Who may call the API: keys, compared in a time that tells nothing of them.

import { createHash, timingSafeEqual } from "node:crypto";
import { ApiError } from "./errors.js";

/** Checks the key of requests. */
export class ApiKeys {
  readonly #digests: readonly Buffer[];

  /** @param keys those that are accepted; where there are none, every request is */
  constructor(keys: readonly string[]) {
    this.#digests = keys.map(digest);
  }

  /**
   * Checks the key of a request.
   *
   * @returns what stands for the key, the same at every start of a server: what was made with one is no other's. Where no keys are needed,
   *   everything is everybody's
   * @throws ApiError for a request without a key that is accepted, as `Authorization: Bearer` or `x-api-key`
   */
  check(headers: Headers): string {
    if (this.#digests.length === 0) return "";
    const bearer = /^Bearer +(\S+) *$/i.exec(headers.get("authorization") ?? "")?.[1];
    const given = bearer ?? headers.get("x-api-key");
    const offered = digest(given ?? "");
    // All are compared, so that the time does not tell which it was.
    const matches = this.#digests.filter((key) => timingSafeEqual(key, offered));
    if (given !== null && given !== undefined && matches.length > 0) return offered.toString("hex");
    const message = given
      ? "the API key is not one that this server accepts"
      : "this server needs an API key, as Authorization: Bearer KEY or x-api-key: KEY";
    throw new ApiError(401, message, { code: "invalid_api_key" });
  }
}

function digest(key: string): Buffer {
  return createHash("sha256").update(key).digest();
}
