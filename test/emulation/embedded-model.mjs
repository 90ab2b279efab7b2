// Runs the embedded model natively, at each level of instruction sets and with each type of weights, by one thread and by two,
// which must agree to the bit. Writes the logits to a file: node embedded-model.mjs FILE.

import { writeFileSync } from "node:fs";
import { supportedLevels } from "../../dist/backends/native/native.js";
import { weightDTypes } from "../../dist/dtypes.js";
import { load } from "../../dist/index.js";

const tokens = Array.from({ length: 20 }, (_, i) => (i * 37 + 5) % 2048);

async function logitsOf(dtype, threads) {
  const onWarning = (message) => {
    throw new Error(message);
  };
  const model = await load(undefined, { backend: "native", dtype, threads, onWarning });
  if (model.info.threads !== threads) throw new Error(`expected ${threads} threads, found ${model.info.threads}`);
  const state = model.createState();
  const logits = [];
  for (const piece of [tokens.slice(0, 15), ...tokens.slice(15).map((token) => [token])]) {
    const [rows] = await model.forward([{ state, tokens: piece, logits: "all" }]);
    logits.push(...rows);
  }
  await model.dispose();
  return logits;
}

const results = {};
for (const level of await supportedLevels()) {
  process.env.RWKV_INSTRUCTIONS = level;
  for (const dtype of weightDTypes) {
    const [one, two] = [await logitsOf(dtype, 1), await logitsOf(dtype, 2)];
    if (one.some((value, i) => !Object.is(value, two[i]))) throw new Error(`${level}, ${dtype}: threads differ`);
    results[`${level} ${dtype}`] = one;
  }
}
writeFileSync(process.argv[2], JSON.stringify(results));
