// Whom a server on a loopback address answers when it has no keys: a page may let its own name lead there (DNS rebinding), and is then no
// stranger to the browser. What it cannot change is the name in the Host header.

import { isIP } from "node:net";
import { ApiError } from "./errors.js";

type Fetch = (request: Request) => Response | Promise<Response>;

/**
 * Answers requests that name localhost, an address, or one of some hosts, and refuses others with 403.
 *
 * @param allowed names of hosts, without ports
 */
export function hostCheck(fetch: Fetch, allowed: readonly string[]): Fetch {
  const names = new Set(allowed.map((name) => name.toLowerCase()));
  return (request) => {
    const name = hostOf(request);
    if (isIP(name) || name === "localhost" || name.endsWith(".localhost") || names.has(name)) return fetch(request);
    const error = new ApiError(
      403,
      "this server does not go by the name in the Host header (--allowed-host adds one)",
      {
        code: "host_not_allowed",
      },
    );
    return Response.json(error.body, { status: error.status });
  };
}

/** The name of the host that a request is for, without port and brackets; empty where there is none. */
function hostOf(request: Request): string {
  const host = request.headers.get("host") ?? "";
  return host
    .toLowerCase()
    .replace(/:\d*$/, "")
    .replace(/^\[(.*)\]$/, "$1");
}
