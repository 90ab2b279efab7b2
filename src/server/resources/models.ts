// /v1/models: what is served here.

import { ApiError } from "../errors.js";
import type { Route } from "../route.js";
import type { Services } from "../services.js";

export function models({ served, model }: Services): Route[] {
  const { version, layers, width, vocabulary, parameters, dtype, backend, stateBytes } = model.info;
  const entry = (id: string) => ({
    id,
    object: "model",
    created: served.created,
    owned_by: "rwkv",
    ...(id !== served.id && { parent: served.id }),
    info: { version, layers, width, vocabulary, parameters, dtype, backend, state_bytes: stateBytes },
  });
  return [
    {
      method: "get",
      path: "/v1/models",
      summary: "List the model and its names",
      handle: () => Response.json({ object: "list", data: served.names.map(entry) }),
    },
    {
      method: "get",
      path: "/v1/models/:id",
      summary: "Describe a model",
      handle: ({ params }) => {
        const id = params["id"] ?? "";
        if (!served.names.includes(id)) {
          throw new ApiError(404, `the model ${JSON.stringify(id.slice(0, 100))} does not exist here`, {
            param: "model",
            code: "model_not_found",
          });
        }
        return Response.json(entry(id));
      },
    },
  ];
}
