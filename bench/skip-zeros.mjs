// Decoding that leaves weights unread whose inputs are zero, beside decoding that reads them, in turn in one process:
//   node bench/skip-zeros.mjs [shape] [dtypes] [rounds] [share of zeros] [backend]
//   node bench/skip-zeros.mjs 7:24x1024x65536 bf16,q8 6 0.88
//   node bench/skip-zeros.mjs model.safetensors f32,q8
// Needs the build in dist/. A shape has random weights, but for ffn.key, whose rows are shifted so that this share of what squared
// ReLU gives is zero, other units for other tokens. The limit is what reading all weights once allows, by the probe of
// bandwidth before and after.

import { createNativeMachine } from "../dist/backends/native/native.js";
import { createWasmMachine } from "../dist/backends/wasm/wasm.js";
import { MachineProbes } from "../dist/bench/machine-probes.js";
import { median } from "../dist/bench/median.js";
import { workPerToken } from "../dist/bench/model-benchmark.js";
import { syntheticCheckpoint } from "../dist/bench/synthetic-checkpoint.js";
import { bytesSource } from "../dist/byte-source.js";
import { openCheckpoint } from "../dist/checkpoints/open-checkpoint.js";
import { convertElements } from "../dist/dtypes.js";
import { loadCheckpoint } from "../dist/load.js";
import { rwkv4 } from "../dist/models/rwkv4.js";
import { rwkv7 } from "../dist/models/rwkv7.js";
import { bindModel } from "../dist/models/versions.js";
import { randomGenerator } from "../dist/sampling/random.js";

const [what = "4:24x1024x50277", types = "bf16,q8", rounds = "6", zeros = "0.88", backend = "native"] =
  process.argv.slice(2);
const tokensOfRound = 24;

/** Normal quantiles of the shares that are asked for. */
const thresholds = { 0.5: 0, 0.75: 0.6745, 0.88: 1.175, 0.95: 1.645 };

async function checkpoint(dtype) {
  const match = /^(?:([47]):)?(\d+)x(\d+)x(\d+)$/.exec(what);
  if (!match) return openCheckpoint(what);
  const [layers, width, vocabulary] = match.slice(2).map(Number);
  const definition = match[1] === "7" ? rwkv7 : rwkv4;
  const size = definition.newSize({ layers, width, vocabulary });
  const stored = dtype === "f32" || dtype === "f16" ? dtype : "bf16";
  const made = syntheticCheckpoint({ name: what, definition, size }, stored);
  return { ...made, tensors: new Map([...made.tensors].map(([name, tensor]) => [name, planted(tensor, stored)])) };
}

let keys;
/** Rows of ffn.key have the sum -c, and norms before it give 1 + noise: so its products are around -c. */
function planted(tensor, dtype) {
  const { name, shape } = tensor;
  if (/ln2\.(weight|bias)$/.test(name)) return { ...tensor, dtype: "f32", offset: 0, source: ones(name, shape[0]) };
  if (!/ffn\.key\.weight$/.test(name)) return tensor;
  const [hidden, width] = shape;
  if (!keys) {
    const random = randomGenerator(2);
    const values = new Float32Array(hidden * width);
    const deviation = 0.05 / Math.sqrt(3);
    for (let h = 0; h < hidden; h++) {
      const row = values.subarray(h * width, (h + 1) * width);
      for (let i = 0; i < width; i++) row[i] = (random.uniform() - 0.5) * 0.1;
      const mean = row.reduce((sum, value) => sum + value, 0) / width;
      const shift = mean + (thresholds[zeros] * deviation) / Math.sqrt(width);
      for (let i = 0; i < width; i++) row[i] -= shift;
    }
    keys = new Uint8Array((hidden * width * (dtype === "f32" ? 32 : 16)) / 8);
    convertElements(new Uint8Array(values.buffer), "f32", keys, dtype);
  }
  return { ...tensor, offset: 0, source: bytesSource(name, keys) };
}

function ones(name, length) {
  return bytesSource(name, new Uint8Array(new Float32Array(length).fill(1).buffer));
}

for (const dtype of types.split(",")) {
  keys = undefined;
  const source = await checkpoint(dtype);
  const { weightBytes } = workPerToken(bindModel(source), dtype);
  const tokenizer = { vocabularySize: 1, encode: () => [], decoder: () => undefined };
  const models = [];
  const loading = [];
  for (const skipZeros of [false, true]) {
    const started = performance.now();
    models.push(await loadCheckpoint(await checkpoint(dtype), { backend, dtype, skipZeros, tokenizer, threads: 2 }));
    loading.push(performance.now() - started);
  }
  const probes = new MachineProbes(await (backend === "wasm" ? createWasmMachine(2) : createNativeMachine(2)));
  const states = models.map((model) => Array.from({ length: 4 }, () => model.createState()));
  const token = (i) => (i * 7919 + 13) % models[0].info.vocabulary;
  const speeds = { 1: [[], []], 2: [[], []], 4: [[], []], prompt: [[], []] };
  const read = [];
  const measure = async (rows, i, count) => {
    const [model, own] = [models[i], states[i]];
    const started = performance.now();
    for (let n = 0; n < count; n++) {
      const segments =
        rows === "prompt"
          ? [{ state: own[0], tokens: Array.from({ length: 128 }, (_, k) => token(k)) }]
          : own.slice(0, rows).map((state, k) => ({ state, tokens: [token(n + k)] }));
      await model.forward(segments);
    }
    return ((rows === "prompt" ? 128 : rows) * count * 1000) / (performance.now() - started);
  };
  const outputs = await Promise.all(
    models.map(async (model, i) => (await model.forward([{ state: states[i][1], tokens: [1, 2, 3] }]))[0]),
  );
  const equal = outputs[0].every((value, i) => Object.is(value, outputs[1][i]));
  for (let round = 0; round < Number(rounds); round++) {
    for (const rows of [1, 2, 4, "prompt"]) {
      if (rows === 1) read.push(await probes.readBandwidth());
      const order = round % 2 === 0 ? [0, 1] : [1, 0];
      for (const i of order) speeds[rows][i].push(await measure(rows, i, rows === "prompt" ? 2 : tokensOfRound));
      if (rows === 1) read.push(await probes.readBandwidth());
    }
  }
  const bandwidth = median(read);
  const limit = bandwidth / weightBytes;
  console.log(
    `${what} ${dtype} ${backend}, zeros ${zeros}: ${(weightBytes / 1e6).toFixed(0)} MB a token, ${(bandwidth / 1e9).toFixed(1)} GB/s, ` +
      `limit ${limit.toFixed(1)} tokens/s; loaded in ${loading.map((time) => time.toFixed(0)).join(" and ")} ms; ` +
      `logits ${equal ? "equal" : "DIFFER"}`,
  );
  for (const [rows, [dense, sparse]] of Object.entries(speeds)) {
    const [a, b] = [median(dense), median(sparse)];
    const ratio = median(sparse.map((speed, i) => speed / dense[i]));
    const ofLimit = rows === "1" ? `; of the limit ${(a / limit).toFixed(2)} and ${(b / limit).toFixed(2)}` : "";
    console.log(
      `  ${rows} rows: ${a.toFixed(1)} dense, ${b.toFixed(1)} sparse tokens/s, ratio ${ratio.toFixed(2)}${ofLimit}`,
    );
  }
  await probes.dispose();
  for (const model of models) await model.dispose();
}
