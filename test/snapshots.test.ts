// Snapshots: what a session has read, as a value from which any number of sessions continue, without a pass where the logits are known.

import { load, type Model, OptionError, type Session, StateError } from "rwkv";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fixture } from "./fixture-files.js";

const prompt = "There was once a king";
const options = { maxTokens: 30, seed: 11, temperature: 0.9, topP: 0.9, logProbabilities: 2 };

let model: Model;
beforeAll(async () => {
  model = await load(fixture("letters.safetensors"));
});
afterAll(() => model.dispose());

async function steps(session: Session) {
  const all = [];
  for await (const step of session.generate(options).steps()) all.push(step);
  return all;
}

async function plain() {
  const session = model.session();
  await session.read(prompt);
  return steps(session);
}

describe("a session that keeps the logits of its last token", () => {
  test("samples its first token without a pass, and writes the same text", async () => {
    const session = model.session();
    await session.read(prompt, { keepLogits: true });
    expect(session.position).toBe(prompt.length);
    const before = model.scheduler.rows;
    const found = await steps(session);
    expect(model.scheduler.rows - before).toBe(options.maxTokens - 1);
    expect(found).toEqual(await plain());
  });

  test("reads on, forks and is saved with them", async () => {
    const session = model.session();
    await session.read(prompt.slice(0, 9), { keepLogits: true });
    await session.read(prompt.slice(9), { keepLogits: true });
    const saved = await session.save();
    const expected = await plain();
    for (const one of [await session.fork(), model.session(saved), session]) expect(await steps(one)).toEqual(expected);
    expect(saved.length).toBeGreaterThan((await model.session().save()).length);
    await session.read("x"); // drops them
    expect((await session.snapshot()).hasLogits).toBe(false);
  });

  test("keeps those of a token that was pending, where nothing more is read", async () => {
    const session = model.session();
    await session.read(prompt);
    await session.read("", { keepLogits: true });
    expect((await session.snapshot()).hasLogits).toBe(true);
    expect(await steps(session)).toEqual(await plain());
    await expect(session.read([1e9], { keepLogits: true })).rejects.toThrow(OptionError);
  });

  test("has none before its first token", async () => {
    const session = model.session();
    await session.read("", { keepLogits: true });
    const snapshot = await session.snapshot();
    expect([snapshot.hasLogits, snapshot.position]).toEqual([false, 0]);
  });

  test("and forward drops them", async () => {
    const session = model.session();
    await session.read(prompt, { keepLogits: true });
    const state = model.createState(await session.save());
    const [logits] = await model.forward([{ state, tokens: [65] }]);
    const other = model.createState();
    const [expected] = await model.forward([{ state: other, tokens: [...new TextEncoder().encode(`${prompt}A`)] }]);
    expect(logits).toEqual(expected);
    expect((await state.copy()).pendingToken).toBeUndefined();
  });
});

describe("a snapshot", () => {
  test("begins sessions that write what the session itself does, with logits and without", async () => {
    const expected = await plain();
    for (const keepLogits of [true, false]) {
      const session = model.session();
      await session.read(prompt, { keepLogits });
      const snapshot = await session.snapshot();
      await session.dispose();
      expect([snapshot.position, snapshot.hasLogits]).toEqual([prompt.length, keepLogits]);
      for (let i = 0; i < 2; i++) expect(await steps(model.session(snapshot))).toEqual(expected);
    }
  });

  test("is as it was, whatever its session does afterwards", async () => {
    const session = model.session();
    await session.read(prompt, { keepLogits: true });
    const snapshot = await session.snapshot();
    await session.read(" and a queen");
    await steps(session);
    expect(await steps(model.session(snapshot))).toEqual(await plain());
  });

  test("without its pending token is one token shorter", async () => {
    const session = model.session();
    await session.read(prompt);
    const snapshot = await session.snapshot();
    expect(snapshot.pendingToken).toBe(prompt.charCodeAt(prompt.length - 1));
    const shorter = snapshot.withoutPendingToken();
    expect([shorter.position, shorter.pendingToken]).toEqual([prompt.length - 1, undefined]);
    const continued = model.session(shorter);
    await continued.read(prompt.slice(-1));
    expect(await steps(continued)).toEqual(await plain());
    expect(shorter.withoutPendingToken()).toBe(shorter);
  });

  test("counts its bytes, and belongs to its model", async () => {
    const session = model.session();
    await session.read(prompt, { keepLogits: true });
    const snapshot = await session.snapshot();
    expect(snapshot.bytes).toBe(model.info.stateBytes + model.info.vocabulary * 4);
    const other = await load(fixture("letters.safetensors"));
    expect(() => other.session(snapshot)).toThrow(StateError);
    expect(() => model.session({} as never)).toThrow(StateError);
    await other.dispose();
    await session.dispose();
    await expect(session.snapshot()).rejects.toThrow(StateError);
  });
});
