// Grammars: the texts of each kind, the masks of tokens, what is forced, and what is refused.

import * as fc from "fast-check";
import { OptionError } from "rwkv";
import {
  choice,
  type Grammar,
  gbnf,
  jsonObject,
  jsonSchema,
  oneOf,
  regex,
  sequence,
  textUntil,
  textWithout,
} from "rwkv/constraints";
import { describe, expect, test } from "vitest";
import type { CompiledGrammar } from "#rwkv/constraints/compiled-grammar";
import type { State } from "#rwkv/constraints/machine";
import {
  accepts,
  idsIn,
  jsonTokens,
  manyTokens,
  modelOf,
  randomNumbers,
  smallTokenizer,
  walk,
} from "./constrained-walks.js";

const bytes = smallTokenizer([]);
const small = smallTokenizer(jsonTokens);
const large = smallTokenizer(manyTokens());
const ids = Array.from({ length: large.vocabularySize - 1 }, (_, i) => i + 1);

const has = (grammar: Grammar, text: string) => accepts(grammar.for(modelOf(bytes)), text);

describe("regular expressions", () => {
  test.each([
    "abc",
    "a|bc|",
    "(?:ab)*c?",
    "[a-c]{2,3}",
    "a{0}b",
    "(a|b)+?c",
    "[^a]b",
    ".b",
    "\\d-\\w",
    "[\\]\\-a]+",
    "(?<x>a)\\.",
    "a{2,}",
    "(a?){3}",
    "(a*)*b",
    "(a|ab)(c|bc)",
    "é+",
    "[à-ÿ]",
    "\\u{1F600}|\\u00e9|\\x61",
    "\\p{Lu}b",
    "(?:a{1,9}b){8,12}",
    "[a-z]{70,90}",
    "(?:ab?){40,}",
  ])("%s has the texts that JavaScript's has", (pattern) => {
    const grammar = regex(pattern).for(modelOf(bytes));
    const expression = new RegExp(`^(?:${pattern})$`, "u");
    const piece = fc.constantFrom(
      "",
      "a",
      "b",
      "c",
      "ab",
      "bc",
      "é",
      "À",
      "😀",
      "1-a",
      "-",
      "]",
      ".",
      "ab".repeat(40),
      "z".repeat(75),
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 5 }), (pieces) => {
        const text = pieces.join("");
        expect([text, accepts(grammar, text)]).toEqual([text, expression.test(text)]);
      }),
      { numRuns: 60 },
    );
  });

  test.each([
    ["(", "a closing bracket for each group"],
    ["a)", "an opening bracket"],
    ["[a", "a closing bracket for each class"],
    ["a**", "one quantifier after another"],
    ["*a", "something before each quantifier"],
    ["a{3,2}", "a first number that is not above the second"],
    ["a{2000000}", "at most 1000000 repetitions"],
    ["a{,3}", "{n}, {n,} or {n,m}"],
    ["(?=a)b", "without lookaround"],
    ["(a)\\1", "no back references"],
    ["\\bword", "word boundaries"],
    ["a^b", "anchors only at the ends"],
    ["[z-a]", "ranges from one character to a later one"],
    ["\\p{Nothing}", "a property of Unicode"],
    ["(".repeat(300) + ")".repeat(300), "nested at most 200 times"],
    ["[]", "a grammar that texts can follow to its end"],
  ])("%s is refused", (pattern, expected) => {
    expect(() => regex(pattern)).toThrow(OptionError);
    expect(() => regex(pattern)).toThrow(expected);
  });
});

describe("GBNF", () => {
  const arithmetic = gbnf(`
    # sums of products
    root  ::= term ([-+] term)*
    term  ::= factor (
      [*/] factor   # a group may go over lines
    )*
    factor ::= [0-9]+ | "(" root ")" |
      "\\x70\\u0069"
  `);

  test("rules may refer to each other, and texts are those that can be derived", () => {
    for (const text of ["1", "1+2*3", "(1-(2))/34", "pi*pi", "((((5))))"]) expect(has(arithmetic, text)).toBe(true);
    for (const text of ["", "1+", "(1", "1)", "()", "p", "1 + 2"]) expect(has(arithmetic, text)).toBe(false);
  });

  test("quantifiers, classes and any character", () => {
    const grammar = gbnf(`root ::= "a"{2} b{1,2} [^\\n"]? . c{,2} "]"{0,}\nb ::= "b"\nc ::= "c"`);
    for (const text of ["aabé", "aabb!x", "aabxycc]]]"]) expect(has(grammar, text)).toBe(true);
    for (const text of ["ab!", "aabbbxxc", 'aab"xc!', "aab"]) expect(has(grammar, text)).toBe(false);
  });

  test("recursion within is a stack", () => {
    const grammar = gbnf(`root ::= "a" root "b" | ""`);
    expect(has(grammar, "aaabbb")).toBe(true);
    expect(has(grammar, "aabbb")).toBe(false);
    // Texts that would need more than 64 calls are not begun, so that each that is begun can be ended.
    expect(has(grammar, "a".repeat(63) + "b".repeat(63))).toBe(true);
    expect(has(grammar, "a".repeat(80) + "b".repeat(80))).toBe(false);
  });

  test("at that depth, too, what is begun can be ended", () => {
    const grammar = gbnf(
      `root ::= "(" root ")" | "a" x | "b"\nx ::= "c" y "d"\ny ::= "c" z "d"\nz ::= "c" root "d" | "e"`,
    );
    const constraint = grammar.for(modelOf(bytes));
    for (const preferred of ["(ac", "a(c", "c(a", "(", "ac"]) {
      const reading = constraint.begin!();
      const tokens: number[] = [];
      for (let i = 0; i < 1000 && !reading.mayEnd!(tokens); i++) {
        const allowed = idsIn(reading.allowedTokens!(tokens)!);
        const wanted = [...preferred].map((letter) => letter.charCodeAt(0) + 1).find((id) => allowed.includes(id));
        tokens.push((wanted ?? allowed[0])!);
      }
      expect(reading.mayEnd!(tokens)).toBe(true);
      expect(tokens.length).toBeGreaterThan(60);
    }
  });

  test("recursion at the end of a rule takes no stack", () => {
    const grammar = gbnf(`root ::= "a" rest\nrest ::= "," "a" rest | ""`);
    expect(has(grammar, `a${",a".repeat(500)}`)).toBe(true);
  });

  test("an ambiguous grammar has each text once", () => {
    const grammar = gbnf(`root ::= list\nlist ::= item | item list\nitem ::= [ab] | [ab] [ab] | "(" list ")"`);
    expect(has(grammar, "abab(ab(a))b")).toBe(true);
    expect(has(grammar, "abab(ab(a)b")).toBe(false);
  });

  test.each([
    ["", "a rule root"],
    [`rot ::= "a"`, "a rule root"],
    [`root ::= a`, "a rule for each name"],
    [`root ::= "a\n`, "a closing quotation mark"],
    [`root ::= [a`, "a closing bracket"],
    [`root ::= ("a"`, "a closing bracket"],
    [`root ::= "a" )`, "the end of the line"],
    [`root = "a"`, "::= after root"],
    [`root ::= "a"\nroot ::= "b"`, "one rule of each name"],
    [`root ::= "a"{3,2}`, "a first number"],
    [`root ::= "\\q"`, "one of the escapes"],
    [`root ::= "a"{3000000}`, "at most 1000000"],
    [`root ::= root "a" | "a"`, "rules without left recursion"],
    [`root ::= x\nx ::= y? x "a" | "b"\ny ::= "c"?`, "rules without left recursion"],
    [`root ::= x*\nx ::= x* "a"`, "rules without left recursion"],
    [`root ::= "a" root`, "a grammar that texts can follow to its end"],
    [`root ::= ${"(".repeat(300)}"a"${")".repeat(300)}`, "nested at most 200 times"],
  ])("%j is refused", (source, expected) => {
    expect(() => gbnf(source)).toThrow(OptionError);
    expect(() => gbnf(source)).toThrow(expected);
  });
});

describe("choices and parts", () => {
  test("a choice is one of the texts", () => {
    const grammar = choice(["yes", "no", "not now", "né"]);
    for (const text of ["yes", "no", "not now", "né"]) expect(has(grammar, text)).toBe(true);
    for (const text of ["", "ye", "not", "now"]) expect(has(grammar, text)).toBe(false);
    expect(() => choice([])).toThrow("option choices: expected an array of strings");
    expect(() => choice(["a", ""])).toThrow("option choices: expected non-empty strings");
    expect(() => choice("ab" as never)).toThrow("option choices");
  });

  test("free text ends with the first mark; what follows is held to a grammar", () => {
    const grammar = sequence(textUntil("<<call>>"), regex("\\d+"), "</call>");
    for (const text of ["<<call>>1</call>", "é<<<call>>12</call>", "<<cal <<<<call>>3</call>"])
      expect(has(grammar, text)).toBe(true);
    for (const text of ["<<call>>a</call>", "text", "<<call>><<call>>1</call>"]) expect(has(grammar, text)).toBe(false);
  });

  test("alternatives of parts, with text that has no mark", () => {
    const grammar = oneOf(textWithout("<t>"), sequence(textUntil("<t>"), choice(["a", "b"])));
    for (const text of ["", "hello <t", "<<t", "x<t>b", "€<t>a"]) expect(has(grammar, text)).toBe(true);
    for (const text of ["<t>", "x<t>c", "<t>ab"]) expect(has(grammar, text)).toBe(false);
    expect(() => sequence("a", 5 as never)).toThrow("option parts: expected grammars and strings, found 5");
    expect(() => textUntil("")).toThrow("option mark");
  });

  test("a grammar is made for a model", () => {
    expect(() => choice(["a"]).for({} as never)).toThrow("option model");
    expect(() => choice(["a"]).for(undefined as never)).toThrow("option model");
    const { bytesOf, ...without } = bytes;
    expect(() => choice(["a"]).for(modelOf(without))).toThrow(
      "constraints need a tokenizer whose tokens are byte strings",
    );
  });
});

describe("masks", () => {
  /** With what is read first, where that matters. */
  const grammars: [string, Grammar, string?][] = [
    ["depth near its limit", gbnf(`root ::= "a" root "b" | [x019]{2,9} "," root "." | "b"`), "a".repeat(61)],
    ["any object", jsonObject()],
    ["short strings", jsonSchema({ type: "array", items: { type: "string", minLength: 1, maxLength: 3 } })],
    ["nested groups", gbnf(`root ::= "(" (root | [a-z€😀]{1,12} | root "," root)* ")"`)],
    ["one character a rule", gbnf(`root ::= char+ "," char{3,9} "."\nchar ::= [a-zé] | "\\\\" ["n]`)],
    ["counted names", regex('"(?:[a-zé]|\\\\"){2,20}":\\[(?:\\d{1,3},){0,5}\\]')],
    ["a count to the end", regex("(?:ab|a|é){3,11}")],
    ["an ambiguous count", regex("(?:a|ab|b){2,6}[abc]{1,9}")],
    ["a long count", sequence('"', regex("[a-z0-9 ]{0,300}"), '"', regex("a{200}"))],
    ["free text", sequence(textUntil('"},{"'), jsonObject())],
  ];

  test.each(grammars)("%s: the tokens allowed are those whose bytes are", (_, grammar, first = "") => {
    const byToken = grammar.for(modelOf(large));
    const { machine } = grammar.for(modelOf(bytes)) as CompiledGrammar;
    const read = (state: State, id: number) =>
      large.bytesOf!(id)!.reduce((before: State, byte) => machine.step(before, byte), state);
    const compared: number[] = [];
    for (let seed = 1; seed <= 12; seed++) {
      const random = randomNumbers(seed);
      const reading = byToken.begin!();
      const tokens = Array.from(first, (letter) => letter.charCodeAt(0) + 1);
      let state = tokens.reduce(read, machine.start);
      while (tokens.length < first.length + 25) {
        machine.refill();
        const allowed = idsIn(reading.allowedTokens!(tokens)!);
        const expected = ids.filter((id) => !read(state, id).isDead);
        if (allowed.join() !== expected.join()) {
          const texts = (found: number[], other: number[]) =>
            found.filter((id) => !other.includes(id)).map((id) => large.decode([id]));
          expect([large.decode(tokens), texts(allowed, expected), texts(expected, allowed)]).toEqual(["", [], []]);
        }
        compared.push(allowed.length);
        if (allowed.length === 0) break;
        // Short tokens, so that the counts near their ends are met, too.
        const some = Array.from({ length: 1 + (seed % 4) }, () => allowed[Math.floor(random() * allowed.length)]!);
        const length = (id: number) => large.bytesOf!(id)!.length;
        const token = some.reduce((best, id) => (length(id) < length(best) ? id : best));
        tokens.push(token);
        state = read(state, token);
      }
    }
    expect(Math.max(...compared)).toBeGreaterThan(9);
  });

  test.each(grammars)("%s: walks have no dead end, and what is forced is what alone is allowed", (_, grammar) => {
    const constraint = grammar.for(modelOf(small));
    for (let seed = 1; seed <= 10; seed++) {
      const { tokens } = walk(constraint, small, randomNumbers(seed), { most: 120, eagerness: 0.1 });
      const reading = constraint.begin!();
      tokens.forEach((token, i) => {
        const allowed = idsIn(reading.allowedTokens!(tokens.slice(0, i))!);
        expect(allowed).toContain(token);
      });
    }
  });

  test("one constraint serves several texts at once, and each may begin anew", () => {
    const constraint = regex("(?:ab)+|c").for(modelOf(bytes));
    const [a, b] = [constraint.begin!(), constraint.begin!()];
    const id = (letter: string) => letter.charCodeAt(0) + 1;
    expect(idsIn(a.allowedTokens!([])!)).toEqual([id("a"), id("c")]);
    expect(idsIn(a.allowedTokens!([id("a")])!)).toEqual([id("b")]);
    expect(idsIn(b.allowedTokens!([id("c")])!)).toEqual([]);
    expect(b.mayEnd!([id("c")])).toBe(true);
    expect(idsIn(a.allowedTokens!([id("a"), id("b")])!)).toEqual([id("a")]);
    expect(idsIn(a.allowedTokens!([])!)).toEqual([id("a"), id("c")]);
    expect(() => a.allowedTokens!([id("z")])).toThrow("does not follow the grammar");
  });

  test("tokens of the same bytes are allowed alike", () => {
    const twins = smallTokenizer(["xy", "xy", "a"]);
    const mask = regex("xy|a").for(modelOf(twins)).begin!().allowedTokens!([])!;
    expect(idsIn(mask)).toEqual([98, 121, 257, 258, 259]);
  });
});

describe("what is forced", () => {
  const text = (grammar: Grammar, before = "") => {
    const reading = grammar.for(modelOf(small)).begin!();
    return reading.forcedTokens!(small.encode(before)).map((id) => small.decode([id]));
  };

  test("is cut as the tokenizer cuts it", () => {
    expect(text(sequence('{"name":', jsonObject()))).toEqual(['{"', "name", '":', "{"].slice(0, 2));
    expect(text(sequence('{"name"= ', regex("[xy]")))).toEqual(['{"', "name", '"', "=", " "]);
    expect(text(choice(["abcname"]))).toEqual(["abc", "name"]);
  });

  test("leaves tokens out that a longer one might replace", () => {
    // "ab" might be the beginning of "abc".
    expect(text(sequence("nameab", regex("[cd]")))).toEqual(["name"]);
    expect(text(sequence("nameab", regex("[de]")))).toEqual(["name", "ab"]);
  });

  test("is nothing where the text may end, or two bytes may follow", () => {
    expect(text(regex("(?:ab)*"))).toEqual([]);
    expect(text(regex("(?:ab)*"), "ab")).toEqual([]);
    expect(text(choice(["yes", "no"]))).toEqual([]);
    expect(text(choice(["yes", "no"]), "y")).toEqual(["e", "s"]);
  });

  test("ends where a character would be cut", () => {
    expect(text(sequence("ü", choice(["é", "è"])))).toEqual(["\ufffd", "\ufffd", "\ufffd"].slice(0, 2));
  });
});

describe("grammars that are made to be slow", () => {
  const limited = (make: () => unknown) => {
    let thrown: unknown;
    try {
      make();
    } catch (error) {
      thrown = error;
    }
    if (thrown !== undefined) expect(String(thrown)).toMatch(/OptionError|RwkvError/);
    return thrown;
  };
  const walked = (grammar: Grammar, before: string) => {
    const reading = grammar.for(modelOf(small)).begin!();
    const tokens: number[] = [];
    for (const byte of new TextEncoder().encode(before)) {
      reading.allowedTokens!(tokens);
      tokens.push(byte + 1);
    }
    reading.allowedTokens!(tokens);
  };

  test("counts of counts take no more nodes than one", () => {
    const grammar = regex("(?:(?:(?:a{1000}){1000}){1000}b){1000}");
    expect(limited(() => walked(grammar, "a".repeat(50)))).toBeUndefined();
  });

  test.each([
    ["nested stars", () => walked(regex("(?:(?:(?:a*)*)*)*b"), "aaaa")],
    ["an ambiguous count", () => walked(regex("(?:[a-z]+){1000}"), "abcdefghij".repeat(5))],
    ["empty bodies that are counted", () => walked(regex("(?:a?){100000}b"), "aaa")],
    ["empty bodies that are counted twice", () => walked(regex("(?:(?:a?){1000}){1000}b"), "aaa")],
    ["every way to split a text", () => walked(gbnf(`root ::= x\nx ::= "a" x x | "a" x | "a"`), "a".repeat(60))],
    ["many alternatives", () => walked(regex(Array.from({ length: 20_000 }, (_, i) => `a${i}`).join("|")), "a1")],
    ["a million choices", () => choice(Array.from({ length: 1_000_000 }, (_, i) => `x${i}y`))],
    ["one long text", () => choice(["x".repeat(2_000_000)])],
    ["a long chain of what may be left out", () => walked(gbnf(`root ::= ${'"a"? '.repeat(20_000)}"b"`), "a")],
    [
      "many rules in a chain",
      () =>
        walked(
          gbnf(
            `root ::= r0\n${Array.from({ length: 5000 }, (_, i) => `r${i} ::= r${i + 1} "x" | "y"`).join("\n")}\nr5000 ::= "z"`,
          ),
          "",
        ),
    ],
    [
      "parts within parts",
      () => {
        let grammar = choice(["a"]);
        for (let i = 0; i < 5000; i++) grammar = sequence(grammar, "b");
        walked(grammar, "abb");
      },
    ],
    [
      "parts that double",
      () => {
        let grammar = choice(["a"]);
        for (let i = 0; i < 60; i++) grammar = sequence(grammar, grammar);
        walked(grammar, "aaa");
      },
    ],
  ])("%s", (_, make) => {
    limited(make);
  });
});
