// JSON that is held to a schema: random texts satisfy it, as Ajv judges; what cannot be held to is refused by name.

import Ajv2020, { type ValidateFunction } from "ajv/dist/2020.js";
import addFormats from "ajv-formats";
import * as fc from "fast-check";
import { OptionError } from "rwkv";
import { jsonObject, jsonSchema } from "rwkv/constraints";
import { describe, expect, test } from "vitest";
import { accepts, jsonTokens, modelOf, randomNumbers, smallTokenizer, walk } from "./constrained-walks.js";

const bytes = smallTokenizer([]);
const small = smallTokenizer(jsonTokens);

function validator(schema: object | boolean): ValidateFunction {
  const ajv = new Ajv2020.default({ strict: false, allErrors: false, validateFormats: true });
  addFormats.default(ajv);
  return ajv.compile(schema);
}

/** Random texts of a schema; those that end must satisfy it. @returns how many ended */
function checkWalks(schema: object | boolean, { walks = 15, most = 300, eagerness = 0.4 } = {}): number {
  const validate = validator(schema);
  const constraint = jsonSchema(schema).for(modelOf(small));
  let ended = 0;
  for (let seed = 1; seed <= walks; seed++) {
    const { text, ended: isWhole } = walk(constraint, small, randomNumbers(seed * 7919), { most, eagerness });
    if (!isWhole) continue;
    ended++;
    const value: unknown = JSON.parse(text);
    if (!validate(value)) throw new Error(`${text}: ${JSON.stringify(validate.errors)}`);
  }
  return ended;
}

const person = {
  type: "object",
  properties: {
    name: { type: "string", minLength: 1, maxLength: 12 },
    age: { type: "integer", minimum: 0, maximum: 130 },
    tags: { type: "array", items: { enum: ["a", "b", 3, null] }, minItems: 1, maxItems: 3 },
    'né "quoted"': { type: ["boolean", "null"] },
  },
  required: ["name", "tags"],
  additionalProperties: false,
};

describe("random texts satisfy", () => {
  test.each<[string, object | boolean]>([
    ["no schema", true],
    ["an object of listed members", person],
    ["all types", { type: ["string", "number", "boolean", "null", "array", "object", "integer"] }],
    [
      "strict mode",
      {
        type: "object",
        properties: { a: { type: ["string", "null"] }, b: { type: "number" } },
        required: ["a", "b"],
        additionalProperties: false,
      },
    ],
    [
      "optional members only",
      {
        type: "object",
        properties: { a: { const: 1 }, b: { const: 2 }, c: { const: 3 } },
        additionalProperties: false,
      },
    ],
    [
      "at least one member",
      {
        type: "object",
        properties: { a: { const: 1 }, b: { const: 2 } },
        minProperties: 1,
        additionalProperties: false,
      },
    ],
    [
      "further members",
      {
        type: "object",
        properties: { ab: { const: 1 }, abc: { const: 2 } },
        required: ["ab"],
        additionalProperties: { type: "boolean" },
      },
    ],
    [
      "required members that are not listed",
      { type: "object", required: ["x", "y"], additionalProperties: { type: "integer" } },
    ],
    ["a map", { type: "object", additionalProperties: { type: "integer", minimum: -5, maximum: 5 }, maxProperties: 3 }],
    [
      "members by pattern",
      { type: "object", patternProperties: { "^[a-c]{1,3}$": { type: "boolean" } }, additionalProperties: false },
    ],
    [
      "names of members",
      { type: "object", propertyNames: { pattern: "^x[0-9]$" }, additionalProperties: { const: null } },
    ],
    [
      "a tuple",
      {
        type: "array",
        prefixItems: [{ const: 1 }, { type: "string", maxLength: 2 }, { type: "boolean" }],
        items: false,
        minItems: 2,
      },
    ],
    ["a tuple and more", { type: "array", prefixItems: [{ const: 1 }], items: { const: 2 }, minItems: 3, maxItems: 5 }],
    ["an array without items", { type: "array", items: false }],
    ["at least so many items", { type: "array", items: { type: "boolean" }, minItems: 4 }],
    ["characters that are counted", { type: "string", minLength: 3, maxLength: 5 }],
    ["a pattern", { type: "string", pattern: "^(?:[A-Z]{2}-)?\\d{3}$" }],
    ["a pattern somewhere", { type: "string", pattern: "a.c" }],
    ["a pattern of what is escaped", { type: "string", pattern: '^["\\\\\\n\\t\\u0001x/]{2,4}$' }],
    ["listed values", { enum: ['a"b', 1.5, null, [1, { x: "é" }], { a: [] }, true] }],
    ["listed values of a type", { type: "string", enum: ["a", 1, "b"] }],
    [
      "one of several",
      { anyOf: [{ type: "integer" }, { type: "object", properties: { a: { type: "null" } }, required: ["a"] }] },
    ],
    [
      "exactly one of several",
      {
        oneOf: [
          { type: "object", properties: { kind: { const: "a" }, x: { type: "integer" } }, required: ["kind", "x"] },
          { type: "object", properties: { kind: { const: "b" } }, required: ["kind"] },
          { type: "null" },
        ],
      },
    ],
    [
      "all of several",
      {
        allOf: [
          { type: "object", properties: { a: { type: "number", minimum: 0 } }, required: ["a"] },
          { properties: { a: { type: "integer", maximum: 9 }, b: { type: "boolean" } }, required: ["b"] },
        ],
      },
    ],
    [
      "what stands beside a combination",
      {
        type: "object",
        properties: { a: { type: "integer" }, b: { type: "boolean" } },
        anyOf: [{ required: ["a"] }, { required: ["b"] }],
      },
    ],
    [
      "references",
      {
        $defs: {
          list: { type: "array", items: { $ref: "#/$defs/entry" }, maxItems: 2 },
          entry: {
            type: "object",
            properties: { n: { type: "integer" }, more: { $ref: "#/$defs/list" } },
            required: ["n"],
            additionalProperties: false,
          },
        },
        $ref: "#/$defs/list",
      },
    ],
    [
      "a reference to the whole",
      {
        type: "object",
        properties: { v: { type: "boolean" }, next: { anyOf: [{ $ref: "#" }, { type: "null" }] } },
        required: ["v", "next"],
        additionalProperties: false,
      },
    ],
    [
      "a reference with more beside it",
      {
        definitions: { "a/b": { type: "object", properties: { x: { type: "integer" } } } },
        $ref: "#/definitions/a~1b",
        required: ["x"],
        description: "…",
      },
    ],
    ["keywords of one type without it", { minimum: 3, maximum: 4 }],
    ["members without a type", { properties: { a: { type: "integer" } }, required: ["a"] }],
  ])("%s", (_, schema) => {
    expect(checkWalks(schema)).toBeGreaterThan(2);
  });

  test.each(["date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid"])(
    "the format %s",
    (format) => {
      expect(checkWalks({ type: "string", format }, { eagerness: 0.8 })).toBeGreaterThan(5);
    },
  );

  test("ranges of numbers", () => {
    const bound = fc.oneof(
      fc.integer({ min: -1200, max: 1200 }),
      fc.double({ min: -50, max: 50, noNaN: true }).map((x) => Math.round(x * 100) / 100),
    );
    const name = fc.constantFrom("minimum", "exclusiveMinimum");
    const other = fc.constantFrom("maximum", "exclusiveMaximum");
    fc.assert(
      fc.property(
        bound,
        fc.double({ min: 0.5, max: 300, noNaN: true }),
        name,
        other,
        fc.constantFrom("number", "integer"),
        fc.nat(3),
        (low, size, from, to, type, ends) => {
          const high = Math.round((low + (type === "integer" ? size + 2 : size)) * 100) / 100;
          const schema = { type, ...(ends !== 1 && { [from]: low }), ...(ends !== 2 && { [to]: high }) };
          expect(checkWalks(schema, { walks: 5 })).toBeGreaterThan(0);
        },
      ),
      { numRuns: 20 },
    );
  });

  test("every whole number of a range, and no other", () => {
    for (const [minimum, maximum] of [
      [-12, 105],
      [7, 7],
      [95, 1003],
      [-1000, -998],
      [0, 9],
    ] as const) {
      const constraint = jsonSchema({ type: "integer", minimum, maximum }).for(modelOf(bytes));
      const decimal = jsonSchema({ type: "number", minimum, maximum }).for(modelOf(bytes));
      for (let value = -1010; value <= 1010; value += value > -20 && value < 120 ? 1 : 3) {
        const isWithin = value >= minimum && value <= maximum;
        expect([value, accepts(constraint, String(value)), accepts(decimal, String(value))]).toEqual([
          value,
          isWithin,
          isWithin,
        ]);
      }
      expect(accepts(constraint, "-0")).toBe(false);
    }
  });
});

describe("whole texts", () => {
  const has = (schema: object | boolean, ...texts: string[]) => {
    const constraint = jsonSchema(schema).for(modelOf(bytes));
    return texts.map((text) => accepts(constraint, text));
  };

  test("any JSON, without whitespace, to a depth", () => {
    const texts = ["{}", "[]", '{"a":[1,-2.5e-3,"\\u00e9\\n€",true,false,null,{"b":{}}]}', '"😀"', "0"];
    expect(has(true, ...texts)).toEqual(texts.map(() => true));
    const not = [
      "",
      "{",
      "[1,]",
      '{"a":1,}',
      "01",
      "1.",
      "+1",
      '"\n"',
      '"\\ud800"',
      '"\\x"',
      "[1] ",
      "{a:1}",
      "nul",
      "[1 ,2]",
    ];
    expect(has(true, ...not)).toEqual(not.map(() => false));
    const nested = (depth: number) => "[".repeat(depth) + "]".repeat(depth);
    expect(has(true, nested(60), nested(70))).toEqual([true, false]);
    const object = jsonObject().for(modelOf(bytes));
    expect(['{"a":{}}', "{}", "[]", "1"].map((text) => accepts(object, text))).toEqual([true, true, false, false]);
  });

  test("members come in the order of the schema", () => {
    const schema = { type: "object", properties: { a: { type: "integer" }, b: { type: "integer" } }, required: ["b"] };
    expect(has(schema, '{"a":1,"b":2}', '{"b":2}', '{"b":2,"a":1}', '{"a":1}', '{"b":2,"c":3}')).toEqual([
      true,
      true,
      false,
      false,
      false,
    ]);
  });

  test("names of further members differ from those listed", () => {
    const schema = { type: "object", properties: { ab: { type: "null" } }, additionalProperties: { type: "integer" } };
    const texts = [
      '{"ab":1}',
      '{"a":1}',
      '{"abc":1}',
      '{"":1}',
      '{"\\u0061b":1}',
      '{"ab":null,"b":2}',
      '{"ab":null,"ab":2}',
    ];
    expect(has(schema, ...texts)).toEqual([false, true, true, true, false, true, false]);
  });

  test("lengths count characters, however they are written", () => {
    expect(
      has({ type: "string", minLength: 2, maxLength: 2 }, '"é€"', '"😀\\n"', '"\\u00e9a"', '"a"', '"abc"'),
    ).toEqual([true, true, true, false, false]);
  });

  test("a long string is held to its length", () => {
    const schema = { type: "string", minLength: 150, maxLength: 200 };
    const texts = [149, 150, 175, 200, 201].map((length) => `"${"x".repeat(length)}"`);
    expect(has(schema, ...texts)).toEqual([false, true, true, true, false]);
  });
});

describe("a schema is refused that", () => {
  const deep = (levels: number) => {
    let schema: object = { type: "null" };
    for (let i = 0; i < levels; i++) schema = { type: "array", items: schema };
    return schema;
  };
  test.each<[string, unknown, string]>([
    ["is none", 5, "a JSON schema: an object, true or false"],
    ["is an array", [], "a JSON schema: an object, true or false"],
    [
      "has a keyword that cannot be held to",
      { type: "object", properties: { a: { not: {} } } },
      'keywords that can be held to (docs/constraints.md lists them), found the keyword "not" at /properties/a',
    ],
    ["has conditions", { if: {}, else: {} }, 'the keyword "if"'],
    ["has a misspelt keyword", { type: "object", requried: ["a"] }, 'the keyword "requried"'],
    ["asks for items that differ", { type: "array", uniqueItems: true }, "found true at /uniqueItems"],
    ["asks for multiples", { type: "integer", multipleOf: 5 }, "found 5 at /multipleOf"],
    [
      "has a keyword of a wrong type",
      { type: "string", minLength: -1 },
      "expected a whole number >= 0, found -1 at /minLength",
    ],
    ["has an unknown type", { type: "text" }, 'found "text" at /type'],
    ["has an unknown format", { type: "string", format: "phone" }, 'found "phone" at /format'],
    ["has a wrong pattern", { type: "string", pattern: "(" }, "a closing bracket for each group"],
    ["has a pattern that is not regular", { type: "string", pattern: "(?=a)" }, "without lookaround"],
    [
      "has a length beside a pattern",
      { type: "string", pattern: "^a+$", maxLength: 5 },
      "a length, a pattern, or a format",
    ],
    ["refers to what is not there", { $ref: "#/$defs/a" }, 'found "#/$defs/a"'],
    ["refers elsewhere", { $ref: "https://example.com/a" }, "a reference within the schema"],
    ["refers to itself", { $ref: "#" }, "a grammar that texts can follow to its end"],
    [
      "refers to itself without a value between",
      { anyOf: [{ $ref: "#" }, { type: "null" }] },
      "rules without left recursion",
    ],
    [
      "refers to itself beside keywords",
      { type: "object", allOf: [{ $ref: "#" }] },
      "at most 100 references and combinations",
    ],
    [
      "no value satisfies",
      { type: "object", properties: { a: false }, required: ["a"] },
      "a grammar that texts can follow to its end",
    ],
    [
      "no value satisfies, by types",
      { allOf: [{ type: "string" }, { type: "integer" }] },
      "a grammar that texts can follow",
    ],
    [
      "no value can end",
      { type: "object", properties: { a: { $ref: "#" } }, required: ["a"] },
      "a grammar that texts can follow to its end",
    ],
    [
      "has alternatives that overlap",
      { oneOf: [{ type: "integer" }, { type: "number" }] },
      "schemas that differ by type",
    ],
    [
      "has too many combinations",
      { allOf: Array.from({ length: 12 }, () => ({ anyOf: [{ minimum: 1 }, { minimum: 2 }, { minimum: 3 }] })) },
      "at most 1000 combinations",
    ],
    ["is nested too deeply", deep(500), "at most 200 levels"],
    ["is too long", { enum: ["x".repeat(2_000_000)] }, "at most 1000000 characters"],
    [
      "contains itself",
      (() => {
        const own: Record<string, unknown> = {};
        own["items"] = own;
        return own;
      })(),
      "JSON cannot write",
    ],
    [
      "lists values beside other keywords",
      { enum: ["a", "b"], minLength: 1 },
      'the keyword "minLength" beside listed values',
    ],
    [
      "counts members that may be left out",
      { properties: { a: {}, b: {}, c: {} }, maxProperties: 2 },
      "as many as there are listed members",
    ],
  ])("%s", (_, schema, expected) => {
    const make = () => jsonSchema(schema as object).for(modelOf(small));
    expect(make).toThrow(OptionError);
    expect(make).toThrow(expected);
  });

  test("large schemas are read in bounded time", () => {
    const many = Object.fromEntries(
      Array.from({ length: 1000 }, (_, i) => [`member${i}`, { type: "string", maxLength: i + 1 }]),
    );
    const constraint = jsonSchema({ type: "object", properties: many, required: Object.keys(many) }).for(
      modelOf(small),
    );
    expect(walk(constraint, small, randomNumbers(1), { most: 200 }).tokens.length).toBeGreaterThan(199);
    const chain = Object.fromEntries(
      Array.from({ length: 1000 }, (_, i) => [`d${i}`, { type: "array", items: { $ref: `#/$defs/d${i + 1}` } }]),
    );
    expect(jsonSchema({ $defs: { ...chain, d1000: { type: "null" } }, $ref: "#/$defs/d0" })).toBeDefined();
  });
});
