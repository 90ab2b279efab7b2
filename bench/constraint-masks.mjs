// What grammars cost beside a model: the time to make a constraint, and of each mask, with the vocabulary of RWKV World.
// Texts are sampled at random from what is allowed, which meets far more states than a model does:
//   node bench/constraint-masks.mjs path/to/rwkv_vocab_v20230424.txt
// Needs the build in dist/. "first" is a grammar that was just made, whose masks are all found for the first time;
// "again" are further texts with the same constraint.

import { gbnf, jsonObject, jsonSchema, regex, sequence, textUntil } from "../dist/constraints/index.js";
import { trieOf } from "../dist/constraints/token-trie.js";
import { openTokenizer } from "../dist/tokenizers/open-tokenizer.js";

const [path] = process.argv.slice(2);
if (!path) throw new Error("name a World vocabulary");
const tokenizer = await openTokenizer(path);
const model = { tokenizer, info: { vocabulary: 65536 } };

const person = {
  type: "object",
  properties: {
    name: { type: "string" },
    age: { type: "integer", minimum: 0, maximum: 150 },
    email: { type: "string", format: "email" },
    tags: { type: "array", items: { type: "string", maxLength: 40 }, maxItems: 5 },
    role: { enum: ["admin", "editor", "user"] },
    manager: { anyOf: [{ $ref: "#" }, { type: "null" }] },
  },
  required: ["name", "age", "email", "tags", "role", "manager"],
  additionalProperties: false,
};

const grammars = {
  "jsonSchema, 6 members": () => jsonSchema(person),
  "jsonObject()": () => jsonObject(),
  "string of 10 to 200": () => jsonSchema({ type: "string", minLength: 10, maxLength: 200 }),
  "regex, a date": () => regex("\\d{4}-\\d{2}-\\d{2}"),
  "gbnf, arithmetic": () =>
    gbnf(`root ::= term ([-+] term)*\nterm ::= factor ([*/] factor)*\nfactor ::= [0-9]{1,9} | "(" root ")"`),
  "text, then a call": () => sequence(textUntil("<call>"), jsonSchema(person), "</call>"),
};

function randomNumbers(seed) {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return (state >>> 0) / 2 ** 32;
  };
}

/** Samples one text, and notes the time of each mask. */
function sampleText(constraint, random, times) {
  const reading = constraint.begin();
  const tokens = [];
  for (let steps = 0; steps < 200; steps++) {
    const forced = reading.forcedTokens(tokens);
    if (forced.length > 0) {
      tokens.push(...forced);
      continue;
    }
    const started = performance.now();
    const mask = reading.allowedTokens(tokens);
    times.push(performance.now() - started);
    const ids = [];
    mask.forEach((word, i) => {
      for (let bit = 0; word !== 0 && bit < 32; bit++) if ((word >>> bit) & 1) ids.push(i * 32 + bit);
    });
    // Texts of random tokens hardly ever end by themselves, so tokens of few bytes are preferred.
    const candidates = Array.from({ length: 8 }, () => ids[Math.floor(random() * ids.length)]);
    const length = (id) => tokenizer.bytesOf(id)?.length ?? 0;
    if (ids.length === 0 || (reading.mayEnd(tokens) && random() < 0.2)) return;
    tokens.push(candidates.reduce((best, id) => (length(id) < length(best) ? id : best)));
  }
}

const quantile = (times, q) =>
  times.toSorted((a, b) => a - b)[Math.min(times.length - 1, Math.floor(q * times.length))];
const shown = (times) => [0.5, 0.99, 1].map((q) => quantile(times, q).toFixed(4).padStart(8)).join(" ");

let started = performance.now();
const steps = trieOf(tokenizer, 65536);
let made = steps.next();
while (!made.done) made = steps.next();
const nodes = made.value.bytes.length;
console.log(`trie of the vocabulary: ${(performance.now() - started).toFixed(0)} ms, ${nodes} nodes\n`);
console.log("milliseconds".padEnd(26), "grammar constraint   first: median p99 max        again: median p99 max");
for (let warm = 0; warm < 2; warm++) for (const make of Object.values(grammars)) make().for(model); // the engine compiles
for (const [name, make] of Object.entries(grammars)) {
  const first = [];
  const again = [];
  const making = [[], []];
  for (let seed = 1; seed <= 8; seed++) {
    started = performance.now();
    const grammar = make();
    making[0].push(performance.now() - started);
    started = performance.now();
    const constraint = grammar.for(model);
    making[1].push(performance.now() - started);
    sampleText(constraint, randomNumbers(seed), first);
    for (let i = 0; i < 5; i++) sampleText(constraint, randomNumbers(seed * 100 + i), again);
  }
  const [grammar, constraint] = making.map((times) => quantile(times, 0.5).toFixed(1).padStart(8));
  console.log(name.padEnd(26), grammar, constraint, "  ", shown(first), "  ", shown(again));
}
