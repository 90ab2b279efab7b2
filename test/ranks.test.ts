// Training on several ranks: their runs against those of one process, and what they need of the machine. Runs that are resumed by
// others, killed or broken are with the long tests.

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as fc from "fast-check";
import { type TrainOptions, train } from "rwkv/training";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { bucketsOf } from "#rwkv/backends/kernel/gradient-buckets";
import type { Parameter } from "#rwkv/backends/training";
import { consecutiveBatches, shuffledBatches } from "#rwkv/training/batches";
import type { HeldOutText } from "#rwkv/training/dataset";
import { launchedRanks } from "#rwkv/training/launched-ranks";
import type { Ranks } from "#rwkv/training/ranks";
import { rowShare } from "#rwkv/training/row-share";
import { rankData } from "#rwkv/training/shared-data";
import { temporaryFolder } from "./fixture-files.js";
import { hasMpi, mpiCompiler, mpirun } from "./mpi.js";
import { runScript } from "./node-process.js";
import { chats, differenceOf, scriptOf, sentences } from "./rank-runs.js";

let folder = "";
const path = (name: string) => join(folder, name);
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "rwkv-ranks-"));
  await writeFile(path("tale.txt"), sentences(300));
  await writeFile(path("chats.jsonl"), chats(40));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const small = {
  layers: 2,
  width: 64,
  vocabulary: 280,
  context: 16,
  steps: 6,
  learningRate: 5e-3,
  validateEvery: 2,
  saveEvery: 4,
  threads: 1,
};

/** Runs whose batches cannot be shared evenly, that have steps in which a rank learns nothing, and so on. */
const runs: Readonly<Record<string, Omit<TrainOptions, "out" | "data"> & { readonly from?: string }>> = {
  plain: { ...small, batch: 6 },
  uneven: { ...small, batch: 5, dropout: 0.2, checkpointing: true },
  rwkv4: { ...small, version: "4", width: 16, batch: 3, tokenizer: "bytes" },
  answers: { ...small, batch: 2, context: 8, steps: 24, carryState: true, tokenizer: "bytes" },
  reference: { ...small, version: "4", width: 16, layers: 1, batch: 3, steps: 2, backend: "reference" },
  wasm: { ...small, layers: 1, batch: 2, steps: 3, backend: "wasm" },
};

const optionsOf = (name: string, run: string): TrainOptions => ({
  ...runs[name],
  data: path(name === "answers" ? "chats.jsonl" : "tale.txt"),
  out: path(`${run}-${name}`),
});

describe.runIf(hasMpi)("two ranks", () => {
  beforeAll(async () => {
    const all = Object.keys(runs).map((name) => optionsOf(name, "two"));
    const { code, errors } = await mpirun([[2, scriptOf(all)]]);
    expect(errors).toBe("");
    expect(code).toBe(0);
  });

  test.each(Object.keys(runs))("do what one does: %s", async (name) => {
    await train(optionsOf(name, "one"));
    const { log, weights } = await differenceOf(path(`one-${name}`), path(`two-${name}`));
    expect(log).toBeLessThan(1e-5);
    expect(weights).toBeLessThan(1e-5);
    expect(weights).toBeGreaterThan(0); // or it is the run of one that is compared
  });
});

describe("what ranks need of the machine", () => {
  const launched = { OMPI_COMM_WORLD_SIZE: "2", OMPI_COMM_WORLD_RANK: "0", OMPI_COMM_WORLD_LOCAL_RANK: "0" };
  const script = `
    const { train } = await import(new URL("training/index.js", dist));
    await train({ data: "nowhere", out: "nowhere" }).catch((error) => console.log(\`\${error.name}: \${error.message}\`));
  `;

  test("without an MPI's compiler one line tells what is missing, on each machine", async () => {
    const env = { ...launched, MPICC: "no-such-mpicc" };
    expect((await runScript(script, { env })).output).toMatch(
      /^BackendError: no-such-mpicc: no such compiler .*MPICC\n$/,
    );
    const other = { ...env, OMPI_COMM_WORLD_RANK: "1", OMPI_COMM_WORLD_LOCAL_RANK: "1" };
    expect((await runScript(script, { env: other })).output).toMatch(/^OtherRankError: /);
  });

  test.runIf(process.platform === "linux")("a compiler that is not MPI's fails, and says why", async () => {
    const env = { ...launched, MPICC: "cc", XDG_CACHE_HOME: await temporaryFolder() };
    const { output } = await runScript(script, { env });
    expect(output).toMatch(/^BackendError: the part that calls MPI cannot be compiled with cc: .*mpi\.h/);
  });

  test.runIf(hasMpi)("an MPI whose mpirun did not start this is noticed", async () => {
    const env = {
      OMPI_COMM_WORLD_SIZE: "",
      PMI_SIZE: "3",
      OMPI_ALLOW_RUN_AS_ROOT: "1",
      OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: "1",
    };
    expect((await runScript(script, { env })).output).toMatch(
      new RegExp(`^BackendError: expected the 3 ranks that were started, found 1 by the MPI of ${mpiCompiler}: `),
    );
  });

  test("one rank is an ordinary process", async () => {
    const env = { OMPI_COMM_WORLD_SIZE: "1", MPICC: "no-such-mpicc" };
    expect((await runScript(script, { env })).output).toMatch(/^TrainingError: nowhere: /);
  });
});

test("ranks are known by what launchers say", () => {
  const variables = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "PMIX_RANK", "SLURM_STEP_NUM_TASKS"];
  const before = variables.map((name) => process.env[name]);
  const sizeWith = (values: Record<string, string>) => {
    for (const name of variables) delete process.env[name];
    Object.assign(process.env, values);
    return launchedRanks();
  };
  try {
    expect(sizeWith({})).toBe(undefined);
    expect(sizeWith({ OMPI_COMM_WORLD_SIZE: "4" })).toBe(4);
    expect(sizeWith({ PMI_SIZE: "8" })).toBe(8);
    expect(sizeWith({ PMIX_RANK: "0", SLURM_STEP_NUM_TASKS: "16" })).toBe(16);
    expect(sizeWith({ SLURM_STEP_NUM_TASKS: "16" })).toBe(undefined); // a job of Slurm, but none of MPI
    expect(sizeWith({ OMPI_COMM_WORLD_SIZE: "many" })).toBe(undefined);
  } finally {
    sizeWith({});
    for (const [i, name] of variables.entries()) if (before[i] !== undefined) process.env[name] = before[i];
  }
});

test("each row of a batch has one rank, and ranks have as many or one more", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 0, max: 200 }), (size, more) => {
      const batch = size + more;
      const shares = Array.from({ length: size }, (_, rank) => rowShare(batch, rank, size));
      const owners = Array.from({ length: batch }, (_, row) => shares[0]!.ownerOf(row));
      shares.forEach(({ begin, end }, rank) => {
        expect(end - begin).toBeGreaterThanOrEqual(Math.floor(batch / size));
        expect(end - begin).toBeLessThanOrEqual(Math.ceil(batch / size));
        expect(owners.slice(begin, end).every((owner) => owner === rank)).toBe(true);
      });
      expect(shares.reduce((sum, { begin, end }) => sum + end - begin, 0)).toBe(batch);
    }),
  );
});

/** Ranks in one process, whose broadcasts meet. */
function ranksHere(size: number): Ranks[] {
  const waiting: { bytes: Uint8Array; resolve: () => void }[] = [];
  const all = (rank: number): Ranks => ({
    rank,
    size,
    async sum() {},
    // The first rank's number is the only one that is not 0 where these are used.
    sumNumbers: async (numbers) => {
      const sent = Float64Array.from(numbers);
      await all(rank).broadcast(new Uint8Array(sent.buffer), 0);
      return [...sent];
    },
    broadcast: (bytes, from) =>
      new Promise((resolve) => {
        waiting[rank] = { bytes, resolve };
        if (Object.keys(waiting).length < size) return;
        for (const one of waiting) one.bytes.set(waiting[from]!.bytes);
        for (const one of waiting.splice(0)) one.resolve();
      }),
    abort() {},
  });
  return Array.from({ length: size }, (_, rank) => all(rank));
}

test("each rank has its rows of every batch, and its held-out texts, and no others", async () => {
  const [batch, context] = [5, 4];
  const tokens = Uint16Array.from({ length: 100 }, (_, i) => i * 7);
  const learned = Uint8Array.from(tokens, (_, i) => Number(i % 3 > 0));
  const heldOut = [3, 6, 4].map((length, i) => ({
    tokens: tokens.subarray(i, i + length),
    bytes: length * 2,
    ...(i > 0 && { learned: learned.subarray(i, i + length) }),
  }));
  const plain = (array: ArrayLike<number> | undefined) => array && Array.from(array);
  for (const batches of [
    shuffledBatches({ tokens, learned }, batch, context, 1),
    consecutiveBatches({ tokens }, batch, context),
  ]) {
    for (const size of [1, 2, 3]) {
      const parts = await Promise.all(
        ranksHere(size).map((ranks) => {
          const own = ranks.rank === 0 ? { bytesPerToken: 2.5, batches, heldOut } : undefined;
          return rankData(ranks, own, { batch, context }, rowShare(batch, ranks.rank, size));
        }),
      );
      for (let step = 0; step < 8; step++) {
        const expected = batches.at(step);
        const found = await Promise.all(parts.map((part) => part.at(step)));
        const rows = ({ tokens: row, targets, continues }: (typeof expected)[number]) => [
          plain(row),
          plain(targets),
          continues,
        ];
        expect(found.flatMap(({ windows }) => windows.map(rows))).toEqual(expected.map(rows));
        const targetCount = expected.reduce(
          (sum, { targets }) => sum + plain(targets)!.filter((one) => one >= 0).length,
          0,
        );
        expect(found.map((one) => one.targetCount)).toEqual(Array.from({ length: size }, () => targetCount));
      }
      parts.forEach((part, rank) => {
        expect(part).toMatchObject({ bytesPerToken: 2.5, heldOutCount: 3, stepsPerEpoch: batches.stepsPerEpoch });
        const texts = heldOut.filter((_, i) => i % size === rank);
        const shown = (text: HeldOutText) => [plain(text.tokens), plain(text.learned), text.bytes];
        expect(part.heldOut.map(shown)).toEqual(texts.map(shown));
      });
    }
  }
});

test("gradients are added up in the order in which they are complete, each once", () => {
  const gradient = fc.record({ floats: fc.integer({ min: 1, max: 40_000 }), end: fc.integer({ min: 1, max: 50 }) });
  fc.assert(
    fc.property(fc.array(gradient, { minLength: 1, maxLength: 40 }), (gradients) => {
      const parameters = gradients.map(
        ({ floats }, i) => ({ name: String(i), shape: [floats] }) as unknown as Parameter,
      );
      const buckets = bucketsOf(
        parameters,
        gradients.map(({ end }) => end),
      );
      const names = buckets.flatMap((bucket) => bucket.parameters.map(({ name }) => name));
      expect([...names].sort()).toEqual(parameters.map(({ name }) => name).sort());
      buckets.forEach(({ parameters: own, end }, i) => {
        const ends = own.map(({ name }) => gradients[Number(name)]!.end);
        expect(Math.max(...ends)).toBe(end);
        expect(Math.min(...ends)).toBeGreaterThan(buckets[i - 1]?.end ?? 0);
      });
    }),
  );
});
