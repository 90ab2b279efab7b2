// Many callers of one model at once: who shares a pass, who waits for whom, and what nobody can break for the others.

import { setImmediate as nextTurn, setTimeout } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { BackendError, LimitError, load, type Model, OptionError, RwkvError, Sampler, StateError } from "rwkv";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fixture, maxDifference } from "./fixture-files.js";

/** A model over bytes, so that a token is a letter. */
const letters = fixture("letters.safetensors");
const prompt = "Once upon a time";
const long = "There was once a king who had a daughter. ".repeat(40);
async function collect<T>(values: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const value of values) all.push(value);
  return all;
}
/** A promise that is looked at later: until then its rejection is nobody's oversight. */
function later<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}
let model: Model;
beforeAll(async () => {
  model = await load(letters, { dtype: "q8" });
});
afterAll(() => model.dispose());

describe("a pass is shared", () => {
  test("by generations, sessions and forward calls that are made at once", async () => {
    const before = model.scheduler;
    const tokens = 30;
    await Promise.all(
      Array.from({ length: 10 }, (_, seed) => model.generate(prompt, { maxTokens: tokens, seed }).text()),
    );
    const { passes, rows, running, waiting } = model.scheduler;
    expect({ running, waiting }).toEqual({ running: 0, waiting: 0 });
    expect(rows - before.rows).toBe(10 * (prompt.length - 1 + tokens));
    // The prompts take a few passes, then each pass has a row for every text.
    expect(passes - before.passes).toBeLessThan(tokens + 10);

    const states = Array.from({ length: 10 }, () => model.createState());
    const passesBefore = model.scheduler.passes;
    await Promise.all(states.map((state, i) => model.forward([{ state, tokens: [i] }])));
    expect(model.scheduler.passes - passesBefore).toBe(1);
    await Promise.all(states.map((state) => state.dispose()));
  });

  test("and a text is the same to the bit alone and in company", async () => {
    for (const dtype of ["f32", "bf16", "f16", "q8", "q4"] as const) {
      const shared = await load(letters, { dtype });
      const texts = [prompt, "x", long.slice(0, 300), long.slice(3, 140), "The", " "];
      const step = (text: string, seed: number) =>
        shared.generate(text, { maxTokens: 25, seed, topP: 0.95, logProbabilities: 3 });
      const alone = [];
      for (const [seed, text] of texts.entries()) alone.push(await collect(step(text, seed).steps()));
      const together = await Promise.all(texts.map((text, seed) => collect(step(text, seed).steps())));
      expect(together, dtype).toEqual(alone);
      await shared.dispose();
    }
  });

  test("a long prompt delays the others' tokens by at most one pass", async () => {
    const session = model.session();
    const decoding = model.generate(prompt, { maxTokens: 1000 });
    const texts = decoding[Symbol.asyncIterator]();
    await texts.next();
    const reading = session.read(long);
    for (let i = 0; i < 10; i++) {
      const { passes } = model.scheduler;
      await texts.next();
      expect(model.scheduler.passes - passes).toBeLessThanOrEqual(2);
    }
    await texts.return?.();
    expect(await reading).toBe(long.length);
    await session.dispose();
  });

  test("and prompts are read however many decode", async () => {
    const decoders = Array.from({ length: 140 }, (_, seed) =>
      model.generate("x", { maxTokens: 60, seed, stopTokens: [] }).text(),
    );
    const { passes } = model.scheduler;
    await model.session().read(prompt.repeat(2));
    expect(model.scheduler.passes - passes).toBeLessThan(12);
    await Promise.all(decoders);
  });

  test("and short prompts begin at once behind a long one", async () => {
    const session = model.session();
    const controller = new AbortController();
    const reading = later(session.read(long.repeat(100), { signal: controller.signal }));
    await nextTurn();
    const { passes } = model.scheduler;
    for await (const _ of model.generate(prompt)) break;
    expect(model.scheduler.passes - passes).toBeLessThan(4);
    controller.abort();
    await expect(reading).rejects.toThrow("aborted");
    await session.dispose();
  });

  test("an error in one caller's work is that caller's alone", async () => {
    const options = { maxTokens: 20, seed: 3 };
    const expected = await model.generate(prompt, options).text();
    const thrown = new Error("of the constraint");
    const results = await Promise.allSettled([
      model.generate(prompt, options).text(),
      model
        .generate(prompt, {
          constrain: {
            changeLogits: (logits) => void logits.fill(Number.NaN),
          },
        })
        .text(),
      model
        .generate(prompt, {
          constrain: {
            allowedTokens() {
              throw thrown;
            },
          },
        })
        .text(),
      model
        .generate(prompt, {
          ...options,
          onPromptProgress: () => {
            throw thrown;
          },
        })
        .text(),
      model.generate(prompt, options).text(),
    ]);
    expect(results[0]).toEqual({ status: "fulfilled", value: expected });
    expect(results[1]).toMatchObject({ status: "rejected", reason: { message: /the logit of token 0 is NaN/ } });
    expect(results[2]).toEqual({ status: "rejected", reason: thrown });
    expect(results[3]).toEqual({ status: "rejected", reason: thrown });
    expect(results[4]).toEqual({ status: "fulfilled", value: expected });
  });
});

describe("states while a pass uses them", () => {
  test("a state that is disposed of during a pass is not given to anyone until it ends", async () => {
    const options = { maxTokens: 10, temperature: 0 };
    const expected = await model.generate("x", options).text();
    for (let i = 0; i < 20; i++) {
      const first = model.session();
      const reading = later(first.read(long));
      await nextTurn();
      await nextTurn();
      const disposing = first.dispose();
      const second = model.session();
      await second.read("x");
      expect(await second.generate(options).text()).toBe(expected);
      await expect(reading).rejects.toThrow("the session was disposed");
      await disposing;
      await second.dispose();
    }
  });

  test("saving, forking and copying wait for what was asked before", async () => {
    const session = model.session();
    const reading = session.read(long);
    await nextTurn();
    await nextTurn();
    const [saved, fork] = await Promise.all([session.save(), session.fork()]);
    await reading;
    expect(saved).toEqual(await session.save());
    expect(await fork.save()).toEqual(saved);

    const state = model.createState();
    const running = model.forward([{ state, tokens: Array.from(long, () => 7) }]);
    const copy = await state.copy();
    await running;
    expect(await copy.values()).toEqual(await state.values());
    expect(copy.position).toBe(long.length);
  });

  test("a session can be saved and forked between the tokens that it generates", async () => {
    const session = model.session();
    await session.read(prompt);
    const options = { maxTokens: 12, temperature: 0 };
    const saved: Uint8Array[] = [];
    let text = "";
    for await (const piece of session.generate(options)) {
      text += piece;
      saved.push(await session.save());
    }
    const rest = await model.session(saved[4]).generate({ maxTokens: 7, temperature: 0 }).text();
    expect(text.slice(5)).toBe(rest);
  });

  test("calls on one state are carried out in the order in which they are made", async () => {
    const state = model.createState();
    const separate = model.createState();
    const calls = [[1, 2, 3], [4], [5, 6]].map((tokens) => model.forward([{ state, tokens }]));
    const disposed = state.dispose();
    const [, , last] = await Promise.all(calls);
    await disposed;
    expect(last).toEqual(await model.forward([{ state: separate, tokens: [1, 2, 3, 4, 5, 6] }]));
  });

  test("a call on a disposed state fails alone, even while a pass uses the state", async () => {
    const state = model.createState();
    const other = model.createState();
    const running = model.forward([{ state, tokens: Array.from(long, () => 1) }]);
    await nextTurn();
    const disposed = state.dispose();
    const late = [later(model.forward([{ state, tokens: [1] }])), later(state.save()), later(state.copy())];
    const others = model.forward([{ state: other, tokens: [1, 2] }]);
    await Promise.all([running, disposed, others]);
    for (const call of late) await expect(call).rejects.toThrow("the state was disposed");
  });

  test("calls that were not awaited run the token that waits when it is their turn", async () => {
    const session = model.session();
    await session.read("abc");
    const saved = await session.save();
    const alone = async (...steps: (readonly number[] | Uint8Array)[]) => {
      const state = model.createState(saved);
      for (const step of steps) {
        if (step instanceof Uint8Array) await state.restore(step);
        else await model.forward([{ state, tokens: step }]);
      }
      return { values: await state.values(), position: state.position, pending: state.pendingToken };
    };
    const state = model.createState(saved);
    void model.forward([{ state, tokens: [1, 2] }]);
    void model.forward([{ state, tokens: [3], logits: "all" }]);
    void state.restore(saved);
    void model.forward([{ state, tokens: [4] }]);
    const found = { values: await state.values(), position: state.position, pending: state.pendingToken };
    expect(found).toEqual(await alone([1, 2], [3], saved, [4]));
    const both = model.createState(saved);
    const [rows] = await model.forward([{ state: both, tokens: [1, 2], logits: "all" }]);
    const separate = model.createState(saved);
    await model.forward([{ state: separate, tokens: [] }]);
    expect(rows).toEqual((await model.forward([{ state: separate, tokens: [1, 2], logits: "all" }]))[0]);
    expect((await model.forward([{ state: model.createState(), tokens: [] }]))[0]).toHaveLength(0);
  });

  test("a forward that is refused has advanced no state", async () => {
    const small = await load(letters, { limits: { waiting: 2 } });
    const states = [1, 2, 3].map(() => small.createState());
    const segments = states.map((state) => ({ state, tokens: [1] }));
    await expect(small.forward(segments)).rejects.toThrow(LimitError);
    void states[0]!.dispose();
    await expect(small.forward(segments.slice(0, 2))).rejects.toThrow("the state was disposed");
    const output = new Float32Array(256);
    const twice = segments.slice(1).map((segment) => ({ ...segment, output }));
    await expect(small.forward(twice)).rejects.toThrow("option output: expected another array for each segment");
    expect(states.map(({ position }) => position)).toEqual([0, 0, 0]);
    await small.dispose();
  });

  test("thousands of states are disposed of, and thousands of copies wait for one pass", async () => {
    const states = Array.from({ length: 4000 }, () => model.createState());
    await Promise.all(states.map((state) => state.dispose()));
    const state = model.createState();
    const running = model.forward([{ state, tokens: Array.from(long, () => 1) }]);
    const saves = Array.from({ length: 4000 }, () => state.values());
    await running;
    const after = await state.values();
    const differences = (await Promise.all(saves)).map((saved) => maxDifference(saved, after));
    expect(differences).toEqual(Array.from(saves, () => 0));
  });

  test("nothing public is the memory that kernels write to", async () => {
    const state = model.createState();
    const before = await state.values();
    before.fill(123);
    const transferred = structuredClone(before, { transfer: [before.buffer] });
    expect(transferred[0]).toBe(123);
    expect((await state.values()).every((value) => value === 0 || value < -1e29)).toBe(true);
  });

  test("forward runs the token that a session kept back, and continues from there", async () => {
    const session = model.session();
    await session.read("abc");
    const state = model.createState(await session.save());
    expect(state.pendingToken).toBe("c".charCodeAt(0));
    const [logits] = await model.forward([{ state, tokens: [] }]);
    const plain = model.createState();
    const tokens = [..."abc"].map((letter) => letter.charCodeAt(0));
    expect(logits).toEqual((await model.forward([{ state: plain, tokens }]))[0]);
    expect([state.pendingToken, state.position, plain.position]).toEqual([undefined, 3, 3]);
    const both = await Promise.all(
      [model.createState(await session.save()), state].map((s) => model.forward([{ state: s, tokens: [100, 101] }])),
    );
    expect(both[0]).toEqual(both[1]);
  });
});

describe("disposal", () => {
  test("of the model inside its own loop, twice, with others waiting", async () => {
    const own = await load(letters, { threads: 2 });
    const others = [1, 2, 3].map((seed) => later(own.generate(prompt, { maxTokens: 5000, seed }).text()));
    const session = own.session();
    const reading = later(session.read(long.repeat(20)));
    const loop = (async () => {
      for await (const _ of own.generate(prompt, { maxTokens: 5000 }))
        await Promise.all([own.dispose(), own.dispose()]);
    })();
    for (const promise of [...others, reading, loop]) await expect(promise).rejects.toThrow("the model was disposed");
    await expect(own.forward([])).rejects.toThrow(BackendError);
    await expect(session.save()).rejects.toThrow("the model was disposed");
    await session.dispose();
    expect(() => own.session()).toThrow("the model was disposed");
    expect(() => own.generate(prompt)).toThrow("the model was disposed");
    expect(own.dispose()).toBe(own.dispose());
  });

  test("by await using", async () => {
    const own = await load(letters);
    const session = own.session();
    await session[Symbol.asyncDispose]();
    await expect(session.read("x")).rejects.toThrow(StateError);
    await own.createState()[Symbol.asyncDispose]();
    expect(own.scheduler.states).toBe(0);
    const generation = own.generate(prompt);
    for await (const _ of generation.steps()) await generation[Symbol.asyncDispose]();
    expect((await generation.result).finishReason).toBe("aborted");
    await own[Symbol.asyncDispose]();
    await expect(own.forward([])).rejects.toThrow("the model was disposed");
  });

  test("two hundred times", async () => {
    for (let i = 0; i < 200; i++) {
      const own = await load(letters, { threads: 2 });
      if (i % 3 === 0) await own.generate("x", { maxTokens: 1 }).text();
      if (i % 3 === 1)
        void own
          .generate("x", { maxTokens: 50 })
          .text()
          .catch(() => {});
      await own.dispose();
    }
  });
});

describe("a generation", () => {
  test("runs by its result alone, or by text(), or by several readers", async () => {
    const options = { maxTokens: 20, seed: 5 };
    const text = await model.generate(prompt, options).text();
    expect((await model.generate(prompt, options).result).text).toBe(text);
    const generation = model.generate(prompt, options);
    const read = async () => (await collect(generation)).join("");
    expect(await Promise.all([read(), generation.text(), read(), generation.result.then((r) => r.text)])).toEqual(
      Array(4).fill(text),
    );
    expect(await read()).toBe(text);
  });

  test("whose result is asked for before a loop still goes at the loop's pace", async () => {
    const session = model.session();
    await session.read(prompt);
    const generation = session.generate({ maxTokens: 1000 });
    const { result } = generation;
    for await (const _ of generation) break;
    expect(await result).toMatchObject({ finishReason: "aborted", generatedTokens: 1 });
    expect(session.position).toBe(prompt.length + 1);
  });

  test("that nobody asks for takes no state, and one that fails gives it back", async () => {
    const { states } = model.scheduler;
    const unused = model.generate(prompt);
    expect(model.scheduler.states).toBe(states);
    await model.generate(prompt, { maxTokens: 2 }).text();
    await expect(model.generate("").text()).rejects.toThrow(OptionError);
    expect(model.scheduler.states).toBe(states);
    expect(unused).toBeDefined();
  });

  test("does not see what happens to its options later", async () => {
    const options = {
      maxTokens: 20,
      temperature: 0,
      bannedTokens: [101],
      logitBias: { 97: 3 } as Record<number, number>,
      stop: ["zzz"],
      stopTokens: [0],
    };
    const input = [...Buffer.from(prompt)];
    const expected = await model.generate(prompt, options).text();
    const generation = model.generate(input, options);
    input.fill(1e9);
    options.bannedTokens[0] = 32;
    options.logitBias[98] = 50;
    options.stop[0] = expected.slice(0, 2);
    options.stopTokens[0] = expected.charCodeAt(0);
    expect(await generation.text()).toBe(expected);
  });

  test("gives tokens and log-probabilities", async () => {
    const steps = await collect(model.generate(prompt, { maxTokens: 8, temperature: 0, logProbabilities: 4 }).steps());
    const state = model.createState();
    let [logits] = await model.forward([{ state, tokens: Buffer.from(prompt) }]);
    for (const { token, logProbability, topLogProbabilities } of steps) {
      const total = Math.log(logits!.reduce((sum, logit) => sum + Math.exp(logit), 0));
      const expected = [...logits!.entries()]
        .sort(([, a], [, b]) => b - a)
        .slice(0, 4)
        .map(([id, logit]) => ({ token: id, logProbability: logit - total }));
      expect(topLogProbabilities!.map((t) => t.token)).toEqual(expected.map((t) => t.token));
      topLogProbabilities!.forEach((t, i) => {
        expect(t.logProbability).toBeCloseTo(expected[i]!.logProbability, 4);
      });
      expect(token).toBe(expected[0]!.token);
      expect(logProbability).toBe(topLogProbabilities![0]!.logProbability);
      [logits] = await model.forward([{ state, tokens: [token!] }]);
    }
    expect(steps.length).toBe(8);
    const { tokens } = await model.generate(prompt, { maxTokens: 8, temperature: 0 }).result;
    expect(tokens).toEqual(steps.map(({ token }) => token));
  });

  test("is the same as forward with a Sampler, penalties included", async () => {
    const options = { temperature: 0.9, topP: 0.9, presencePenalty: 0.5, frequencyPenalty: 0.3, seed: 17 };
    const { tokens } = await model.generate(prompt, { ...options, maxTokens: 40 }).result;
    const sampler = new Sampler(options);
    const state = model.createState();
    const output = new Float32Array(model.info.vocabulary);
    await model.forward([{ state, tokens: Buffer.from(prompt), output }]);
    const sampled: number[] = [];
    while (sampled.length < 40) {
      sampled.push(sampler.sample(output));
      await model.forward([{ state, tokens: [sampled.at(-1)!], output }]);
    }
    expect(sampled).toEqual(tokens);
    expect(() => new Sampler({ topP: 2 })).toThrow("option topP");
    expect(() => new Sampler(null as never)).toThrow("option options");
    expect(() => sampler.sample([1, 2] as never)).toThrow("option logits: expected a Float32Array");
    expect(() => sampler.sample(new Float32Array(512))).toThrow("option logits: expected 256 floats");
    expect(() => new Sampler({ bannedTokens: [256] }).sample(output)).toThrow("option bannedTokens");
  });

  test("gives a constraint one array that grows, whatever the constraint does to it", async () => {
    const given = new Set<readonly number[]>();
    const options = { maxTokens: 12, seed: 3 };
    const { tokens } = await model.generate(prompt, {
      ...options,
      constrain: {
        allowedTokens: (generated) => void given.add(generated),
        mayEnd: (generated) => !given.add(generated),
      },
    }).result;
    expect([...given]).toEqual([tokens]);
    const seen: number[][] = [];
    const changing = model.generate(prompt, {
      ...options,
      constrain: {
        allowedTokens(generated) {
          seen.push([...generated]);
          (generated as number[]).length = 0;
          return undefined;
        },
        changeLogits: (_, generated) => void (generated as number[]).push(1, 2, 3),
      },
    });
    expect((await changing.result).tokens).toEqual(tokens);
    expect(seen).toEqual(tokens.map((_, i) => tokens.slice(0, i)));
  });

  test("samples only what a constraint allows, by mask or by logits", async () => {
    const allowed = new Set([..."aeiou "].map((letter) => letter.charCodeAt(0)));
    const mask = new Uint32Array(8);
    for (const token of allowed) mask[token >>> 5]! |= 1 << (token & 31);
    const seen: number[][] = [];
    const byMask = await model.generate(prompt, {
      maxTokens: 15,
      seed: 2,
      constrain: {
        allowedTokens(generated) {
          seen.push([...generated]);
          return mask;
        },
      },
    }).result;
    expect(byMask.tokens.every((token) => allowed.has(token))).toBe(true);
    expect(seen).toEqual(byMask.tokens.map((_, i) => byMask.tokens.slice(0, i)));
    const byLogits = await model.generate(prompt, {
      maxTokens: 15,
      seed: 2,
      constrain: {
        changeLogits(logits) {
          logits.forEach((_, token) => {
            if (!allowed.has(token)) logits[token] = Number.NEGATIVE_INFINITY;
          });
        },
      },
    }).result;
    expect(byLogits.tokens).toEqual(byMask.tokens);
    const none = { constrain: { allowedTokens: () => new Uint32Array(8) } };
    await expect(model.generate(prompt, none).text()).rejects.toThrow("constrain.allowedTokens allows no token");
    const wrong = { constrain: { allowedTokens: () => [1] as never } };
    await expect(model.generate(prompt, wrong).text()).rejects.toThrow("gives a Uint32Array of 8 words");
    const lateMask = {
      constrain: {
        allowedTokens: (async () => {
          throw new Error("late");
        }) as never,
      },
    };
    await expect(model.generate(prompt, lateMask).text()).rejects.toThrow("a function that is not asynchronous");
    const late = { constrain: { changeLogits: (async () => {}) as never } };
    await expect(model.generate(prompt, late).text()).rejects.toThrow("a function that is not asynchronous");
  });

  test.each([
    [{ constrain: 1 }, "option constrain: expected an object"],
    [{ constrain: { changeLogits: 1 } }, "option constrain.changeLogits: expected a function"],
    [{ logProbabilities: 101 }, "option logProbabilities: expected a whole number from 0 to 100"],
    [{ signal: "now" }, "option signal: expected an AbortSignal"],
    [{ onPromptProgress: 1 }, "option onPromptProgress: expected a function"],
    [{ maxTokens: "5" }, "option maxTokens"],
    [{ temperature: "1" }, "option temperature"],
    [{ constrain: { allowed: () => undefined } }, "option constrain: expected an object with allowedTokens"],
    [
      { logitBias: new Map([[97, 100]]) },
      "option logitBias: expected an object that maps token ids to amounts, found a Map",
    ],
    [{ logitBias: { "": 100 } }, "option logitBias"],
    [{ bannedTokens: 5 }, "option bannedTokens: expected an array"],
    [{ stop: 5 }, "option stop: expected a string or an array of them, found 5"],
    [{ signal: { aborted: false } }, "option signal: expected an AbortSignal, found an Object"],
    [null, "option options: expected an object"],
  ])("refuses %o", (options, message) => {
    expect(() => model.generate(prompt, options as never)).toThrow(message);
  });

  test("of a session refuses a token that does not exist, also the last one", async () => {
    const session = model.session();
    for (const tokens of [[9e9], [1, 256], [-1], ["a"], [1.5], { length: 2 ** 40 }, null]) {
      await expect(session.read(tokens as never)).rejects.toThrow("option tokens");
    }
    expect(session.position).toBe(0);
  });
});

describe("aborting", () => {
  test("at any time leaves no unhandled rejection and a session that can continue", async () => {
    const unhandled: unknown[] = [];
    const note = (reason: unknown) => void unhandled.push(reason);
    process.on("unhandledRejection", note);
    const session = model.session();
    await session.read(prompt);
    for (let i = 0; i < 30; i++) {
      const controller = new AbortController();
      const reading = session.read(long, { signal: controller.signal });
      for (let turn = 0; turn < i; turn++) await nextTurn();
      controller.abort();
      await reading.catch((error) => expect(error).toBe(controller.signal.reason));
      const generation = session.generate({ maxTokens: 30, signal: AbortSignal.timeout(1) });
      await generation.text();
      expect(["aborted", "length"]).toContain((await generation.result).finishReason);
    }
    void model.generate(prompt, { signal: AbortSignal.abort() }).result;
    const { position } = session;
    await session.read("x");
    expect(session.position).toBe(position + 1);
    await nextTurn();
    process.off("unhandledRejection", note);
    expect(unhandled).toEqual([]);
  });

  test("a generation that nobody reads settles its result and releases its session", async () => {
    for (const end of ["abort", "dispose"] as const) {
      const session = model.session();
      await session.read(prompt);
      const controller = new AbortController();
      const generation = session.generate({ maxTokens: 1000, signal: controller.signal });
      await generation[Symbol.asyncIterator]().next();
      const { result } = generation;
      if (end === "abort") {
        controller.abort();
        expect(await result).toMatchObject({ finishReason: "aborted", generatedTokens: 1 });
        await session.read("y");
      } else {
        void session.dispose();
        await expect(result).rejects.toThrow("the session was disposed");
      }
    }
  });

  test("one signal serves any number of calls, without a warning", async () => {
    const warnings: Error[] = [];
    const note = (warning: Error) => void warnings.push(warning);
    process.on("warning", note);
    const { signal } = new AbortController();
    await Promise.all(Array.from({ length: 30 }, () => model.generate(prompt, { maxTokens: 3, signal }).text()));
    await nextTurn();
    process.off("warning", note);
    expect(warnings).toEqual([]);
  });

  test("while others are being served ends the wait at once", async () => {
    const controller = new AbortController();
    const state = model.createState();
    const running = model.forward([{ state, tokens: Array.from(long, () => 1) }]);
    const session = model.session();
    const reading = session.read(long, { signal: controller.signal });
    controller.abort(new Error("enough"));
    let served = false;
    void running.then(() => {
      served = true;
    });
    await expect(reading).rejects.toThrow("enough");
    expect(served).toBe(false);
    const silent = new AbortController();
    const silenced = later(session.read(long, { signal: silent.signal }));
    silent.abort(null);
    await expect(silenced).rejects.toBe(null);
    await running;
  });
});

test("limits are typed errors, and pass; what has begun is not refused", async () => {
  const small = await load(letters, { limits: { states: 5, waiting: 2 } });
  const running = [1, 2].map((seed) => small.generate(prompt, { maxTokens: 40, seed }));
  const texts = running.map((generation) => generation.text());
  const states = [1, 2, 3].map(() => small.createState());
  await nextTurn();
  expect(() => small.session()).toThrow("the model has 5 states, which is its limit");
  const calls = await Promise.allSettled(
    Array.from({ length: 9 }, (_, i) => small.forward([{ state: states[i % 3]!, tokens: [1] }])),
  );
  const refused = calls.filter(({ status }) => status === "rejected") as PromiseRejectedResult[];
  expect(refused.length).toBeGreaterThan(0);
  for (const { reason } of refused) expect(reason).toMatchObject({ name: "LimitError", limit: "waiting", maximum: 2 });
  expect(states.reduce((sum, { position }) => sum + position, 0)).toBe(calls.length - refused.length);
  expect((await Promise.all(texts)).map((text) => text.length)).toEqual([40, 40]);
  await states[2]!.dispose();
  await small.session().read("later");
  await small.dispose();
  await expect(load(letters, { limits: { states: 0 } })).rejects.toThrow("option limits.states");
});

test("sessions and generations that are dropped give their states back when they are collected", async () => {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  const own = await load(letters);
  const { signal } = new AbortController();
  for (let i = 0; i < 300; i++) {
    own.session();
    // Left after a token, without the loop being ended.
    await own.generate("ab", { signal })[Symbol.asyncIterator]().next();
  }
  for (let i = 0; i < 50 && own.scheduler.states > 10; i++) {
    collect();
    await setTimeout(10);
  }
  expect(own.scheduler.states).toBeLessThanOrEqual(10);
  await own.dispose();
});

test("errors of the package are of its own classes", () => {
  for (const kind of [BackendError, LimitError, OptionError, StateError])
    expect(kind.prototype).toBeInstanceOf(RwkvError);
});
