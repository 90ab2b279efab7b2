// Architectures of the lab: each gives the same logits for a whole text at once and token by token, and its gradients hold; and
// the measurements of growth.

import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { StoredTensor } from "rwkv";
import { describe, expect, test } from "vitest";
import { referenceBackend } from "#rwkv/backends/reference/reference";
import { openReferenceTraining } from "#rwkv/backends/reference/reference-training";
import { elementCount } from "#rwkv/dtypes";
import type { Graph } from "#rwkv/graph/graph";
import { architectures } from "#rwkv/lab/architectures/index";
import { spread } from "#rwkv/lab/curves";
import type { ReportFigures } from "#rwkv/lab/report-figures";
import { slope } from "#rwkv/lab/scale";
import type { BoundModel } from "#rwkv/models/versions";
import { randomGenerator } from "#rwkv/sampling/random";
import { storedTensor } from "#rwkv/training/initialize";
import { trainableModel } from "#rwkv/training/trainable-model";
import { allKernels, maxDifference } from "./environment.js";
import { temporaryFolder } from "./fixture-files.js";
import { isThorough } from "./thorough.js";

const program = fileURLToPath(new URL("../dist/cli/main.js", import.meta.url));
const size = { layers: 2, width: 12, hidden: 20, vocabulary: 9, heads: 3, capacity: 16 };

function randomTensors(graph: Graph): Map<string, StoredTensor> {
  const random = randomGenerator(3);
  return new Map(
    graph.weights.map(({ name, shape }) => {
      const scale = 2 / Math.sqrt(shape[1] ?? 1);
      const values = Float32Array.from({ length: elementCount(shape) }, () => (random.uniform() - 0.5) * scale);
      return [name, storedTensor(name, shape, values)];
    }),
  );
}

const tokens = [1, 5, 2, 8, 0, 3, 3, 7, 6, 4, 1, 2];

describe.each(architectures.map((architecture) => [architecture.name, architecture] as const))(
  "%s",
  (_, architecture) => {
    const graph = architecture.build(size);
    const tensors = randomTensors(graph);
    const model: BoundModel = { version: "test", size: { ...size }, graph, tensors };

    test("gives the same logits at once, in parts, and token by token", async () => {
      const whole = await referenceBackend.open(model, { threads: 1 });
      const [state] = [whole.createState()];
      const expected = (await whole.run([{ state, tokens, logits: "all" }])).logits.slice();
      for (const { backend, threads, label } of [
        { backend: referenceBackend, threads: 1, label: "reference" },
        ...allKernels,
      ]) {
        const runtime = await backend.open(model, { threads });
        for (const part of [1, 5, 12]) {
          const own = runtime.createState();
          const logits: number[] = [];
          for (let at = 0; at < tokens.length; at += part) {
            const result = await runtime.run([{ state: own, tokens: tokens.slice(at, at + part), logits: "all" }]);
            logits.push(...result.logits);
          }
          expect(maxDifference(logits, expected), `${label}, parts of ${part}`).toBeLessThan(2e-5);
        }
        await runtime.dispose();
      }
    });

    test("has the gradients that central differences give", async () => {
      const trained = trainableModel(graph, tensors, { weights: graph.weights, logitPenalty: 0 });
      const runtime = await openReferenceTraining(trained, { threads: 1, maxTokens: 12, maxSegments: 1 }, "f64");
      const targets = [...tokens.slice(1), 0];
      const segments = [{ state: runtime.createState(), nextState: runtime.createState(), tokens, targets }];
      const still = { step: 1, learningRate: 0, beta1: 0, beta2: 0, epsilon: 1, weightDecay: 0, maxGradientNorm: 1 };
      await runtime.step(segments, still, 0);
      const random = randomGenerator(8);
      for (const { name, gradient } of runtime.parameters) {
        const values = runtime.weights.get(name)!;
        // Some elements of each weight.
        for (let n = 0; n < 3; n++) {
          const i = Math.floor(random.uniform() * values.length);
          const before = values[i]!;
          values[i] = before + 1e-5;
          const above = runtime.meanLoss(segments, 0);
          values[i] = before - 1e-5;
          const below = runtime.meanLoss(segments, 0);
          values[i] = before;
          expect(gradient[i], `${name}[${i}]`).toBeCloseTo((above - below) / 2e-5, 7);
        }
      }
    });
  },
);

test("the exponent of a power is found", () => {
  expect(slope([1, 2, 4, 8].map((x) => [x, 3 * x ** 1.5]))).toBeCloseTo(1.5, 10);
  expect(slope([[5, 7]])).toBe(0);
});

test("rwkv lab scale writes figures of every architecture and length, and the page", async () => {
  const folder = await temporaryFolder();
  // Each takes a second; the others differ in nothing that is looked at here.
  const chosen = isThorough ? architectures.map(({ name }) => name) : ["rnn", "transformer", "aft-full", "rwkv7"];
  const only = ["--architectures", chosen.join()];
  const args = ["lab", "scale", "--lengths", "64,128", "--width", "16", "--rounds", "1", ...only, "--out", folder];
  const stdout = execFileSync(process.execPath, [program, ...args], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "ignore"],
  });
  const { results } = JSON.parse(readFileSync(join(folder, "scale.json"), "utf8")) as ReportFigures["scale"];
  expect(Object.keys(results)).toEqual(chosen);
  for (const [name, { points, measured }] of Object.entries(results)) {
    expect(stdout).toContain(name);
    expect(points.map((point) => point.tokens)).toEqual([64, 128]);
    for (const point of points) for (const value of Object.values(point)) expect(value).toBeGreaterThan(0);
    // What is carried along does not depend on the machine.
    expect(measured.state).toBeCloseTo(name === "transformer" || name === "aft-full" ? 1 : 0, 1);
  }
  expect(readFileSync(join(folder, "scale.html"), "utf8")).toContain("Exponents of T");
  // The overview knows what is in the folder, and makes nothing of files that are something else.
  writeFileSync(join(folder, "parallel.json"), '{"speed_up": "much"}');
  execFileSync(process.execPath, [program, "lab", "explain", "--prompt", "The king", "--out", folder], {
    stdio: "pipe",
  });
  const overview = readFileSync(join(folder, "index.html"), "utf8");
  for (const { name, title } of architectures) if (chosen.includes(name)) expect(overview).toContain(title);
  for (const page of ["scale.html", "explain.html"]) expect(overview).toContain(page);
  for (const command of ["rwkv lab train", "rwkv lab parallel"])
    expect(overview).toContain(`${command}</code> has not`);
});

test("what cannot be measured is refused before anything is", () => {
  const run = (...args: string[]) =>
    execFileSync(process.execPath, [program, "lab", "scale", ...args], { encoding: "utf8", stdio: "pipe" });
  expect(() => run("--architectures", "lstm")).toThrow(/expected rnn, gru, transformer, .*, found lstm/);
  expect(() => run("--lengths", "512,128")).toThrow(/ascending/);
  // A bias for every pair of 2^18 positions.
  expect(() => run("--lengths", "64,262144", "--architectures", "rnn,aft-full")).toThrow(
    /^error: aft-full, 262144 tokens: training takes more than \d+\.\d GiB of memory, and this machine has/m,
  );
});

test("names at the ends of curves are a line apart, and in order", () => {
  const heights = spread([1.5, 1.51, 1.505, 3], [1, 4], false);
  const [first, second, third, fourth] = [heights[0], heights[2], heights[1], heights[3]].map(Number) as [
    number,
    number,
    number,
    number,
  ];
  expect(second - first).toBeCloseTo(third - second, 6);
  expect(second - first).toBeGreaterThan(0.1);
  expect(fourth).toBeCloseTo(3, 6);
  // What does not fit above goes down.
  const powers = spread([1000, 999, 998], [1, 1000], true);
  expect(powers[0]).toBeCloseTo(1000, 3);
  expect(powers[1]! / powers[2]!).toBeCloseTo(powers[0]! / powers[1]!, 6);
});
