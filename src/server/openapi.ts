// The description of the API (OpenAPI 3.1), from what the routes say of themselves.

import { toJsonSchema } from "@valibot/to-json-schema";
import * as v from "valibot";
import { errorBody } from "./errors.js";
import type { Route } from "./route.js";
import type { Schema } from "./schema.js";

/** What the description is, as its own route says it. */
export const openApiDocument = v.strictObject({
  openapi: v.literal("3.1.0"),
  info: v.strictObject({ title: v.string(), version: v.string(), description: v.string() }),
  paths: v.record(v.string(), v.record(v.string(), v.unknown())),
  components: v.record(v.string(), v.record(v.string(), v.unknown())),
});

/** The schema of a form with a file. */
const formSchema = {
  type: "object",
  properties: { file: { type: "string", format: "binary" }, purpose: { type: "string" } },
  required: ["file", "purpose"],
};

/** @param needsKey whether requests need an API key */
export function openApi(routes: readonly Route[], version: string, needsKey: boolean): object {
  const paths: Record<string, Record<string, object>> = {};
  for (const route of routes.filter(({ isUndescribed }) => !isUndescribed)) {
    const path = route.path.replace(/:(\w+)/g, "{$1}");
    paths[path] = { ...paths[path], [route.method]: operationOf(route, needsKey) };
  }
  return {
    openapi: "3.1.0",
    info: { title: "rwkv serve", version, description: "An RWKV language model behind OpenAI's API." },
    paths,
    components: {
      schemas: { Error: schemaOf(errorBody) },
      securitySchemes: {
        bearer: { type: "http", scheme: "bearer" },
        apiKey: { type: "apiKey", in: "header", name: "x-api-key" },
      },
    },
  };
}

function operationOf(
  {
    path,
    summary,
    body,
    maxBytes,
    maxFormBytes,
    queryNames = [],
    answer,
    events,
    contentTypes = [],
    errors,
    isPublic,
  }: Route,
  needsKey: boolean,
): object {
  const parameter = (name: string | undefined, where: "path" | "query") => ({
    name,
    in: where,
    required: where === "path",
    schema: { type: "string" },
  });
  const parameters = [
    ...[...path.matchAll(/:(\w+)/g)].map(([, name]) => parameter(name, "path")),
    ...queryNames.map((name) => parameter(name, "query")),
  ];
  const content = body
    ? { "application/json": { schema: schemaOf(body) } }
    : maxBytes
      ? { "application/octet-stream": { schema: { type: "string", format: "binary" } } }
      : maxFormBytes && { "multipart/form-data": { schema: formSchema } };
  const errorSchema = errors ? schemaOf(errors.schema) : { $ref: "#/components/schemas/Error" };
  const error = (description: string) => ({ description, content: { "application/json": { schema: errorSchema } } });
  const answers = {
    ...(answer && { "application/json": { schema: schemaOf(answer) } }),
    // As in OpenAI's description of its API, the schema is that of an event's data.
    ...(events && { "text/event-stream": { schema: schemaOf(events) } }),
    ...Object.fromEntries(contentTypes.map((type) => [type, { schema: { type: "string" } }])),
  };
  return {
    summary,
    ...(parameters.length > 0 && { parameters }),
    ...(content && { requestBody: { required: true, content } }),
    responses: {
      // A route that has no answer refuses every request.
      ...(Object.keys(answers).length > 0 && {
        200: {
          description: events ? "The answer; as a stream, the data of each event" : "The answer",
          content: answers,
        },
      }),
      "4XX": error("The request is wrong, or one too many"),
      "5XX": error("The server cannot carry it out"),
    },
    ...(needsKey && !isPublic && { security: [{ bearer: [] }, { apiKey: [] }] }),
  };
}

function schemaOf(described: Schema): object {
  const { $schema: _, ...schema } = toJsonSchema(described, {
    target: "draft-2020-12",
    typeMode: "input",
    errorMode: "ignore",
  });
  return schema;
}
