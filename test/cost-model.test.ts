// The model of costs: the tables of the docs are what it prints, and what it says of a load fits what it says of where parts are full.

import { readFileSync } from "node:fs";
import { expect, test } from "vitest";

const { costOfTurn, defaults, needs, report, saturation, sheet, stateBytes } = await import(
  new URL("../bench/cost-model.mjs", import.meta.url).href
);
const page = (name: string) => readFileSync(new URL(`../${name}`, import.meta.url), "utf8");

test("the docs have its tables as they are", () => {
  for (const table of report(defaults).split("\n\n")) expect(page("docs/scale.md")).toContain(table);
  expect(page("deploy/capacity.md")).toContain(sheet(defaults));
});

test("a state has the bytes that models of these sizes have", () => {
  // RWKV-7's sizes in floats, with a row of logits: 0.61, 1.6 and 16.5 million.
  const sizes = [
    [12, 768, 608_256],
    [24, 1024, 1_622_016],
    [61, 4096, 16_490_496],
  ] as const;
  for (const [layers, width, floats] of sizes) {
    expect(stateBytes({ layers, width, vocabulary: 65_536 })).toBe(4 * (floats + 65_536));
  }
});

test("at the load where a part is full, it is", () => {
  const full = new Map<string, number>(saturation(defaults));
  const at = (part: string, share = 1) => {
    const [[, conversations]] = [...full].filter(([name]) => name.startsWith(part)) as [[string, number]];
    return needs(conversations * share, defaults);
  };
  expect(at("one core").cores).toBeCloseTo(1);
  expect([at("one machine", 0.99).machines, at("one machine", 1.01).machines]).toEqual([1, 2]);
  expect([at("the main thread", 0.99).processes, at("the main thread", 1.01).processes]).toEqual([1, 2]);
  expect(at("one machine").cores).toBeCloseTo(defaults.cores);
  expect(at("one Redis: its thread").redisBusy).toBeCloseTo(defaults.use);
  expect(at("one Redis: states for an hour").redisHour).toBeCloseTo(defaults.memory * 1e9);
  expect(at("one core of nginx").proxyCores).toBeCloseTo(defaults.use);
  expect(needs(2e5, defaults).redisTraffic).toBeCloseTo(2 * needs(1e5, defaults).redisTraffic);
});

test("a consistent hash spares reading from Redis, not writing", () => {
  const kept = costOfTurn({ ...defaults, elsewhere: 0 });
  expect(kept.fetched).toBe(0);
  expect(kept.stored).toBe(costOfTurn(defaults).stored);
});
