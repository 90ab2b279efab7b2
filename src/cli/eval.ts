// rwkv eval: how well a model does at tests of language models, so that published figures can be had again.

import type { Command } from "commander";
import { lambada } from "../evaluation/lambada.js";
import { multipleChoice } from "../evaluation/multiple-choice.js";
import { type EvaluationRecord, recordsOf } from "../evaluation/records.js";
import type { ScoringOptions } from "../evaluation/score-questions.js";
import type { Model } from "../generation/model.js";
import { readText } from "../platform/node/files.js";
import { addModelOptions, loadModel, type ModelOptions } from "./model-options.js";
import { wholeNumber } from "./option-parsers.js";
import { progressBar } from "./terminal.js";
import { textTable } from "./text-table.js";

interface EvalOptions extends ModelOptions {
  limit?: number;
  json?: boolean;
}

/** A test: what it is called, what it says of itself, and how it is run. */
interface Task {
  readonly name: string;
  readonly description: string;
  readonly run: (model: Model, records: readonly EvaluationRecord[], options: ScoringOptions) => Promise<object>;
}

const tasks: readonly Task[] = [
  {
    name: "lambada",
    description: 'the last word of passages: a file of lines {"text": ..}, such as lambada_test.jsonl',
    run: lambada,
  },
  {
    name: "choices",
    description: 'the most probable of given answers: a file of lines {"context": .., "choices": [..], "answer": 0}',
    run: multipleChoice,
  },
];

export function addEval(program: Command): void {
  const command = program.command("eval").description("measure how well a model does at a test of language models");
  for (const task of tasks) {
    const one = command
      .command(task.name)
      .description(task.description)
      .argument("<file>", "a file with a JSON object a line")
      .option("--limit <n>", "the first so many lines only", wholeNumber(1))
      .option("--json", "print JSON");
    addModelOptions(one).action((file: string, options: EvalOptions) => evaluate(task, file, options));
  }
  command.addHelpText(
    "after",
    `
Examples:
  $ rwkv eval lambada lambada_test.jsonl --model rwkv7-g1-0.4b
  $ rwkv eval choices hellaswag.jsonl --model RWKV-4-Pile-169M-20220807-8023.pth --json
docs/evaluation.md has figures that were published, and how files are made.`,
  );
}

async function evaluate(task: Task, file: string, options: EvalOptions): Promise<void> {
  const records = recordsOf(file, await readText(file), options.limit);
  const model = await loadModel(options);
  const bar = progressBar(task.name);
  try {
    const onProgress = (done: number) => bar.update(done, records.length);
    const result = await task.run(model, records, { onProgress });
    bar.stop();
    process.stdout.write(options.json ? `${JSON.stringify(result)}\n` : report(result));
  } finally {
    bar.stop();
    await model.dispose();
  }
}

function report(result: object): string {
  const rows = Object.entries(result).map(([name, value]: [string, number]) => {
    const words = name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
    const isShare = /accuracy/i.test(name);
    const shown = isShare ? `${(100 * value).toFixed(2)} %` : Number.isInteger(value) ? `${value}` : value.toFixed(3);
    return [words, shown];
  });
  return `${textTable(rows).join("\n")}\n`;
}
