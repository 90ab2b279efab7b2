// /v1/models: what is served here.

import * as v from "valibot";
import { ApiError } from "../errors.js";
import type { Route } from "../route.js";
import { type Described, wholeNumber } from "../schema.js";
import type { Services } from "../services.js";

const modelEntry = v.strictObject({
  id: v.string(),
  object: v.literal("model"),
  created: wholeNumber(0),
  owned_by: v.string(),
  /** Of which model this is another name. */
  parent: v.exactOptional(v.string()),
  info: v.strictObject({
    version: v.string(),
    layers: wholeNumber(1),
    width: wholeNumber(1),
    vocabulary: wholeNumber(1),
    parameters: wholeNumber(1),
    dtype: v.string(),
    backend: v.string(),
    state_bytes: wholeNumber(1),
  }),
});
const modelList = v.strictObject({ object: v.literal("list"), data: v.array(modelEntry) });

export function models({ served, model }: Services): Route[] {
  const { version, layers, width, vocabulary, parameters, dtype, backend, stateBytes } = model.info;
  const entry = (id: string): Described<typeof modelEntry> => ({
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
      answer: modelList,
      handle: () => Response.json({ object: "list", data: served.names.map(entry) }),
    },
    {
      method: "get",
      path: "/v1/models/:id",
      summary: "Describe a model",
      answer: modelEntry,
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
