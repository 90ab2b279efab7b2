// Reads the body of a request, as JSON or as bytes, and no more of it than the limit.

import { ApiError } from "./errors.js";

/**
 * The JSON value of a body.
 *
 * @throws ApiError for a body that is too long, packed, of another type, or not JSON
 */
export async function readJson(request: Request, maxBytes: number): Promise<unknown> {
  const type = request.headers.get("content-type") ?? "";
  // Pages may send other types to any server without asking it; this one they may not.
  if (!/^application\/([\w.+-]+\+)?json *(;|$)/i.test(type)) {
    throw new ApiError(415, "expected a body with Content-Type: application/json", { code: "unsupported_media_type" });
  }
  const bytes = await readBytes(request, maxBytes);
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    const reason = cause instanceof SyntaxError ? "it does not parse" : "it is not UTF-8";
    throw new ApiError(400, `expected a body of JSON: ${reason}`, { code: "invalid_json", cause });
  }
}

/**
 * A body that is bytes.
 *
 * @throws ApiError for a body that is too long, packed, or of another type
 */
export async function readOctets(request: Request, maxBytes: number): Promise<Uint8Array> {
  // Pages may send other types to any server without asking it; this one they may not.
  if (!/^application\/octet-stream *(;|$)/i.test(request.headers.get("content-type") ?? "")) {
    throw new ApiError(415, "expected a body with Content-Type: application/octet-stream", {
      code: "unsupported_media_type",
    });
  }
  return readBytes(request, maxBytes);
}

/**
 * A body that is a form.
 *
 * @param origins those whose pages may send one
 * @throws ApiError for a body that is too long, packed, or of another type, and for one that a page of another origin sends
 */
export async function readForm(request: Request, maxBytes: number, origins: readonly string[]): Promise<FormData> {
  const type = request.headers.get("content-type") ?? "";
  if (!/^multipart\/form-data *;/i.test(type)) {
    throw new ApiError(415, "expected a body with Content-Type: multipart/form-data", {
      code: "unsupported_media_type",
    });
  }
  // Pages may send forms to any server without asking it; the browser says whose they are.
  const origin = request.headers.get("origin");
  const own = `//${request.headers.get("host") ?? new URL(request.url).host}`;
  if (origin !== null && !origin.endsWith(own) && !origins.includes(origin) && !origins.includes("*")) {
    throw new ApiError(403, "pages of this origin may not send forms to this server", { code: "origin_not_allowed" });
  }
  const bytes = (await readBytes(request, maxBytes)) as Uint8Array<ArrayBuffer>;
  try {
    return await new Response(bytes, { headers: { "Content-Type": type } }).formData();
  } catch (cause) {
    throw new ApiError(400, "expected a form: it does not parse", { code: "invalid_form", cause });
  }
}

async function readBytes(request: Request, maxBytes: number): Promise<Uint8Array> {
  // What is unpacked may be a thousand times as long, and texts are short enough as they are.
  const encoding = request.headers.get("content-encoding") ?? "identity";
  if (!/^\s*(identity)?\s*$/i.test(encoding)) {
    throw new ApiError(415, "expected a body without Content-Encoding: this server unpacks nothing", {
      code: "unsupported_media_type",
    });
  }
  const tooLong = () =>
    new ApiError(413, `the body is longer than ${maxBytes} bytes, the limit of this server`, {
      code: "request_too_large",
    });
  const length = request.headers.get("content-length");
  const isKnown = length !== null && /^\d+$/.test(length);
  if (isKnown && Number(length) > maxBytes) throw tooLong();
  const chunks: Uint8Array[] = [];
  let size = 0;
  try {
    if (isKnown) return new Uint8Array(await request.arrayBuffer());
    for await (const chunk of request.body ?? []) {
      size += chunk.length;
      if (size > maxBytes) break;
      chunks.push(chunk);
    }
  } catch (cause) {
    throw new ApiError(499, "the client left before all of its body was there", { code: "client_left", cause });
  }
  if (size > maxBytes) throw tooLong();
  return Buffer.concat(chunks);
}
