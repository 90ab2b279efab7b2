// What passes send to a GPU, without one: the dispatches that docs/performance.md counts, and where weights lie in buffers.

import { describe, expect, test } from "vitest";
import { layOut } from "#rwkv/backends/webgpu/matrices";
import type { Operands } from "#rwkv/backends/webgpu/operands";
import { programOf } from "#rwkv/backends/webgpu/program";
import { type ComputeType, isBlockType } from "#rwkv/dtypes";
import type { Graph, RowNode, WeightNode } from "#rwkv/graph/graph";
import { GraphBuilder } from "#rwkv/graph/graph-builder";
import { add, multiply } from "#rwkv/graph/operations/elementwise";
import { vectorRow } from "#rwkv/graph/operations/leaves";
import { planGraph } from "#rwkv/graph/plan";
import { definitions } from "#rwkv/models/definitions";
import { operationGraph } from "./random-models.js";

const GiB = 2 ** 30;

/** Embeddings and small matrices in f16, the head in no fewer than 8 bits, as `matrixTypes` has it for a file in f16. */
function typesOf(graph: Graph, dtype: ComputeType): Map<WeightNode, ComputeType> {
  const typeOf = ({ name, fewestBits }: WeightNode): ComputeType => {
    if (!isBlockType(dtype) || name.includes("emb") || fewestBits === 16) return "f16";
    return fewestBits === 8 ? "q8" : dtype;
  };
  return new Map(graph.weights.filter(({ op }) => op === "matrix").map((weight) => [weight, typeOf(weight)]));
}

function programFor(graph: Graph, types: ReadonlyMap<WeightNode, ComputeType>, limit: number = GiB) {
  const layout = layOut(types, limit);
  const quantized = new Set([...types].filter(([, type]) => isBlockType(type)).map(([weight]) => weight));
  const plan = planGraph([graph.output], 128, { quantized });
  const operands: Operands = {
    value: (node: RowNode) => (plan.buffers.get(node)?.offset as number) / 4,
    vector: () => 0,
    matrix: (weight) => layout.matrices.get(weight)!,
    state: () => 0,
    abilities: { hasByteProducts: true, isSoftware: false },
  };
  return { layout, program: programOf(plan, operands) };
}

function graphOf(version: string, layers: number): Graph {
  const definition = definitions.find((each) => each.version === version)!;
  const size = definition.newSize({ layers, width: 768, vocabulary: version === "4" ? 50277 : 65536 });
  return definition.build(size, { layerNormEpsilon: 1e-5 });
}

test("what a pass is run for is written, also where one shader makes it of what no other reads", () => {
  const g = new GraphBuilder();
  const x = g.embedding(g.matrix("table", 7, 256));
  const difference = g.shiftDifference(x, g.state(256, 0));
  const root = add(multiply(difference, vectorRow(g.vector("factor", 256))), x);
  const plan = planGraph([root], 128);
  const places = [...plan.buffers.keys()];
  const { oneTokenEach, dispatches, parameters } = programOf(plan, {
    value: (node) => 1000 + places.indexOf(node),
    vector: () => 0,
    matrix: () => ({ dtype: "f32", stride: 64, parts: [{ buffer: 0, offset: 0, firstRow: 0, rows: 7 }] }),
    state: () => 0,
    abilities: { hasByteProducts: true, isSoftware: false },
  });
  expect(oneTokenEach.length).toBeLessThan(dispatches.length);
  const { parameters: at, variants } = oneTokenEach.at(-1)!;
  const fields = variants[0]!.shader.fields.length;
  expect([...parameters.subarray(at / 4, at / 4 + fields)]).toContain(1000 + places.indexOf(root));
});

describe("dispatches of a layer: of single tokens, and of other passes", () => {
  test.each([
    ["4", "f16", 7, 9],
    ["4", "q8", 8, 13],
    ["6", "f16", 12, 19],
    ["6", "q8", 14, 23],
    ["7", "f16", 9, 18],
    ["7", "q8", 11, 23],
  ] as const)("RWKV-%s in %s", (version, dtype, alone, together) => {
    const [less, more] = [12, 13].map((layers) => {
      const graph = graphOf(version, layers);
      return programFor(graph, typesOf(graph, dtype)).program;
    });
    expect(more!.oneTokenEach.length - less!.oneTokenEach.length).toBe(alone);
    expect(more!.dispatches.length - less!.dispatches.length).toBe(together);
  });

  test("every version has shaders for all its operations", () => {
    for (const { version } of definitions) {
      const graph = graphOf(version, 2);
      expect(programFor(graph, typesOf(graph, "q4")).program.dispatches.length).toBeGreaterThan(10);
    }
  });

  test("an operation without a shader is an error that names it", () => {
    const graph = operationGraph("attention", 15);
    expect(() => programFor(graph, typesOf(graph, "f16"))).toThrow(
      "webgpu backend: there is no shader for the operation attention",
    );
  });
});

describe("where matrices lie", () => {
  const graph = graphOf("7", 2);

  test.each(["f16", "q8", "q4"] as const)("%s: all rows once, in buffers within the limit", (dtype) => {
    const limit = 2 ** 24;
    const { matrices, sizes } = layOut(typesOf(graph, dtype), limit);
    expect(sizes.length).toBeGreaterThan(5);
    for (const size of sizes) expect(size).toBeLessThanOrEqual(limit);
    const taken = new Map<number, [number, number][]>();
    for (const [weight, { parts, stride, dtype: own }] of matrices) {
      let row = 0;
      for (const { buffer, offset, firstRow, rows } of parts) {
        expect(firstRow).toBe(row);
        expect(firstRow % 16).toBe(0);
        row += rows;
        const vectors = stride * (isBlockType(own) ? Math.ceil(rows / 16) : rows);
        taken.set(buffer, [...(taken.get(buffer) ?? []), [offset, offset + vectors]]);
      }
      expect(row).toBe(weight.shape[0]);
    }
    for (const [buffer, ranges] of taken) {
      ranges.sort(([a], [b]) => a - b);
      ranges.forEach(([begin], i) => void expect(begin).toBe(i === 0 ? 0 : ranges[i - 1]![1]));
      expect(ranges.at(-1)![1] * 16).toBe(sizes[buffer]);
    }
  });

  test("a head in several buffers is several dispatches", () => {
    const types = typesOf(graph, "f16");
    const count = (limit: number) => programFor(graph, types, limit).program.oneTokenEach.length;
    // The embedding and the head take 96 MiB each.
    expect(count(2 ** 26)).toBe(count(GiB) + 2);
  });
});
