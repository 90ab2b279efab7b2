// The lab: what it says of a model is what the model computes.

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { load, openCheckpoint, readFloat32 } from "rwkv";
import { expect, test } from "vitest";
import { type Explanation, explain } from "#rwkv/lab/explain";
import { explainReport } from "#rwkv/lab/explain-report";
import { meanWeights } from "#rwkv/lab/explain-wkv";
import type { ReportFigures } from "#rwkv/lab/report-figures";
import { byteTokenizer } from "#rwkv/tokenizers/bytes";
import { fixture, temporaryFolder } from "./fixture-files.js";

const program = fileURLToPath(new URL("../dist/cli/main.js", import.meta.url));
/** Tokens 1 to 6 of the fixture's 33. */
/** Bytes, of which the model knows the first. */
const tokenizer = { ...byteTokenizer(), vocabularySize: 33 };
const text = "\u0001\u0002\u0003\u0004\u0005\u0006";

test("the weights of wkv are those of equation 16", () => {
  const key = { rows: 3, width: 1, values: Float32Array.of(0.3, -1, 2) };
  const [w, u] = [-0.5, 0.25];
  const [first, second, third] = meanWeights(key, Float32Array.of(w), Float32Array.of(u)) as [
    number[],
    number[],
    number[],
  ];
  const share = (terms: number[]) => terms.map((term) => expect.closeTo(term / terms.reduce((a, b) => a + b), 6));
  expect(first).toEqual([1]);
  expect(second).toEqual(share([Math.exp(0.3), Math.exp(u - 1)]));
  expect(third).toEqual(share([Math.exp(w + 0.3), Math.exp(-1), Math.exp(u + 2)]));
});

test("keys of a hundred do not overflow the weights", () => {
  const key = { rows: 2, width: 1, values: Float32Array.of(300, 100) };
  expect(meanWeights(key, Float32Array.of(-1), Float32Array.of(0))[1]).toEqual([1, expect.closeTo(0)]);
});

test("a text is explained by the model's own values", async () => {
  const explanation = await explain(fixture("odd.pth"), text, tokenizer);
  expect(explanation.tokens.map(({ id }) => id)).toEqual([1, 2, 3, 4, 5, 6]);
  expect(explanation.layers.length).toBe(2);
  const model = await load(fixture("odd.pth"));
  const [logits] = await model.forward([{ state: model.createState(), tokens: [1, 2, 3, 4, 5, 6], logits: "all" }]);
  await model.dispose();
  explanation.layers[1]!.predictions.forEach(({ probability, probability_of_next: next }, t) => {
    const row = logits!.subarray(t * 33, (t + 1) * 33);
    const total = row.reduce((sum, logit) => sum + Math.exp(logit), 0);
    expect(probability).toBeCloseTo(Math.exp(Math.max(...row)) / total, 4);
    if (t < 5) expect(next).toBeCloseTo(Math.exp(row[t + 2]!) / total, 4);
    else expect(next).toBeUndefined();
  });
  const checkpoint = await openCheckpoint(fixture("odd.pth"));
  for (const { layer, weights, half_lives, receptance, reach } of explanation.layers) {
    weights.forEach((row, t) => {
      expect(row.length).toBe(t + 1);
      expect(row.reduce((sum, weight) => sum + weight, 0)).toBeCloseTo(1, 6);
      expect(reach[t]).toBeCloseTo(
        row.reduce((sum, weight, s) => sum + weight * (t - s), 0),
        6,
      );
    });
    const decay = await readFloat32(checkpoint.tensors.get(`blocks.${layer}.att.time_decay`)!);
    const expected = [...decay].map((x) => Math.LN2 / Math.exp(x)).sort((a, b) => a - b);
    half_lives.forEach((halfLife, i) => void expect(halfLife / expected[i]!).toBeCloseTo(1, 5));
    for (const r of receptance) expect(r > 0 && r < 1).toBe(true);
  }
  await checkpoint.close();
});

test("texts that cannot be shown are refused", async () => {
  await expect(explain(fixture("odd.pth"), "", tokenizer)).rejects.toThrow("expected 1 to 64 tokens, found 0");
  await expect(explain(fixture("odd.pth"), "a".repeat(65), tokenizer)).rejects.toThrow("found 65");
});

test("the page stands alone, and does not run what a text says", async () => {
  const explanation = await explain(fixture("odd.pth"), text, tokenizer);
  const page = await explainReport({ ...explanation, prompt: "<script>alert(1)</script>" });
  expect(page).toContain("&lt;script&gt;");
  expect(page).not.toMatch(/<script|<link|src=|https?:\/\/(?!www\.w3\.org)/);
  expect(page.match(/<svg/g)?.length).toBe(5);
});

test("the command writes the page and the numbers", async () => {
  const folder = await temporaryFolder();
  const stdout = execFileSync(process.execPath, [program, "lab", "explain", "--prompt", "The king", "--out", folder], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "ignore"],
  });
  const numbers = JSON.parse(readFileSync(join(folder, "explain.json"), "utf8")) as Explanation;
  expect(numbers.tokens.map((token) => token.text).join("")).toBe("The king");
  expect(stdout.trim().split("\n").length).toBe(numbers.layers.length);
  expect(readFileSync(join(folder, "explain.html"), "utf8")).toContain("The king");
});

test("parallel and serial forms give the same losses and gradients, by the command", async () => {
  const folder = await temporaryFolder();
  const args = [
    "lab",
    "parallel",
    "--shape",
    "2x24x60",
    "--batch",
    "3",
    "--context",
    "20",
    "--rounds",
    "1",
    "--out",
    folder,
  ];
  const stdout = execFileSync(process.execPath, [program, ...args], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "ignore"],
  });
  expect(stdout.match(/one text: .* all at once .*times as fast/g)?.length).toBe(3);
  const { setup, results } = JSON.parse(
    readFileSync(join(folder, "parallel.json"), "utf8"),
  ) as ReportFigures["parallel"];
  expect(setup).toMatchObject({ layers: 2, width: 24, vocabulary: 60, batch: 3, context: 20 });
  expect(Object.keys(results)).toEqual(["rwkv4", "rwkv6", "rwkv7"]);
  for (const [name, result] of Object.entries(results)) {
    expect(result.loss_difference, name).toBeLessThan(1e-5);
    expect(result.directions.length).toBe(4);
    for (const { parallel, serial } of result.directions) {
      expect(Math.abs(parallel / serial - 1), name).toBeLessThan(1e-3);
    }
  }
  expect(readFileSync(join(folder, "index.html"), "utf8")).toContain("by RWKV-7, whose recurrence takes");
  expect(readFileSync(join(folder, "parallel.html"), "utf8")).toContain("Is training RWKV serial?");
});
