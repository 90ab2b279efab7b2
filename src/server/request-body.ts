// Reads the body of a request, as JSON or as bytes, and no more of it than the limit.

import { ApiError } from "./errors.js";

/**
 * The JSON value of a body.
 *
 * @throws ApiError for a body that is too long, of another type, or not JSON
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
 * @throws ApiError for a body that is too long, or of another type
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

async function readBytes(request: Request, maxBytes: number): Promise<Uint8Array> {
  const tooLong = () =>
    new ApiError(413, `the body is longer than ${maxBytes} bytes, the limit of this server`, {
      code: "request_too_large",
    });
  const length = request.headers.get("content-length");
  if (length !== null) {
    if (Number(length) > maxBytes) throw tooLong();
    return new Uint8Array(await request.arrayBuffer());
  }
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of request.body ?? []) {
    size += chunk.length;
    if (size > maxBytes) throw tooLong();
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
