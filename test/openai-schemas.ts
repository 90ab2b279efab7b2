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
const itemStatus = { enum: ["in_progress", "completed", "incomplete"] };
const flag = { type: "boolean" };
const kind = (type: string, properties: Record<string, object> = {}, optional: readonly string[] = []) =>
  object({ type: { const: type }, ...properties }, optional);
const outputText = kind("output_text", { text, annotations: list({}), logprobs: list(object(tokenText)) }, [
  "logprobs",
]);
const reasoningText = kind("reasoning_text", { text });
const part = { anyOf: [outputText, reasoningText] };
const message = (role: object, content: object) =>
  kind("message", { id: text, role, status: itemStatus, content: list(content) });
const call = { id: text, call_id: text, status: itemStatus };
const functionCall = kind("function_call", { ...call, name: text, arguments: text });
const reasoning = kind(
  "reasoning",
  { id: text, summary: list(kind("summary_text", { text })), content: list(reasoningText), status: itemStatus },
  ["content", "status"],
);
const outputItem = { anyOf: [message({ const: "assistant" }, outputText), functionCall, reasoning] };
const said = { anyOf: [outputText, kind("input_text", { text }), kind("refusal", { refusal: text })] };
const inputItem = {
  anyOf: [
    message({ enum: ["user", "system", "developer", "assistant"] }, said),
    functionCall,
    kind("function_call_output", { ...call, output: { anyOf: [text, list(said)] } }),
    reasoning,
  ],
};
const responseUsage = object({
  input_tokens: count,
  input_tokens_details: object({ cached_tokens: count }),
  output_tokens: count,
  output_tokens_details: object({ reasoning_tokens: count }),
  total_tokens: count,
});
const format = {
  anyOf: [
    kind("text"),
    kind("json_object"),
    kind("json_schema", { name: text, schema: { type: "object" }, strict: { type: ["boolean", "null"] } }, ["strict"]),
  ],
};
/** A response, and events that have one; those in progress have no usage yet. */
const responseObject = object(
  {
    id: text,
    object: { const: "response" },
    created_at: count,
    error: { type: "null" },
    incomplete_details: {
      anyOf: [{ type: "null" }, object({ reason: { enum: ["max_output_tokens", "content_filter"] } })],
    },
    instructions: nullable("string"),
    metadata: { ...nullable("object"), additionalProperties: text },
    model: text,
    output: list(outputItem),
    parallel_tool_calls: flag,
    temperature: nullable("number"),
    tool_choice: { anyOf: [{ enum: ["none", "auto", "required"] }, kind("function", { name: text })] },
    tools: list(
      kind(
        "function",
        {
          name: text,
          description: nullable("string"),
          parameters: nullable("object"),
          strict: { type: ["boolean", "null"] },
        },
        ["description"],
      ),
    ),
    top_p: nullable("number"),
    background: { type: ["boolean", "null"] },
    completed_at: { type: ["integer", "null"] },
    max_output_tokens: { type: ["integer", "null"] },
    previous_response_id: nullable("string"),
    reasoning: object({ effort: nullable("string"), summary: nullable("string") }),
    status: { enum: ["completed", "failed", "in_progress", "cancelled", "queued", "incomplete"] },
    text: object({ format }),
    top_logprobs: { type: ["integer", "null"] },
    truncation: { enum: ["auto", "disabled", null] },
    usage: { anyOf: [responseUsage, { type: "null" }] },
    user: nullable("string"),
  },
  ["completed_at"],
);
const event = (type: string, properties: Record<string, object>) =>
  kind(`response.${type}`, { sequence_number: count, ...properties });
const itemPlace = { item_id: text, output_index: count };
const place = { ...itemPlace, content_index: count };
const responseEvents = [
  ...["created", "in_progress", "completed", "incomplete"].map((type) => event(type, { response: responseObject })),
  ...["added", "done"].map((type) => event(`output_item.${type}`, { output_index: count, item: outputItem })),
  ...["added", "done"].map((type) => event(`content_part.${type}`, { ...place, part })),
  event("output_text.delta", { ...place, delta: text, logprobs: list(object(tokenText)) }),
  event("output_text.done", { ...place, text, logprobs: list(object(tokenText)) }),
  event("reasoning_text.delta", { ...place, delta: text }),
  event("reasoning_text.done", { ...place, text }),
  event("function_call_arguments.delta", { ...itemPlace, delta: text }),
  event("function_call_arguments.done", { ...itemPlace, name: text, arguments: text }),
];
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
  response: responseObject,
  responseEvent: { anyOf: responseEvents },
  inputItems: object({
    object: { const: "list" },
    data: list(inputItem),
    first_id: text,
    last_id: text,
    has_more: flag,
  }),
  error: object({
    error: object({ message: text, type: text, param: nullable("string"), code: nullable("string") }),
  }),
} as const;
