// Runs of training on several ranks: what they learn from, the script that ranks run, and how far two runs are apart.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { openCheckpoint, readFloat32 } from "rwkv";
import type { TrainOptions } from "rwkv/training";

/** Sentences of a small grammar. */
export function sentences(count: number): string {
  const words = ["fox", "king", "goose", "daughter", "miller"];
  const line = (i: number) => `The ${words[(i * 7) % 5]} saw ${i % 13} of the ${words[i % 5]}s.`;
  return Array.from({ length: count }, (_, i) => line(i)).join("\n");
}

/** Conversations with long questions, so that in some steps some sequences have nothing to learn. */
export function chats(count: number): string {
  const one = (i: number) => ({
    messages: [
      { role: "user", content: `What did ${"a goose and ".repeat((i * i) % 4)}the king see?` },
      { role: "assistant", content: i % 3 === 0 ? "Nothing." : `They saw ${i} geese.` },
    ],
  });
  return Array.from({ length: count }, (_, i) => JSON.stringify(one(i))).join("\n");
}

const training = new URL("../dist/training/index.js", import.meta.url).href;

/** Arguments of node for ranks that do these runs one after another. */
export function scriptOf(runs: readonly TrainOptions[]): string[] {
  return moduleOf(`for (const options of ${JSON.stringify(runs)}) await train(options);`);
}

/** Arguments of node for the text of a module that has `train`. */
export function moduleOf(source: string): string[] {
  return ["--input-type=module", "-e", `const { train } = await import(${JSON.stringify(training)});\n${source}`];
}

/** The lines of a run's log. */
export async function logOf(run: string): Promise<Record<string, number>[]> {
  const text = await readFile(join(run, "log.jsonl"), "utf8");
  return text
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
}

/** What of the log does not depend on the clock. */
const measured = [
  "loss",
  "gradient_norm",
  "learning_rate",
  "validation_bits_per_byte",
  "validation_bits_per_byte_of_all",
];

/** The largest relative difference in two runs' logs, and that of their weights in the Euclidean norm. */
export async function differenceOf(one: string, other: string): Promise<{ log: number; weights: number }> {
  const logs = [await logOf(one), await logOf(other)] as const;
  const steps = logs.map((log) => log.map(({ step }) => step).join());
  if (steps[0] !== steps[1]) throw new Error(`logs of the steps ${steps.join(" and ")}`);
  let log = 0;
  logs[0].forEach((entry, i) => {
    for (const name of measured) {
      const [a, b] = [entry[name], logs[1][i]![name]];
      if (a === undefined && b === undefined) continue;
      const difference = Math.abs(a! - b!) / Math.max(Math.abs(a!), 1e-9);
      log = Number.isNaN(difference) ? Number.POSITIVE_INFINITY : Math.max(log, difference);
    }
  });
  const checkpoints = [
    await openCheckpoint(join(one, "model.safetensors")),
    await openCheckpoint(join(other, "model.safetensors")),
  ];
  let [squares, all] = [0, 0];
  for (const [name, tensor] of checkpoints[0]!.tensors) {
    const [a, b] = [await readFloat32(tensor), await readFloat32(checkpoints[1]!.tensors.get(name)!)];
    a.forEach((value, i) => {
      squares += (value - b[i]!) ** 2;
      all += value ** 2;
    });
  }
  for (const checkpoint of checkpoints) await checkpoint.close();
  return { log, weights: Math.sqrt(squares / all) };
}
