// What OpenAI publishes of the form of its API's answers (github.com/openai/openai-openapi, openapi.yaml), as JSON schemas: the fields
// that this server's answers must have, with their types. Written here from these facts; more fields are allowed, as there.

const nullable = (type: string) => ({ type: [type, "null"] });
const list = (items: object) => ({ type: "array", items });
const object = (properties: Record<string, object>, optional: readonly string[] = []) => ({
  type: "object",
  properties,
  required: Object.keys(properties).filter((name) => !optional.includes(name)),
});
const text = { type: "string" };
const count = { type: "integer", minimum: 0 };

const usage = object(
  {
    prompt_tokens: count,
    completion_tokens: count,
    total_tokens: count,
    prompt_tokens_details: object({ cached_tokens: count }),
    completion_tokens_details: object({ reasoning_tokens: count }),
  },
  ["prompt_tokens_details", "completion_tokens_details"],
);
const tokenText = { token: text, logprob: { type: "number" }, bytes: { type: ["array", "null"], items: count } };
const logprobs = {
  ...object({
    content: { ...nullable("array"), items: object({ ...tokenText, top_logprobs: list(object(tokenText)) }) },
    refusal: {},
  }),
  type: ["object", "null"],
};
const ends = ["stop", "length", "tool_calls", "content_filter", "function_call"];
const head = { id: text, created: count, model: text };

/** The schemas by what they are of. */
export const openaiSchemas = {
  chat: object(
    {
      ...head,
      object: { const: "chat.completion" },
      choices: {
        ...list(
          object({
            index: count,
            finish_reason: { enum: ends },
            logprobs,
            message: object(
              {
                role: { const: "assistant" },
                content: nullable("string"),
                refusal: nullable("string"),
                tool_calls: list(
                  object({ id: text, type: { const: "function" }, function: object({ name: text, arguments: text }) }),
                ),
              },
              ["tool_calls"],
            ),
          }),
        ),
        minItems: 1,
      },
      usage,
    },
    ["usage"],
  ),
  chunk: object(
    {
      ...head,
      object: { const: "chat.completion.chunk" },
      choices: list(
        object(
          {
            index: count,
            finish_reason: { enum: [...ends, null] },
            logprobs,
            delta: object(
              {
                role: { enum: ["developer", "system", "user", "assistant", "tool"] },
                content: nullable("string"),
                refusal: nullable("string"),
                tool_calls: list(
                  object(
                    {
                      index: count,
                      id: text,
                      type: { const: "function" },
                      function: object({ name: text, arguments: text }, ["name", "arguments"]),
                    },
                    ["id", "type", "function"],
                  ),
                ),
              },
              ["role", "content", "refusal", "tool_calls"],
            ),
          },
          ["logprobs"],
        ),
      ),
      usage: { ...usage, type: ["object", "null"] },
    },
    ["usage"],
  ),
  text: object(
    {
      ...head,
      object: { const: "text_completion" },
      choices: list(
        object({
          index: count,
          text,
          finish_reason: { enum: ["stop", "length", "content_filter"] },
          logprobs: {
            ...object({
              text_offset: list(count),
              token_logprobs: list(nullable("number")),
              tokens: list(text),
              top_logprobs: list({ type: ["object", "null"], additionalProperties: { type: "number" } }),
            }),
            type: ["object", "null"],
          },
        }),
      ),
      usage,
    },
    ["usage"],
  ),
  embeddings: object({
    object: { const: "list" },
    model: text,
    data: list(object({ index: count, object: { const: "embedding" }, embedding: list({ type: "number" }) })),
    usage: object({ prompt_tokens: count, total_tokens: count }),
  }),
  models: object({
    object: { const: "list" },
    data: list(object({ id: text, object: { const: "model" }, created: count, owned_by: text })),
  }),
  error: object({
    error: object({ message: text, type: text, param: nullable("string"), code: nullable("string") }),
  }),
} as const;
