// Texts as vectors.

import fc from "fast-check";
import { load, openCheckpoint, readFloat32 } from "rwkv";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { embed as embedTokens } from "#rwkv/server/embedding";
import { hasSharedData, sharedData } from "./fixture-files.js";
import { type Served, served } from "./served.js";

let tales: Served;
beforeAll(async () => {
  tales = await served();
});
afterAll(() => tales.close());

const embed = async (body: object, server = tales) => {
  const response = await server.post("/v1/embeddings", { model: "tales", ...body });
  return { status: response.status, ...(await response.json()) };
};
const vectors = async (body: object, server = tales): Promise<number[][]> =>
  (await embed(body, server)).data.map(({ embedding }: { embedding: number[] }) => embedding);
const product = (a: readonly number[], b: readonly number[]) => a.reduce((sum, value, i) => sum + value * b[i]!, 0);

test("a vector has the model's width and the length 1, also when it is shortened", async () => {
  const [whole] = await vectors({ input: "Once upon a time there was a wolf." });
  expect(whole).toHaveLength(tales.model.info.width);
  for (const dimensions of [1, 7, tales.model.info.width]) {
    const [short] = await vectors({ input: "Once upon a time there was a wolf.", dimensions });
    expect(short).toHaveLength(dimensions);
    expect(product(short!, short!)).toBeCloseTo(1, 5);
    expect(product(short!, whole!.slice(0, dimensions))).toBeCloseTo(Math.hypot(...whole!.slice(0, dimensions)), 5);
  }
});

test("is the mean of what the last layer's channel mixing reads", async () => {
  const { model } = tales;
  const { width, layers } = model.info;
  const tokens = model.tokenizer.encode("The king had three sons, and the youngest of them");
  const state = model.createState();
  const mean = new Array<number>(width).fill(0);
  for (const token of tokens) {
    await model.forward([{ state, tokens: [token], logits: "none" }]);
    // In RWKV-4 the first of five vectors of a layer (docs/model.md).
    const row = (await state.values()).subarray((layers - 1) * 5 * width, ((layers - 1) * 5 + 1) * width);
    for (let i = 0; i < width; i++) mean[i]! += row[i]!;
  }
  await state.dispose();
  const [found] = await vectors({ input: tokens });
  expect(product(found!, mean) / Math.hypot(...mean)).toBeCloseTo(1, 5);
});

if (!hasSharedData) console.info("skipped: no data folder beside the checkout, so no models of other versions");

test.skipIf(!hasSharedData).each(["4-3x64", "5.0", "5.1", "5.2", "6", "7"])(
  "the row is a layer norm by the weights of the last ln2, in a model of version %s",
  async (name) => {
    const path = sharedData(`models/synthetic-rwkv${name}.pth`);
    const model = await load(path, { threads: 1 });
    onTestFinished(() => model.dispose());
    const vector = await embedTokens(model, Int32Array.of(5), undefined, new AbortController().signal);
    const checkpoint = await openCheckpoint(path);
    const read = (part: string) => readFloat32(checkpoint.tensors.get(`blocks.2.ln2.${part}`)!);
    const [weight, bias] = [await read("weight"), await read("bias")];
    await checkpoint.close();
    // Up to its length the vector is normal * weight + bias, where `normal` has the mean 0 and the variance 1: two equations for one length.
    const [p, q] = [vector.map((value, i) => value / weight[i]!), bias.map((value, i) => value / weight[i]!)];
    const mean = (values: Float32Array) => values.reduce((sum, value) => sum + value, 0) / values.length;
    const covariance = (a: Float32Array, b: Float32Array) =>
      mean(a.map((value, i) => value * b[i]!)) - mean(a) * mean(b);
    const [a, b, c] = [covariance(p, p), -2 * covariance(p, q), covariance(q, q) - 1];
    const length = (-b + Math.sqrt(b * b - 4 * a * c)) / (2 * a);
    expect(Math.abs(length * mean(p) - mean(q))).toBeLessThan(1e-3);
  },
);

test("a text has the same vector alone and beside others, as text and as token ids, as numbers and as bytes", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.string({ minLength: 1, maxLength: 200 }), { minLength: 2, maxLength: 12 }),
      async (texts) => {
        const together = await embed({ input: texts });
        const ids = texts.map((text) => tales.model.tokenizer.encode(text));
        expect(together.data.map(({ index }: { index: number }) => index)).toEqual(texts.map((_, i) => i));
        expect(together.usage.prompt_tokens).toBe(ids.flat().length);
        const numbers: number[][] = together.data.map(({ embedding }: { embedding: number[] }) => embedding);
        expect(await vectors({ input: texts.at(-1) })).toEqual([numbers.at(-1)]);
        expect(await vectors({ input: ids })).toEqual(numbers);
        const { data } = await tales.client.embeddings.create({ model: "tales", input: texts }); // asks for base64
        expect(data.map(({ embedding }) => embedding)).toEqual(numbers);
      },
    ),
    { numRuns: 5 },
  );
});

test("texts that go on in the same tale are nearer than others", async () => {
  // Neighbours in three tales that the model was not asked about.
  const pairs = [
    [
      "The wolf hid behind a tree in the forest and waited for the little pig.",
      "The little pig ran from the forest, for the wolf was behind it.",
    ],
    [
      "The princess sat upon her throne in the castle and wept for the prince.",
      "When the king saw the princess weep, he sent for the prince to come to the castle.",
    ],
    [
      "The ship sailed over the sea, and the sailors saw an island far away.",
      "At last the sailors landed upon the island, and drew their ship out of the sea.",
    ],
  ];
  const [left, right] = await Promise.all([0, 1].map((side) => vectors({ input: pairs.map((pair) => pair[side]!) })));
  for (const [i, one] of left!.entries()) {
    const near = right!.map((other) => product(one, other));
    expect(near.indexOf(Math.max(...near))).toBe(i);
  }
});

test("a long text is read, one that is too long is refused, and so is what is no text", async () => {
  const [long] = await vectors({ input: Array.from({ length: 3000 }, (_, i) => 10 + (i % 900)) });
  expect(product(long!, long!)).toBeCloseTo(1, 5);
  const small = await served({ limits: { promptTokens: 10, concurrent: 2 } });
  onTestFinished(() => small.close());
  expect((await embed({ input: "a ".repeat(40) }, small)).error.code).toBe("context_length_exceeded");
  expect(await vectors({ input: ["a", "b", "c", "d", "e"] }, small)).toHaveLength(5); // more than there are places
  for (const wrong of [{}, { input: "" }, { input: [] }, { input: ["a", ""] }, { input: [[]] }, { input: [99_999] }]) {
    const { status, error } = await embed(wrong);
    expect([status, error.param?.startsWith("input")]).toEqual([400, true]);
  }
  for (const [field, value] of [
    ["dimensions", 0],
    ["dimensions", 193],
    ["encoding_format", "hex"],
  ] as const) {
    expect((await embed({ input: "a", [field]: value })).error.param).toBe(field);
  }
});

test("a client that leaves frees its places", async () => {
  const leaving = new AbortController();
  const input = Array.from({ length: 500 }, (_, i) => `The ${i}th tale of the king and his daughter`.repeat(20));
  const asked = tales.post("/v1/embeddings", { input }, { signal: leaving.signal });
  await expect.poll(() => tales.app.load.running).toBeGreaterThan(0);
  leaving.abort();
  await expect(asked).rejects.toThrow();
  await expect.poll(() => tales.app.load.running).toBe(0);
  await expect.poll(() => tales.model.scheduler.states).toBe(0);
});

test("the server's own state comes before every text", async () => {
  const model = await load(undefined, { threads: 1 });
  const session = model.session();
  await session.read("Of wolves:");
  const state = await session.save();
  await session.dispose();
  await model.dispose();
  const other = await served({ state });
  onTestFinished(() => other.close());
  const [plain, after] = [await vectors({ input: "They hunt" }), await vectors({ input: "They hunt" }, other)];
  expect(product(plain[0]!, after[0]!)).toBeLessThan(0.999);
});
