// The description of the API (OpenAPI 3.1), from what the routes say of themselves.

import { toJsonSchema } from "@valibot/to-json-schema";
import type { Route } from "./route.js";

const errorSchema = {
  type: "object",
  required: ["error"],
  properties: {
    error: {
      type: "object",
      required: ["message", "type", "param", "code"],
      properties: {
        message: { type: "string" },
        type: { type: "string" },
        param: { type: ["string", "null"] },
        code: { type: ["string", "null"] },
      },
    },
  },
};

/** @param needsKey whether requests need an API key */
export function openApi(routes: readonly Route[], version: string, needsKey: boolean): object {
  const paths: Record<string, Record<string, object>> = {};
  for (const route of routes) {
    const path = route.path.replace(/:(\w+)/g, "{$1}");
    paths[path] = { ...paths[path], [route.method]: operationOf(route, needsKey) };
  }
  return {
    openapi: "3.1.0",
    info: { title: "rwkv serve", version, description: "An RWKV language model behind OpenAI's API." },
    paths,
    components: {
      schemas: { Error: errorSchema },
      securitySchemes: {
        bearer: { type: "http", scheme: "bearer" },
        apiKey: { type: "apiKey", in: "header", name: "x-api-key" },
      },
    },
  };
}

function operationOf(
  { path, summary, body, maxBytes, queryNames = [], answer = {}, contentTypes = ["application/json"], isPublic }: Route,
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
    : maxBytes && { "application/octet-stream": { schema: { type: "string", format: "binary" } } };
  const error = (description: string) => ({
    description,
    content: { "application/json": { schema: { $ref: "#/components/schemas/Error" } } },
  });
  return {
    summary,
    ...(parameters.length > 0 && { parameters }),
    ...(content && { requestBody: { required: true, content } }),
    responses: {
      200: {
        description: "The answer",
        content: Object.fromEntries(
          contentTypes.map((type) => [type, { schema: type === "application/json" ? answer : { type: "string" } }]),
        ),
      },
      "4XX": error("The request is wrong, or one too many"),
      "5XX": error("The server cannot carry it out"),
    },
    ...(needsKey && !isPublic && { security: [{ bearer: [] }, { apiKey: [] }] }),
  };
}

function schemaOf(body: NonNullable<Route["body"]>): object {
  const { $schema: _, ...schema } = toJsonSchema(body, {
    target: "draft-2020-12",
    typeMode: "input",
    errorMode: "ignore",
  });
  return schema;
}
