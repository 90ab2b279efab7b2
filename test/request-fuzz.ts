// Requests for a server that nobody sane would send, and some that one would: made from the server's own description of its API.

import { gzipSync } from "node:zlib";
import fc from "fast-check";

/** What is sent, in a form that fast-check can print and shrink. */
export interface FuzzedRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | Uint8Array | undefined;
  /** What the client does: reads the answer, leaves while it is made, or takes a piece of it and leaves. */
  readonly reader: "reads" | "leaves at once" | "leaves later";
}

/** The part of a description of an API that requests are made from. */
export interface ApiDescription {
  readonly paths: Readonly<Record<string, Readonly<Record<string, ApiOperation>>>>;
}

interface ApiOperation {
  readonly requestBody?: { readonly content: Readonly<Record<string, { readonly schema: JsonSchema }>> };
  readonly parameters?: readonly { readonly name: string; readonly in: string }[];
}

interface JsonSchema {
  readonly type?: string | readonly string[];
  readonly const?: unknown;
  readonly enum?: readonly unknown[];
  readonly anyOf?: readonly JsonSchema[];
  readonly oneOf?: readonly JsonSchema[];
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly required?: readonly string[];
  readonly additionalProperties?: JsonSchema | boolean;
  readonly items?: JsonSchema;
  readonly minItems?: number;
  readonly maxItems?: number;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly minLength?: number;
}

const texts = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom("The king", "Once upon a time", "a", " ", "Hello\n\nAssistant:") },
  { weight: 2, arbitrary: fc.string({ unit: "grapheme", maxLength: 20 }) },
  {
    weight: 1,
    arbitrary: fc.constantFrom("\ud800", "a\udfff", "\u0000", "\ufeff", "e\u0301".repeat(50), "a".repeat(3000)),
  },
);

const numbers = fc.oneof(
  fc.integer({ min: -3, max: 20 }),
  fc.constantFrom(0, -0, 0.5, 1e-320, 2 ** 31, 2 ** 32, 2 ** 53, 1e308, -1e308),
  fc.double({ noNaN: true, noDefaultInfinity: true }),
);

/** A value with keys that objects of JavaScript have of their own, or one that is nested deeply. */
const trickyTexts = [
  '{"__proto__": {"stream": true, "n": 1000000}, "constructor": {"prototype": 1}}',
  '{"toString": 1, "hasOwnProperty": 1, "length": 1e9}',
  `${"[".repeat(300)}${"]".repeat(300)}`,
  `${'{"a":'.repeat(200)}1${"}".repeat(200)}`,
];
const tricky = fc.constantFrom(...trickyTexts).map((text) => JSON.parse(text) as unknown);

const hostileValues: fc.Arbitrary<unknown> = fc.oneof(
  texts,
  numbers,
  tricky,
  fc.constantFrom(null, true, false, [], {}, [[]], [null], "1", "NaN", "true"),
  fc.array(fc.integer({ min: -1, max: 70_000 }), { maxLength: 8 }),
);

/** Values of a schema, or of what is written of it: these schemas do not say everything that is checked. */
function valuesOf(schema: JsonSchema, depth = 0): fc.Arbitrary<unknown> {
  const { anyOf, oneOf, type, properties, items } = schema;
  const alternatives = anyOf ?? oneOf;
  if (alternatives) return fc.oneof(...alternatives.map((one) => valuesOf(one, depth)));
  if ("const" in schema) return fc.constant(schema.const);
  if (schema.enum) return fc.constantFrom(...schema.enum);
  if (Array.isArray(type)) return fc.oneof(...type.map((one: string) => valuesOf({ ...schema, type: one }, depth)));
  switch (type) {
    case "string":
      return schema.minLength ? texts.filter((text) => text !== "") : texts;
    case "integer":
    case "number": {
      const [least, most] = [schema.minimum ?? -4, schema.maximum ?? 12];
      const high = Math.max(Math.ceil(least), Math.min(most, least + 12));
      const whole = fc.integer({ min: Math.ceil(least), max: Math.floor(high) });
      return type === "integer" ? whole : fc.oneof(whole, fc.double({ min: least, max: most, noNaN: true }));
    }
    case "boolean":
      return fc.boolean();
    case "null":
      return fc.constant(null);
    case "array": {
      const few = { minLength: schema.minItems ?? 0, maxLength: Math.max(schema.minItems ?? 0, depth > 2 ? 1 : 3) };
      return fc.array(items ? valuesOf(items, depth + 1) : hostileValues, few);
    }
    case "object":
      return objectsOf(schema, depth);
    default:
      return properties ? objectsOf(schema, depth) : hostileValues;
  }
}

function objectsOf({ properties = {}, required = [], additionalProperties }: JsonSchema, depth: number) {
  const fields = Object.fromEntries(
    Object.entries(properties).map(([name, schema]) => {
      return [name, valuesOf(schema, depth + 1)];
    }),
  );
  // A body with all fields at once is hardly ever right.
  const known = fc.record(fields).chain((all) => {
    const optional = Object.keys(all).filter((name) => !required.includes(name));
    return fc
      .subarray(optional, { maxLength: Math.min(optional.length, 4) })
      .map((kept) =>
        Object.fromEntries(Object.entries(all).filter(([name]) => required.includes(name) || kept.includes(name))),
      );
  });
  if (typeof additionalProperties !== "object") return known;
  const more = fc.dictionary(fc.oneof(fc.nat(300).map(String), texts), valuesOf(additionalProperties, depth + 1), {
    maxKeys: 3,
  });
  return fc.tuple(known, more).map(([a, b]) => ({ ...b, ...a }));
}

/** A value with one of its parts replaced. */
function changed(value: unknown, at: number, by: unknown): unknown {
  let left = at;
  const walk = (node: unknown): unknown => {
    if (left-- === 0) return by;
    if (Array.isArray(node)) return node.map(walk);
    if (typeof node !== "object" || node === null) return node;
    return Object.fromEntries(Object.entries(node).map(([key, one]) => [key, walk(one)]));
  };
  return walk(value);
}

/** Bodies that are no JSON, or more than anyone asked for. */
const hostileBodies: fc.Arbitrary<string | Uint8Array> = fc.oneof(
  fc.constantFrom(
    "",
    "null",
    "1",
    '"',
    "[".repeat(20_000),
    '{"a":'.repeat(10_000),
    '{"prompt": "\\ud800", "max_tokens": 2}',
    '{"prompt": "a", "prompt": ["b"], "max_tokens": 1e999}',
    '{"messages": [{"role": "user", "content": "a", "__proto__": {"role": "x"}}], "__proto__": {"n": 9}}',
    `{"prompt": "${"a".repeat(100_000)}"}`,
    `{"prompt": [${"1,".repeat(30_000)}1], "max_tokens": 1}`,
  ),
  fc.constant(gzipSync(Buffer.alloc(2 ** 24, 32))), // 16 MiB of spaces in 16 KiB
  fc.constant(Uint8Array.of(0x22, 0xff, 0xfe, 0x22)),
  fc.uint8Array({ maxLength: 200 }),
  fc.constantFrom(...trickyTexts),
);

const ids = fc.oneof(
  fc.constantFrom(
    "state_0",
    "resp_0",
    "tales",
    "..",
    "%2e%2e%2fetc",
    "%00",
    "a%",
    "%ff",
    "__proto__",
    "x".repeat(2000),
  ),
  fc.string({ maxLength: 10 }).map((text) => encodeURIComponent(text.replace(/\p{Surrogate}/gu, "")) || "x"),
);

/** Nothing, nine times of ten. */
function rarely<T>(values: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> {
  return fc.oneof({ weight: 9, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary: values });
}

const contentTypes = fc.oneof(
  { weight: 12, arbitrary: fc.constant("application/json") },
  {
    weight: 1,
    arbitrary: fc.constantFrom(
      "text/plain",
      "application/json; charset=utf-16",
      "application/octet-stream",
      "multipart/form-data",
      "",
    ),
  },
);

const oddHeaders = fc.oneof(
  { weight: 10, arbitrary: fc.constant({}) },
  {
    weight: 1,
    arbitrary: fc.constantFrom<Record<string, string>>(
      { "Content-Encoding": "gzip" },
      { "Content-Encoding": "br, gzip" },
      { Authorization: "Bearer " },
      { "X-Api-Key": "x".repeat(5000) },
      { "Last-Event-ID": "-1", Range: "bytes=0-1" },
      { Origin: "null", "Access-Control-Request-Method": "POST" },
      { "Content-Length": "-1" },
      { "Content-Length": "99999999999999999999" },
      { "Content-Length": "abc" },
    ),
  },
);

/** Requests to all that a server says it has, right, nearly right, and wrong. */
export function requestsTo(description: ApiDescription): fc.Arbitrary<FuzzedRequest> {
  const operations = Object.entries(description.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method: method.toUpperCase(), operation })),
  );
  const ofOperations = operations.map(({ path, method, operation }) => {
    const content = operation.requestBody?.content ?? {};
    const schema = content["application/json"]?.schema;
    const right: fc.Arbitrary<string | Uint8Array | undefined> = schema
      ? valuesOf(schema).map((value) => JSON.stringify(value))
      : content["application/octet-stream"]
        ? fc.uint8Array({ maxLength: 100 })
        : fc.constant(undefined);
    const nearlyRight = schema
      ? fc
          .tuple(valuesOf(schema), fc.nat(12), hostileValues)
          .map(([value, at, by]) => JSON.stringify(changed(value, at, by)))
      : hostileBodies;
    const cut = fc.tuple(right, fc.nat(100)).map(([body, at]) => body?.slice(0, at));
    const names = operation.parameters?.filter((one) => one.in === "query").map(({ name }) => name) ?? [];
    const queries = fc.dictionary(fc.constantFrom("a", "limit", "after", ...names), texts, { maxKeys: 3 });
    return fc
      .record({
        id: ids,
        query: rarely(queries),
        type: contentTypes,
        headers: oddHeaders,
        body: fc.oneof(
          { weight: 6, arbitrary: right },
          { weight: 6, arbitrary: nearlyRight },
          { weight: 1, arbitrary: cut },
          { weight: 1, arbitrary: hostileBodies },
        ),
        otherMethod: rarely(fc.constantFrom("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW")),
        reader: fc.oneof(
          { weight: 8, arbitrary: fc.constant("reads" as const) },
          { weight: 1, arbitrary: fc.constantFrom("leaves at once" as const, "leaves later" as const) },
        ),
      })
      .map(({ id, query, type, headers, body, otherMethod, reader }): FuzzedRequest => {
        const search = query ? `?${new URLSearchParams(query)}` : "";
        const octets = content["application/octet-stream"] ? "application/octet-stream" : type;
        const used = otherMethod ?? method;
        return {
          method: used,
          path: path.replace(/\{\w+\}/g, () => id) + search,
          headers: { ...(octets && { "Content-Type": octets }), ...headers },
          body: used === "GET" || used === "HEAD" ? undefined : body,
          reader,
        };
      });
  });
  const lost = fc.record({
    method: fc.constantFrom("GET", "POST", "DELETE"),
    path: fc.webPath().map((path) => (path.startsWith("/") ? path : `/${path}`)),
    headers: fc.constant({}),
    body: fc.constant(undefined),
    reader: fc.constant("reads" as const),
  });
  // Resources that take bodies have more that can be wrong.
  const weights = operations.map(({ operation }) => (operation.requestBody ? 6 : 1));
  return fc.oneof(
    { weight: 2, arbitrary: lost },
    ...ofOperations.map((arbitrary, i) => ({ weight: weights[i] as number, arbitrary })),
  );
}

/**
 * Sends a request to an application and checks what holds of any answer: no error of the server's, errors in the API's form, streams
 * that end.
 *
 * @returns the status
 * @throws Error that says what does not hold
 */
export async function sendFuzzed(
  fetchOf: (request: Request) => Response | Promise<Response>,
  fuzzed: FuzzedRequest,
): Promise<number> {
  const { method, path, headers, body, reader } = fuzzed;
  const leaving = new AbortController();
  const request = new Request(`http://localhost${path}`, {
    method,
    headers,
    ...(body !== undefined && { body: body as BodyInit }),
    signal: leaving.signal,
  });
  if (reader === "leaves at once") setImmediate(() => leaving.abort());
  const response = await fetchOf(request);
  const { status } = response;
  const isStream = response.headers.get("content-type")?.startsWith("text/event-stream");
  if (status >= 500 || (status === 499 && reader === "reads"))
    throw new Error(`status ${status}: ${await response.text()}`);
  if (reader === "leaves later" && response.body) {
    const taking = response.body.getReader();
    await taking.read();
    await taking.cancel();
    leaving.abort();
    return status;
  }
  const text = await response.text();
  if (method === "HEAD" || method === "OPTIONS") return status;
  if (status >= 400) {
    const { error } = JSON.parse(text);
    const areTexts = typeof error.message === "string" && typeof error.type === "string";
    // Routes of Anthropic's API have errors of that API.
    const isOfApi = path.startsWith("/v1/messages") || ("param" in error && "code" in error);
    if (!areTexts || !isOfApi) throw new Error(`status ${status}, and no error of the API: ${text}`);
  }
  if (isStream && /"type":"(server_error|api_error)"/.test(text))
    throw new Error(`an error in a stream: ${text.slice(-300)}`);
  if (isStream && !/\n\n$/.test(text)) throw new Error(`a stream that does not end: ${text.slice(-300)}`);
  return status;
}
