// Runs on several ranks that are resumed by others, stopped, killed, or fail on one of them.

import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { openCheckpoint } from "rwkv";
import { type TrainOptions, train } from "rwkv/training";
import { beforeEach, describe, expect, test, vi } from "vitest";
import { program } from "../command.js";
import { temporaryFolder } from "../fixture-files.js";
import { hasMpi, mpirun } from "../mpi.js";
import { chats, differenceOf, logOf, moduleOf, scriptOf, sentences } from "../rank-runs.js";

let folder = "";
const path = (name: string) => join(folder, name);
beforeEach(async () => {
  folder = await temporaryFolder();
  await writeFile(path("tale.txt"), sentences(300));
  await writeFile(path("chats.jsonl"), chats(40));
});

const small = {
  layers: 2,
  width: 64,
  vocabulary: 280,
  context: 16,
  batch: 6,
  steps: 12,
  learningRate: 5e-3,
  validateEvery: 5,
  saveEvery: 4,
  threads: 1,
};
const modelOf = (run: string) => readFile(join(path(run), "model.safetensors"));
const optionsOf = (run: string, more: Partial<TrainOptions> = {}): TrainOptions => {
  return { ...small, data: path("tale.txt"), out: path(run), ...more };
};
const resumed = (run: string, more: Partial<TrainOptions> = {}): TrainOptions => {
  return { data: path("tale.txt"), out: path(run), resume: true, threads: 1, validateEvery: 5, ...more };
};

async function onRanks(count: number, options: TrainOptions): Promise<void> {
  const { code, errors } = await mpirun([[count, scriptOf([options])]]);
  expect(errors).toBe("");
  expect(code).toBe(0);
}

describe.runIf(hasMpi)("ranks", () => {
  test("three do what one does, and the same each time to the bit", async () => {
    await train(optionsOf("one"));
    await onRanks(3, optionsOf("three"));
    await onRanks(3, optionsOf("again"));
    const { log, weights } = await differenceOf(path("one"), path("three"));
    expect(Math.max(log, weights)).toBeLessThan(1e-5);
    expect(await modelOf("again")).toEqual(await modelOf("three"));
  });

  test.each([
    [2, 1],
    [1, 3],
    [3, 2],
  ])("%i save what %i resume, carried states too", async (before, after) => {
    const chat = { data: path("chats.jsonl"), carryState: true, tokenizer: "bytes", context: 8, steps: 24 } as const;
    const stops = `
      const controller = new AbortController();
      const onStep = ({ step }) => void (step === 14 && controller.abort());
      await train({ ...${JSON.stringify(optionsOf("moved", chat))}, signal: controller.signal, onStep });
    `;
    expect((await mpirun([[before, moduleOf(stops)]])).code).toBe(0);
    expect((await logOf(path("moved"))).at(-1)).toMatchObject({ step: 14 });
    await onRanks(after, resumed("moved", { data: chat.data }));
    await train(optionsOf("whole", chat));
    const { log, weights } = await differenceOf(path("whole"), path("moved"));
    expect(Math.max(log, weights)).toBeLessThan(1e-5);
  });

  test.each([0, 1])(
    "a killed rank %i ends the others, and the last save is resumed to the same bits",
    async (killed) => {
      const options = optionsOf("killed", { steps: 60 });
      const source = (rank: number) =>
        moduleOf(`
        console.log("pid of ${rank}: " + process.pid + ".");
        await train({ ...${JSON.stringify(options)}, onStep: ({ step }) => console.log("step " + step + " is done") });
      `);
      let isKilled = false;
      const onOutput = (text: string) => {
        const [, pid] = new RegExp(`pid of ${killed}: (\\d+)\\.`).exec(text) ?? [];
        if (isKilled || pid === undefined || !text.includes("step 9 is done")) return;
        isKilled = true;
        process.kill(Number(pid), "SIGKILL");
      };
      const { code } = await mpirun(
        [
          [1, source(0)],
          [1, source(1)],
        ],
        { onOutput },
      );
      expect(code).not.toBe(0);
      const checkpoint = await openCheckpoint(join(path("killed"), "checkpoint.safetensors"));
      await checkpoint.close();
      await onRanks(2, resumed("killed"));
      await onRanks(2, { ...options, out: path("whole") });
      expect(await modelOf("killed")).toEqual(await modelOf("whole"));
    },
  );

  test.each(["SIGINT", "SIGTERM"] as const)("mpirun that gets %s stops a run that can be resumed", async (signal) => {
    const options = `--layers 2 --width 64 --vocab 280 --context 16 --batch 6 --steps 5000 --threads 1 --sample-every 0`;
    const args = [program, "train", "--data", path("tale.txt"), "--out", path("stopped"), ...options.split(" ")];
    let isSent = false;
    await mpirun([[2, args]], {
      onOutput(text, kill) {
        if (isSent || !text.includes("step 1 of 5000")) return;
        isSent = true;
        kill(signal);
      },
    });
    let last = 0;
    const resume = async () => {
      last = Math.max(...(await logOf(path("stopped"))).map(({ step }) => step!));
      expect(last).toBeLessThan(5000);
      await train(resumed("stopped", { steps: last + 1 }));
    };
    // mpirun may end a moment before its ranks have.
    await vi.waitFor(resume, { timeout: 60_000, interval: 200 });
    expect((await logOf(path("stopped"))).at(-2)).toMatchObject({ step: last + 1 });
  });
});

describe.runIf(hasMpi)("what is wrong on one rank ends all with one message", () => {
  const train = (more: Record<string, string | number> = {}) => [
    ...[
      program,
      "train",
      "--data",
      path("tale.txt"),
      "--out",
      path("run"),
      "--width",
      "64",
      "--layers",
      "1",
      "--batch",
      "4",
    ],
    ...Object.entries({ context: 16, vocab: 280, steps: 8, threads: 1, ...more }).flatMap(([name, value]) => [
      `--${name}`,
      String(value),
    ]),
  ];
  const messagesIn = (errors: string) => errors.split("\n").filter((line) => line.startsWith("error: "));

  test("data that cannot be read, of which nothing is left", async () => {
    const { code, errors } = await mpirun([[3, train({ data: path("nowhere.txt") })]]);
    expect(code).toBe(1);
    expect(messagesIn(errors)).toEqual([expect.stringMatching(/^error: .*nowhere\.txt/)]);
    expect(await readdir(folder)).not.toContain("run");
  });

  test("an option that is wrong for all, and a configuration that one does not have", async () => {
    const small = await mpirun([[3, train({ batch: 2 })]]);
    expect(messagesIn(small.errors)).toEqual([
      "error: option batch: expected at least 3, a sequence of each step for every rank, found 2",
    ]);
    const missing = await mpirun([
      [1, train()],
      [1, train({ config: path("nowhere.json") })],
    ]);
    expect(missing.code).toBe(1);
    expect(messagesIn(missing.errors)).toEqual([expect.stringMatching(/^error: rank 1: .*nowhere\.json/)]);
  });

  test("a callback that throws, and a loss that is no number", async () => {
    const options = JSON.stringify(optionsOf("run"));
    const source = moduleOf(`
      const tell = (error) => console.log(error.name + ": " + error.message);
      const onStep = ({ step }) => { if (step === 3) throw new Error("no more"); };
      await train({ ...${options}, onStep }).catch(tell);
      await train({ ...${options}, out: ${JSON.stringify(path("wild"))}, learningRate: 10, warmup: 0, steps: 50 }).catch(tell);
    `);
    const { output, code } = await mpirun([[2, source]]);
    expect(code).toBe(0);
    expect(output).toContain("Error: no more");
    expect(output).toContain("OtherRankError: rank 0: no more");
    expect(output).toMatch(/^TrainingError: step \d+: /m);
    expect(output).toMatch(/^OtherRankError: step \d+: /m);
  });
});
