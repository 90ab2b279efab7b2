// What sharing a step of training costs on this machine, between processes:
//
//   mpirun -n 2 node bench/ranks.mjs [layers] [width]
//
// 1. Adding up arrays of several sizes over all ranks, against copying as many bytes from one rank to the others.
// 2. Steps of a new model: without an exchange, with all gradients added up after the backward pass, and in buckets while it goes on.
//    Every rank computes as much in all three. Medians of seven rounds, in ms; the bytes are those that a rank sends at least.

import { newModels } from "../dist/models/definitions.js";
import { randomGenerator } from "../dist/sampling/random.js";
import { firstTensors } from "../dist/training/initialize.js";
import { openTrainingOn } from "../dist/training/open-training.js";
import { joinRanks } from "../dist/training/ranks.js";
import { trainableModel } from "../dist/training/trainable-model.js";

const rounds = 7;
const [layers, width] = [process.argv[2] ?? 6, process.argv[3] ?? 256].map(Number);
const [batch, context] = [4, 128];

const ranks = await joinRanks((line) => console.error(line));
const { rank, size } = ranks;
if (size === 1) throw new Error("expected more than one rank: mpirun -n 2 node bench/ranks.mjs");
const print = (...row) => rank === 0 && console.log(row.join("\t"));
const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

/** Milliseconds of work that all ranks begin together. */
async function timed(work) {
  const times = [];
  for (let i = 0; i < rounds + 1; i++) {
    await ranks.sumNumbers([0]);
    const started = performance.now();
    await work(i);
    if (i > 0) times.push(performance.now() - started); // the first one touches the memory
  }
  return median(times);
}

const sent = (bytes) => (2 * (size - 1) * bytes) / size;
print("MB", "sum ms", "GB/s of sent", "copy ms", "GB/s");
for (const megabytes of [0.001, 0.0625, 1, 4, 16, 64]) {
  const floats = new Float32Array((megabytes * 2 ** 20) / 4).fill(1e-30);
  const sum = await timed(() => ranks.sum([floats]));
  const bytes = new Uint8Array(floats.buffer);
  const copy = await timed(() => ranks.broadcast(bytes, 0));
  const rate = (count, time) => (count / time / 1e6).toFixed(2);
  print(megabytes, sum.toFixed(2), rate(sent(bytes.length), sum), copy.toFixed(2), rate(bytes.length, copy));
}

const vocabulary = 4096;
const modelSize = newModels.newSize({ layers, width, vocabulary });
const graph = newModels.build(modelSize, { layerNormEpsilon: 1e-5 });
const { learning, adamEpsilon } = newModels.training;
const random = randomGenerator(1);
const tensors = firstTensors(newModels, graph, { size: modelSize, embeddingRange: 1e-4, random });
const model = trainableModel(graph, tensors, { weights: graph.weights, learning, logitPenalty: 1e-4 });
const runtime = await openTrainingOn("native", model, { threads: 1, maxTokens: batch * context, maxSegments: batch });
const initial = runtime.createState();
const tokens = () => Int32Array.from({ length: context }, () => Math.floor(random.uniform() * vocabulary));
const segments = Array.from({ length: batch }, () => {
  return { state: initial, nextState: runtime.createState(), tokens: tokens(), targets: tokens() };
});
const settings = {
  beta1: 0.9,
  beta2: 0.99,
  weightDecay: 0.01,
  maxGradientNorm: 1,
  epsilon: adamEpsilon,
  learningRate: 1e-4,
};
const place = { targetCount: size * batch * context, firstRow: rank * batch * context };

/** A step, in which `sum` adds up gradients. */
const step = (sum) => timed((i) => runtime.step(segments, { ...settings, step: i + 1 }, i, { ...place, sum }));

let sums = 0;
const alone = await step(async () => {});
let waiting = [];
const after = await step(async (gradients) => {
  waiting.push(...gradients);
  if (waiting.length < runtime.parameters.length) return;
  const all = waiting;
  waiting = [];
  await ranks.sum(all);
});
const overlapped = await step((gradients) => {
  sums++;
  return ranks.sum(gradients);
});
const parameters = runtime.parameters.reduce((total, { values }) => total + values.length, 0);
print(
  `\n${layers} x ${width}: ${parameters} weights, ${(sent(4 * parameters) / 1e6).toFixed(1)} MB sent a step, ${sums / (rounds + 1)} buckets`,
);
print("alone", "after", "meanwhile");
print(...[alone, after, overlapped].map((time) => time.toFixed(1)));
await runtime.dispose();
