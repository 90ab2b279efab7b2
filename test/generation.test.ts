// Generation through the public API: streams, results, stops, sessions, saved states.

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { load, type Model, StateError } from "rwkv";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { StopStrings } from "#rwkv/generation/stop-strings";
import { fixture, maxDifference, temporaryFolder } from "./fixture-files.js";
import { rounds } from "./thorough.js";

/** A model over bytes, so that a token is a letter. */
const letters = fixture("letters.safetensors");
let model: Model;
beforeAll(async () => {
  model = await load(letters);
});
afterAll(() => model.dispose());

const prompt = "Once upon a time";

describe("generate", () => {
  test("streams pieces that add up to the result's text", async () => {
    const generation = model.generate(prompt, { maxTokens: 40, seed: 1 });
    const pieces: string[] = [];
    for await (const piece of generation) pieces.push(piece);
    const result = await generation.result;
    expect(pieces.length).toBeGreaterThan(30);
    expect(pieces.join("")).toBe(result.text);
    expect(result).toMatchObject({ finishReason: "length", promptTokens: 16, generatedTokens: 40, seed: 1 });
    expect(result.prefillTokensPerSecond).toBeGreaterThan(0);
    expect(result.decodeTokensPerSecond).toBeGreaterThan(0);
  });

  test("the embedded model writes words", async () => {
    const embedded = await load();
    const text = await embedded.generate(prompt, { maxTokens: 200, seed: 2, temperature: 0.7 }).text();
    await embedded.dispose();
    const words = text.toLowerCase().match(/[a-z]+/g) ?? [];
    const common = new Set(
      "the a and of to in was he she it they that his her had not said with for as on at but you i him so were all one out up"
        .split(" ")
        .concat("when", "there", "who", "from", "king"),
    );
    expect(words.filter((word) => common.has(word)).length / words.length).toBeGreaterThan(0.25);
  });

  test("a seed gives the same text, on every backend; the result's seed gives it again", async () => {
    const options = { maxTokens: 60, seed: 42 };
    const expected = await model.generate(prompt, options).text();
    for (const backend of ["native", "wasm", "reference"] as const) {
      const other = await load(letters, { backend, threads: 1 });
      expect(await other.generate(prompt, options).text(), backend).toBe(expected);
      await other.dispose();
    }
    const random = model.generate(prompt, { maxTokens: 30 });
    const text = await random.text();
    expect(await model.generate(prompt, { maxTokens: 30, seed: (await random.result).seed }).text()).toBe(text);
    expect(await model.generate(prompt, { ...options, seed: 43 }).text()).not.toBe(expected);
  });

  test("token ids are as good as text", async () => {
    const options = { maxTokens: 20, temperature: 0 };
    expect(await model.generate([...Buffer.from(prompt)], options).text()).toBe(
      await model.generate(prompt, options).text(),
    );
  });

  test("stop strings end the text and are not emitted, not even in part", async () => {
    const whole = await model.generate(prompt, { maxTokens: 100, temperature: 0 }).text();
    const stop = whole.slice(40, 46);
    const generation = model.generate(prompt, { maxTokens: 100, temperature: 0, stop: ["never appears", stop] });
    expect(await generation.text()).toBe(whole.slice(0, whole.indexOf(stop)));
    expect(await generation.result).toMatchObject({ finishReason: "stop", stop });
  });

  test("a text that only begins like a stop string is emitted whole", async () => {
    const options = { maxTokens: 50, temperature: 0 };
    const whole = await model.generate(prompt, options).text();
    expect(await model.generate(prompt, { ...options, stop: `${whole.slice(-3)}\u0000` }).text()).toBe(whole);
  });

  test("stop tokens end the text and are not part of it", async () => {
    const whole = await model.generate(prompt, { maxTokens: 100, temperature: 0 }).text();
    const generation = model.generate(prompt, { maxTokens: 100, temperature: 0, stopTokens: [0x65] });
    expect(await generation.text()).toBe(whole.slice(0, whole.indexOf("e")));
    expect(await generation.result).toMatchObject({ finishReason: "stop", stop: 0x65 });
  });

  test("text held back for a stop string is emitted when a stop token ends the text", async () => {
    const whole = await model.generate(prompt, { maxTokens: 100, temperature: 0 }).text();
    const at = whole.indexOf("e");
    // What stands before the first "e" begins this stop string, so it is held back until the token for "e" ends the text.
    const stop = `${whole.slice(at - 2, at)}\u0000`;
    const generation = model.generate(prompt, { maxTokens: 100, temperature: 0, stop, stopTokens: [0x65] });
    expect(await generation.text()).toBe(whole.slice(0, at));
    expect(await generation.result).toMatchObject({ finishReason: "stop", stop: 0x65 });
  });

  test("characters of several bytes come out whole", async () => {
    const text = "aé€😀b";
    const bytes = new TextEncoder().encode(text);
    /** Lets the bytes of the text be sampled in turn, and nothing else. */
    const allowedTokens = ({ length }: readonly number[]) => {
      const words = new Uint32Array(model.info.vocabulary / 32);
      const byte = bytes[length]!;
      words[byte >> 5] = 1 << (byte & 31);
      return words;
    };
    const steps: string[] = [];
    const generation = model.generate(prompt, { maxTokens: bytes.length, constrain: { allowedTokens } });
    for await (const step of generation.steps()) steps.push(step.text);
    expect(steps.slice(0, bytes.length)).toEqual(["a", "", "é", "", "", "€", "", "", "", "😀", "b"]);
    expect(await generation.text()).toBe(text);
    // What is cut in the middle of a character ends with the sign for that, once.
    const cut = model.generate(prompt, { maxTokens: bytes.length - 2, constrain: { allowedTokens } });
    expect(await cut.text()).toBe("aé€\ufffd");
  });

  test("an aborted generation ends early and says so", async () => {
    const controller = new AbortController();
    const generation = model.generate(prompt, { maxTokens: 10_000, signal: controller.signal });
    let pieces = 0;
    for await (const _ of generation) if (++pieces === 5) controller.abort();
    expect(pieces).toBe(5);
    expect((await generation.result).finishReason).toBe("aborted");
    const before = model.generate(prompt, { signal: AbortSignal.abort() });
    expect(await before.text()).toBe("");
    expect(await before.result).toMatchObject({ finishReason: "aborted", generatedTokens: 0 });
  });

  test("leaving a loop ends the generation", async () => {
    const generation = model.generate(prompt, { maxTokens: 10_000 });
    for await (const _ of generation) break;
    expect(await generation.result).toMatchObject({ finishReason: "aborted", generatedTokens: 1 });
    expect(await generation.text()).toBe((await generation.result).text);
  });

  test("progress of a long prompt is reported", async () => {
    const seen: number[][] = [];
    await model.generate("x".repeat(600), { maxTokens: 1, onPromptProgress: (...report) => seen.push(report) }).text();
    expect(seen.length).toBeGreaterThan(3);
    expect(seen.map(([done]) => done)).toEqual(seen.map(([done]) => done!).sort((a, b) => a - b));
    expect(seen.at(-1)).toEqual([600, 600]);
    expect(new Set(seen.map(([, total]) => total))).toEqual(new Set([600]));
  });

  test.each([
    [{ maxTokens: 0 }, "option maxTokens: expected a whole number >= 1, found 0"],
    [{ maxTokens: 1.5 }, "option maxTokens"],
    [{ stop: "" }, "option stop: expected non-empty strings"],
    [{ stopTokens: [256] }, "option stopTokens: expected token ids from 0 to 255, found 256"],
    [{ topP: -1 }, "option topP: expected a number from 0 to 1, found -1"],
  ])("%o is refused", (options, message) => {
    expect(() => model.generate(prompt, options)).toThrow(message);
  });

  test("without a prompt there is nothing to begin with", async () => {
    const generation = model.generate("");
    await expect(generation.text()).rejects.toThrow("option prompt: expected text to continue");
    await expect(generation.result).rejects.toThrow("option prompt");
  });
});

describe("sessions", () => {
  const greedy = { maxTokens: 30, temperature: 0 };

  test("reading in parts and generating in parts is the same as at once", async () => {
    const whole = await model.generate(prompt, greedy).text();
    const session = model.session();
    for (const part of ["Once", " upon", " a time"]) await session.read(part);
    const parts = [];
    for (let i = 0; i < 3; i++) parts.push(await session.generate({ ...greedy, maxTokens: 10 }).text());
    expect(parts.join("")).toBe(whole);
    expect(session.position).toBe(prompt.length + 30);
    session.dispose();
  });

  test("after a stop token a session continues from what is read next, not from the token", async () => {
    const session = model.session();
    await session.read(prompt);
    const said = await session.generate({ ...greedy, stopTokens: [0x66], maxTokens: 400 }).text();
    expect(said).not.toContain("f");
    await expect(session.generate(greedy).text()).rejects.toThrow("since a stop token");
    await session.read(" And");
    expect(await session.generate(greedy).text()).toBe(await model.generate(`${prompt}${said} And`, greedy).text());
  });

  test("where there is an end-of-text token, text can begin with nothing", async () => {
    const { tokenizer } = model;
    const ending = await load(letters, { tokenizer: { ...tokenizer, endOfText: 0x0a } });
    const fromNothing = ending.generate("", { ...greedy, stopTokens: [] });
    expect(await fromNothing.text()).toBe(await model.generate("\n", greedy).text());
    const session = ending.session();
    await session.read(prompt);
    await session.generate({ ...greedy, stopTokens: [0x66], maxTokens: 400 }).text();
    expect((await session.generate({ ...greedy, stopTokens: [] }).text()).length).toBeGreaterThan(0);
    await ending.dispose();
  });

  test("a fork goes its own way", async () => {
    const session = model.session();
    await session.read(prompt);
    const fork = await session.fork();
    await fork.read(", far away,");
    expect(await session.generate(greedy).text()).toBe(await model.generate(prompt, greedy).text());
    expect(await fork.generate(greedy).text()).toBe(await model.generate(`${prompt}, far away,`, greedy).text());
  });

  test("a saved session continues where it was, on any backend", async () => {
    const session = model.session();
    const empty = await session.save();
    await session.read(prompt);
    const saved = await session.save();
    expect(saved.length).toBe(empty.length);
    const expected = await session.generate(greedy).text();
    expect(await model.session(saved).generate(greedy).text()).toBe(expected);
    const wasm = await load(letters, { backend: "wasm", dtype: "f32" });
    const restored = wasm.session(saved);
    expect(restored.position).toBe(prompt.length);
    expect(await restored.generate(greedy).text()).toBe(expected);
    await wasm.dispose();
  });

  test("saved states that are damaged, of another format or another model are refused", async () => {
    const session = model.session();
    await session.read(prompt);
    const saved = await session.save();
    expect(() => model.session(new Uint8Array(10))).toThrow("not a saved RWKV state");
    expect(() => model.session(saved.subarray(0, -1))).toThrow(StateError);
    const version3 = saved.slice();
    version3[8] = 3;
    expect(() => model.session(version3)).toThrow("expected format 1 or 2, found 3");
    const other = await load(fixture("odd.pth"));
    expect(() => other.session(saved)).toThrow("belongs to another model");
    const similar = await load(fixture("extreme-keys.pth"));
    const otherState = await other.createState().save();
    expect(() => similar.createState(otherState)).toThrow("belongs to another model");
    await other.dispose();
    await similar.dispose();
    fc.assert(
      fc.property(fc.nat(saved.length - 1), fc.integer({ min: 1, max: 255 }), (at, change) => {
        const damaged = saved.slice();
        damaged[at] = (damaged[at] as number) ^ change;
        expect(() => model.session(damaged)).toThrow(StateError);
      }),
    );
  });

  test("one thing at a time", async () => {
    const session = model.session();
    const reading = session.read("x".repeat(1000));
    await expect(session.read("y")).rejects.toThrow("the session is reading or generating");
    await reading;
    await session.read("y");
    expect(session.position).toBe(1001);
  });

  test("a read that is aborted throws the reason and keeps what was read", async () => {
    const session = model.session();
    const controller = new AbortController();
    const reading = session.read("x".repeat(5000), { signal: controller.signal, onProgress: () => controller.abort() });
    await expect(reading).rejects.toThrow("aborted");
    expect(session.position).toBeGreaterThan(0);
    expect(session.position).toBeLessThan(300);
    // What was read is what the session continues from.
    const same = await model.generate("x".repeat(session.position), { maxTokens: 5, temperature: 0 }).text();
    expect(await session.generate({ maxTokens: 5, temperature: 0 }).text()).toBe(same);
  });

  test("states copied, and used after dispose", async () => {
    const state = model.createState();
    await model.forward([{ state, tokens: [1, 2, 3] }]);
    const copy = await state.copy();
    expect(copy.position).toBe(3);
    expect(await copy.values()).toEqual(await state.values());
    await model.forward([{ state: copy, tokens: [4] }]);
    expect(maxDifference(await copy.values(), await state.values())).toBeGreaterThan(0);
    await state.dispose();
    await state.dispose();
    await expect(state.save()).rejects.toThrow(StateError);
    await expect(state.copy()).rejects.toThrow("the state was disposed");
    await expect(state.restore(await copy.save())).rejects.toThrow("the state was disposed");
    const fresh = await model.createState().values(); // may get the same memory, as before the first token
    expect(fresh.every((value) => value === 0 || value < -1e29)).toBe(true);
  });
});

test("a model without a tokenizer runs tokens, and says what is missing for text", async () => {
  const bare = await load(fixture("odd.pth"));
  expect(() => bare.generate("text")).toThrow("no tokenizer beside it");
  await bare.dispose();
  await expect(load(fixture("odd.pth"), { tokenizer: "bytes" })).rejects.toThrow("256 tokens, the model");
  const path = join(await temporaryFolder(), "t.json");
  await writeFile(path, "{}");
  await expect(load(letters, { tokenizer: path })).rejects.toThrow("with a model and its vocab");
});

test.skipIf(!existsSync("/proc/self/task"))("a load that fails leaves no threads behind", async () => {
  const threads = () => readdirSync("/proc/self/task").length;
  const attempt = () => load(fixture("odd.pth"), { backend: "native", threads: 4, tokenizer: "bytes" }).catch(() => {});
  await attempt();
  const before = threads();
  for (let i = 0; i < 5; i++) await attempt();
  expect(threads() - before).toBeLessThan(3);
});

describe("stop strings", () => {
  test("however text is cut into pieces, the result is what indexOf would give", () => {
    const letter = fc.constantFrom("a", "b", "c");
    const word = (min: number, max: number) =>
      fc.array(letter, { minLength: min, maxLength: max }).map((l) => l.join(""));
    fc.assert(
      fc.property(
        fc.array(word(0, 4), { maxLength: 12 }),
        fc.array(word(1, 4), { minLength: 1, maxLength: 3 }),
        (pieces, stops) => {
          const text = pieces.join("");
          const watcher = new StopStrings(stops);
          let out = "";
          let stopped: string | undefined;
          for (const piece of pieces) {
            const result = watcher.push(piece);
            out += result.text;
            stopped = result.stop;
            if (stopped !== undefined) break;
          }
          if (stopped === undefined) out += watcher.end();
          const found = stops.map((s) => text.indexOf(s)).filter((at) => at >= 0);
          if (found.length === 0) expect([out, stopped]).toEqual([text, undefined]);
          else {
            expect(stops).toContain(stopped);
            expect(text.startsWith(out + stopped)).toBe(true);
            for (const s of stops) expect(out).not.toContain(s);
          }
        },
      ),
      { numRuns: rounds(400) },
    );
  });
});

test.each(["native", "wasm"] as const)("an idle model takes no time of a processor: %s", async (backend) => {
  const idle = await load(letters, { backend, threads: 2 });
  await idle.generate(prompt, { maxTokens: 20 }).text();
  await new Promise((resolve) => setTimeout(resolve, 100));
  if (process.platform === "linux") await expect.poll(runningThreads).toEqual([]);
  else {
    const before = process.cpuUsage();
    await new Promise((resolve) => setTimeout(resolve, 400));
    const { user, system } = process.cpuUsage(before);
    // A thread that spun would take all of the 400 ms.
    expect((user + system) / 1000).toBeLessThan(200);
  }
  await idle.dispose();
});

/** The threads of this process, but for the one that asks, that run or could run: Linux's own word. */
function runningThreads(): string[] {
  const others = readdirSync("/proc/self/task").filter((thread) => thread !== String(process.pid));
  return others.flatMap((thread) => {
    // The name is in brackets, and may have any characters; the state is the field behind it.
    const status = readFileSync(`/proc/self/task/${thread}/stat`, "utf8");
    return /\) R /.test(status) ? [status.slice(0, 40)] : [];
  });
}
