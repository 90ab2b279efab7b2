// Generations that are held to grammars: what is forced is read in one pass, texts end where the grammar does, and
// sessions have read what results say.

import { load, type Model } from "rwkv";
import { choice, jsonSchema, regex, sequence, textUntil } from "rwkv/constraints";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

let model: Model;
beforeAll(async () => {
  model = await load();
});
afterAll(() => model.dispose());

const prompt = "Once upon a time";
const schema = {
  type: "object",
  properties: {
    name: { type: "string", maxLength: 20 },
    age: { type: "integer", minimum: 0, maximum: 99 },
    kind: { enum: ["king", "queen", "child"] },
  },
  required: ["name", "age", "kind"],
  additionalProperties: false,
};

describe("a model that knows no JSON", () => {
  test("writes what satisfies a schema, alone and in company", async () => {
    const constrain = jsonSchema(schema).for(model);
    const results = await Promise.all(
      [1, 2, 3, 4].map((seed) => model.generate(prompt, { constrain, seed, maxTokens: 200 }).result),
    );
    for (const { text, finishReason, stop } of results) {
      const value = JSON.parse(text);
      expect(Object.keys(value)).toEqual(["name", "age", "kind"]);
      expect([...value.name].length).toBeLessThanOrEqual(20);
      expect(Number.isInteger(value.age) && value.age >= 0 && value.age <= 99).toBe(true);
      expect(schema.properties.kind.enum).toContain(value.kind);
      expect([finishReason, stop]).toEqual(["stop", undefined]);
    }
    const alone = await model.generate(prompt, { constrain, seed: 1, maxTokens: 200 }).result;
    expect(alone.tokens).toEqual(results[0]!.tokens);
  });

  test("chooses, follows patterns, and writes freely before a mark", async () => {
    expect(["yes", "no"]).toContain(
      await model.generate(prompt, { constrain: choice(["yes", "no"]).for(model) }).text(),
    );
    expect(await model.generate(prompt, { constrain: regex("\\d{4}-\\d\\d").for(model) }).text()).toMatch(
      /^\d{4}-\d\d$/,
    );
    const constrain = sequence(textUntil("the"), " ", choice(["dog", "cat"])).for(model);
    const text = await model.generate(prompt, { constrain, seed: 3, maxTokens: 500 }).text();
    expect(text).toMatch(/the (dog|cat)$/);
    expect(text.indexOf("the")).toBe(text.length - "the dog".length);
  });
});

describe("what is forced", () => {
  const fixed = "A text that is given, to the last letter.";

  test("is read in one pass", async () => {
    const session = model.session();
    await session.read(prompt);
    const before = model.scheduler.passes;
    const generation = session.generate({ constrain: sequence(fixed, choice(["!", "?"])).for(model), maxTokens: 100 });
    const { text, tokens, finishReason } = await generation.result;
    expect(text.slice(0, -1)).toBe(fixed);
    expect(finishReason).toBe("stop");
    expect(tokens.length).toBeGreaterThan(8);
    expect(model.scheduler.passes - before).toBeLessThanOrEqual(2);
    await session.dispose();
  });

  test("leaves the session where reading it as a prompt does", async () => {
    const session = model.session();
    await session.read(prompt);
    const { tokens } = await session.generate({ constrain: choice([fixed]).for(model), maxTokens: 100 }).result;
    const other = model.session();
    await other.read(prompt);
    await other.read(tokens);
    expect(session.position).toBe(other.position);
    const options = { temperature: 0, maxTokens: 20 };
    expect(await session.generate(options).text()).toBe(await other.generate(options).text());
    await Promise.all([session.dispose(), other.dispose()]);
  });

  test("has log-probabilities where they are asked for: the model's own", async () => {
    const constrain = sequence("The king", choice([" said", " was"])).for(model);
    const generation = model.generate(prompt, { constrain, logProbabilities: 2, seed: 1 });
    const steps = [];
    for await (const step of generation.steps()) if (step.token !== undefined) steps.push(step);
    const plain = await model.generate(prompt, { constrain, seed: 1 }).result;
    expect(steps.map(({ token }) => token)).toEqual(plain.tokens);
    const state = model.createState();
    const [logits] = await model.forward([
      { state, tokens: [...model.tokenizer.encode(prompt), ...plain.tokens.slice(0, -1)], logits: "all" },
    ]);
    const rows = logits!.subarray(-plain.tokens.length * model.info.vocabulary);
    steps.forEach(({ token, logProbability, topLogProbabilities }, i) => {
      const row = rows.subarray(i * model.info.vocabulary, (i + 1) * model.info.vocabulary);
      const total = Math.log(row.reduce((sum, logit) => sum + Math.exp(logit), 0));
      expect(logProbability).toBeCloseTo(row[token!]! - total, 4);
      expect(topLogProbabilities!.length).toBe(2);
    });
  });

  test("is cut by maxTokens, and the result says so", async () => {
    const whole = await model.generate(prompt, { constrain: choice([fixed]).for(model), maxTokens: 100 }).result;
    for (const maxTokens of [1, 2, whole.tokens.length - 1, whole.tokens.length]) {
      for (const logProbabilities of [undefined, 0]) {
        const { tokens, finishReason } = await model.generate(prompt, {
          constrain: choice([fixed]).for(model),
          maxTokens,
          ...(logProbabilities !== undefined && { logProbabilities }),
        }).result;
        expect(tokens).toEqual(whole.tokens.slice(0, maxTokens));
        expect(finishReason).toBe(maxTokens < whole.tokens.length ? "length" : "stop");
      }
    }
  });

  test("a reader that leaves within it, and a stop string within it: the result has what the session has read", async () => {
    const session = model.session();
    await session.read(prompt);
    const before = session.position;
    const generation = session.generate({ constrain: sequence(fixed, regex("[a-z]*")).for(model) });
    for await (const _ of generation) break;
    const { tokens, text, finishReason } = await generation.result;
    expect(finishReason).toBe("aborted");
    expect(fixed.startsWith(text)).toBe(true);
    expect(session.position - before).toBe(tokens.length);
    expect(model.tokenizer.decode(tokens).startsWith(text)).toBe(true);
    const stopped = session.generate({ constrain: choice([fixed]).for(model), stop: "given" });
    const middle = session.position;
    expect(await stopped.text()).toBe(fixed.slice(0, fixed.indexOf("given")));
    expect(session.position - middle).toBe((await stopped.result).tokens.length);
    await session.dispose();
  });

  test("an aborted generation ends cleanly", async () => {
    const session = model.session();
    await session.read(prompt);
    const controller = new AbortController();
    const before = session.position;
    const long = "and so on ".repeat(300);
    const generation = session.generate({
      constrain: choice([long]).for(model),
      signal: controller.signal,
      maxTokens: 5000,
    });
    for await (const _ of generation) controller.abort();
    const { tokens, finishReason } = await generation.result;
    expect(finishReason).toBe("aborted");
    expect(session.position - before).toBe(tokens.length);
    await session.dispose();
  });

  test("follows logits that are kept as it follows a pending token", async () => {
    const text = async (keepLogits: boolean, given: string, logProbabilities?: number) => {
      const session = model.session();
      await session.read(prompt, { keepLogits });
      const constrain = sequence(given, regex("[a-z ]{5}")).for(model);
      const generation = session.generate({
        constrain,
        seed: 5,
        ...(logProbabilities !== undefined && { logProbabilities }),
      });
      const steps = [];
      for await (const { token, logProbability } of generation.steps()) steps.push([token, logProbability?.toFixed(4)]);
      const more = await session.generate({ temperature: 0, maxTokens: 5 }).text();
      const { position } = session;
      await session.dispose();
      return { steps, more, position };
    };
    for (const given of [fixed, " the", ""]) {
      for (const count of [undefined, 1])
        expect(await text(true, given, count)).toEqual(await text(false, given, count));
    }
  });

  test("begins a text where nothing was read", async () => {
    const session = model.session();
    const { text } = await session.generate({ constrain: choice([fixed]).for(model), maxTokens: 100 }).result;
    expect(text).toBe(fixed);
    await session.dispose();
  });
});

describe("the end of a text", () => {
  test("stop tokens are allowed where the grammar may end, and nowhere else", async () => {
    const end = model.tokenizer.endOfText!;
    const logitBias = { [end]: 1000 };
    const constrain = regex("[a-z]{5}[a-z]*").for(model);
    const { text, stop } = await model.generate(prompt, { constrain, logitBias, seed: 1 }).result;
    expect(text).toMatch(/^[a-z]{5,}$/);
    expect(stop).toBe(end);
    const short = await model.generate(prompt, { constrain, logitBias: { [end]: -1000 }, seed: 1, maxTokens: 30 })
      .result;
    expect(short.finishReason).toBe("length");
  });

  test("a grammar with the empty text alone gives it", async () => {
    const result = await model.generate(prompt, { constrain: regex("").for(model) }).result;
    expect(result).toMatchObject({ text: "", tokens: [], finishReason: "stop" });
  });

  test("without stop tokens a text ends where nothing else can follow", async () => {
    const { text, finishReason } = await model.generate(prompt, { constrain: regex("a{3}").for(model), stopTokens: [] })
      .result;
    expect([text, finishReason]).toEqual(["aaa", "stop"]);
  });
});

describe("a constraint that is wrong is refused", () => {
  test.each([
    [{ forcedTokens: () => [-1] }, "option constrain.forcedTokens: expected token ids"],
    [{ forcedTokens: () => 5 as never }, "option constrain.forcedTokens: expected an array of token ids"],
    [{ forcedTokens: (async () => [1]) as never }, "a function that is not asynchronous"],
    [{ mayEnd: (async () => true) as never }, "a function that is not asynchronous"],
    [{ forcedTokens: () => [0] }, "tokens that are not stop tokens"],
    [{ begin: () => ({}) }, "option constrain: expected an object with allowedTokens"],
  ])("%j", async (constrain, expected) => {
    await expect(model.generate(prompt, { constrain, stopTokens: [0] }).text()).rejects.toThrow(expected);
  });

  test("a grammar that was not made for the model", () => {
    expect(() => model.generate(prompt, { constrain: choice(["a"]) as never })).toThrow(
      "of a grammar: grammar.for(model)",
    );
  });
});
