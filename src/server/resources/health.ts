// /health and /ready, for whoever watches the server, and /metrics.

import * as v from "valibot";
import { ApiError } from "../errors.js";
import type { Route } from "../route.js";
import type { Services } from "../services.js";

export function health({ inference, metrics }: Services): Route[] {
  return [
    {
      method: "get",
      path: "/health",
      summary: "Whether the server runs",
      isPublic: true,
      answer: v.strictObject({ status: v.literal("ok") }),
      handle: () => Response.json({ status: "ok" }),
    },
    {
      method: "get",
      path: "/ready",
      summary: "Whether the server takes requests",
      isPublic: true,
      answer: v.strictObject({ status: v.literal("ready") }),
      handle: () => {
        inference.checkOpen();
        if (!inference.isReady)
          throw new ApiError(503, "too many requests wait", { code: "overloaded", retryAfter: 1 });
        return Response.json({ status: "ready" });
      },
    },
    {
      method: "get",
      path: "/metrics",
      summary: "Metrics in Prometheus' format",
      contentTypes: ["text/plain"],
      handle: async () => new Response(await metrics.text(), { headers: { "Content-Type": metrics.contentType } }),
    },
  ];
}
