// Masks beside those of XGrammar, another implementation: the same grammar and the same text before give the same
// tokens.

import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { type Grammar, gbnf, jsonSchema } from "rwkv/constraints";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { byteLevelCharacters } from "#rwkv/tokenizers/byte-level";
import { idsIn, jsonTokens, modelOf, randomNumbers, smallTokenizer } from "./constrained-walks.js";

type XGrammar = typeof import("@mlc-ai/web-xgrammar");

const require = createRequire(import.meta.url);
const tokenizer = smallTokenizer(jsonTokens);
const model = modelOf(tokenizer);
const endOfText = 0;

let folder: string;
let xgrammar: XGrammar;
let compiler: Awaited<ReturnType<XGrammar["GrammarCompiler"]["createGrammarCompiler"]>>;

beforeAll(async () => {
  // Its package calls a CommonJS module an ECMAScript one, so Node can load it under another name only.
  folder = mkdtempSync(join(tmpdir(), "rwkv-"));
  const file = join(folder, "xgrammar.cjs");
  copyFileSync(join(dirname(require.resolve("@mlc-ai/web-xgrammar/package.json")), "lib/index.js"), file);
  xgrammar = require(file) as XGrammar;
  const characters = byteLevelCharacters();
  const vocabulary = Array.from({ length: tokenizer.vocabularySize }, (_, id) =>
    Array.from(tokenizer.bytesOf!(id) ?? [], (byte) => characters[byte]).join(""),
  );
  vocabulary[endOfText] = "<end>";
  const info = await xgrammar.TokenizerInfo.createTokenizerInfo(vocabulary, "byte_level", false, vocabulary.length, [
    endOfText,
  ]);
  compiler = await xgrammar.GrammarCompiler.createGrammarCompiler(info);
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Beyond the vocabulary its bits mean nothing, and it lets characters begin with bytes with which none does. */
function isComparable(id: number): boolean {
  const neverUtf8 = (byte: number) => byte === 0xc0 || byte === 0xc1 || byte >= 0xf5;
  return id < tokenizer.vocabularySize && !tokenizer.bytesOf!(id)?.some(neverUtf8);
}

/** Walks at random through what both allow, and compares at each step. */
async function compare(grammar: Grammar, other: Awaited<ReturnType<typeof compiler.compileGrammar>>): Promise<number> {
  const constraint = grammar.for(model);
  let compared = 0;
  for (let seed = 1; seed <= 12; seed++) {
    const random = randomNumbers(seed);
    const reading = constraint.begin!();
    const matcher = await xgrammar.GrammarMatcher.createGrammarMatcher(other);
    const tokens: number[] = [];
    while (tokens.length < 60) {
      const theirs = idsIn(new Uint32Array(await matcher.getNextTokenBitmask())).filter(isComparable);
      const ours = idsIn(reading.allowedTokens!(tokens)!);
      const withEnd = reading.mayEnd!(tokens) ? [endOfText, ...ours] : ours;
      if (withEnd.join() !== theirs.join()) {
        const bytesOf = (ids: number[]) => ids.map((id) => [...(tokenizer.bytesOf!(id) ?? [])]);
        expect([tokenizer.decode(tokens), bytesOf(withEnd)]).toEqual([tokenizer.decode(tokens), bytesOf(theirs)]);
      }
      compared++;
      if (ours.length === 0) break;
      // It lets characters be written with more bytes than they take, so characters are not cut.
      const whole = ours.filter((id) => !tokenizer.decode([id]).includes("\ufffd"));
      const token = whole[Math.floor(random() * whole.length)]!;
      expect(matcher.acceptToken(token)).toBe(true);
      tokens.push(token);
    }
    matcher.dispose();
  }
  return compared;
}

// Characters beyond ASCII stand in literals: in its classes they become single bytes.
describe("grammars in GBNF", () => {
  test.each([
    `root ::= "yes" | "no" | "name"`,
    `root ::= "{" [a-z]+ (":" [0-9]{1,3})? "}" root | "."`,
    `root ::= "(" (root | ([a-z] | "\\u20ac" | "\\U0001F600"){1,6} | root "," root)* ")"`,
    `root ::= char+ "," char{3,9} "."\nchar ::= [a-z] | "\\u00e9" | "\\\\" ["n]`,
    `root ::= "\\"" [^"\\\\\\x00-\\x1f]* "\\"" ws root | "true"\nws ::= [ \\t\\n]*`,
    `root ::= term ([-+*] term)*\nterm ::= [0-9]+ ("." [0-9]+)? | "(" root ")"`,
  ])("%s", async (source) => {
    expect(
      await compare(gbnf(source), await compiler.compileGrammar(await xgrammar.Grammar.fromEBNF(source))),
    ).toBeGreaterThan(20);
  });
});

describe("schemas", () => {
  test.each<[string, object]>([
    [
      "members",
      {
        type: "object",
        properties: { name: { enum: ["a", "ab"] }, id: { type: "boolean" }, n: { type: "null" } },
        required: ["name"],
        additionalProperties: false,
      },
    ],
    ["arrays", { type: "array", items: { type: "boolean" }, minItems: 2, maxItems: 4 }],
    ["a tuple", { type: "array", prefixItems: [{ const: 12 }, { type: "null" }], items: false, minItems: 2 }],
    [
      "references",
      {
        $defs: {
          list: {
            type: "object",
            properties: { next: { anyOf: [{ $ref: "#/$defs/list" }, { type: "null" }] } },
            required: ["next"],
            additionalProperties: false,
          },
        },
        $ref: "#/$defs/list",
      },
    ],
    ["a range", { type: "integer", minimum: -12, maximum: 2024 }],
  ])("%s", async (_, schema) => {
    const theirs = await xgrammar.Grammar.fromJSONSchema(JSON.stringify(schema), false, -1, [",", ":"], true);
    expect(await compare(jsonSchema(schema), await compiler.compileGrammar(theirs))).toBeGreaterThan(12);
  });
});
