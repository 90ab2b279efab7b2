// What it costs to keep states in float16 (--state-store-type f16): how far apart the logits are after a text whose state was rounded
// somewhere on the way, from what they are without.
//   node bench/half-states.mjs [model, by default that in the package] [text file]
// Needs the build in dist/. For 8 places of the text: 256 tokens are read, the state is rounded, and 64 further tokens follow both.

import { readFile } from "node:fs/promises";
import { fromHalfState, toHalfState } from "../dist/generation/half-state.js";
import { load } from "../dist/index.js";

const [path, textPath = new URL("../docs/from-rnn-to-rwkv.md", import.meta.url)] = process.argv.slice(2);
const [places, before, after] = [8, 256, 64];
const model = await load(path, { threads: 2 });
const tokens = model.tokenizer.encode(await readFile(textPath, "utf8"));
const { vocabulary } = model.info;

/** Natural logarithms of the probabilities. */
function logProbabilities(logits) {
  const most = logits.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const sum = logits.reduce((all, logit) => all + Math.exp(logit - most), 0);
  return logits.map((logit) => logit - most - Math.log(sum));
}

const argmax = (values) => values.reduce((best, value, i) => (value > values[best] ? i : best), 0);
let [largest, divergence, agreed, compared, sizes] = [0, 0, 0, 0, ""];
for (let place = 0; place < places; place++) {
  const from = Math.floor(((tokens.length - before - after) * place) / places);
  const session = model.session();
  await session.read(tokens.slice(from, from + before), { keepLogits: true });
  const saved = await session.save();
  await session.dispose();
  const half = toHalfState(saved);
  if (!half) throw new Error("a value is larger than float16 can hold");
  sizes = `${saved.length} and ${half.length} bytes`;
  const next = tokens.slice(from + before, from + before + after);
  const states = [model.createState(saved), model.createState(fromHalfState(half))];
  const [exact, rounded] = await model.forward(states.map((state) => ({ state, tokens: next, logits: "all" })));
  await Promise.all(states.map((state) => state.dispose()));
  for (let i = 0; i < after; i++) {
    const [p, q] = [exact, rounded].map((all) => logProbabilities(all.subarray(i * vocabulary, (i + 1) * vocabulary)));
    largest = Math.max(
      largest,
      p.reduce((most, _, k) => {
        const at = i * vocabulary + k;
        return Math.max(most, Math.abs(exact[at] - rounded[at]));
      }, 0),
    );
    divergence += p.reduce((sum, value, k) => sum + Math.exp(value) * (value - q[k]), 0);
    agreed += Number(argmax(p) === argmax(q));
    compared++;
  }
}
await model.dispose();
console.log(`${model.info.source}: ${sizes}, logits included`);
console.log(
  `logits differ by ${largest.toExponential(1)} at most; Kullback-Leibler divergence ${(divergence / compared).toExponential(1)} nats a token`,
);
console.log(`the most probable token is the same in ${((100 * agreed) / compared).toFixed(1)} % of ${compared} places`);
