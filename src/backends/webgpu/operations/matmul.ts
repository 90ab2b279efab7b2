// Products of rows with a weight matrix, and what is done where they are stored. For few rows the lanes of a workgroup share the inputs of
// some outputs, so that weights are read once and side by side; for many rows a workgroup makes a tile, whose weights and rows it keeps in
// its memory. Rows that are in blocks are multiplied with weights in blocks as integers.

import { type BlockType, type ComputeType, type FloatType, isBlockType } from "../../../dtypes.js";
import { matricesOf, type RowNode, type WeightNode } from "../../../graph/graph.js";
import type { Abilities, Kernel } from "../operands.js";
import { type ArenaView, makeShader, none, rowCountAt, type Shader, type Variant } from "../shader.js";
import { blockProduct, groupOutputs, inputsOfVector, weightsCode } from "../weight-types.js";
import { expFunction, lines, unaryCode } from "../wgsl.js";
import { quantizedRow } from "./quantize-rows.js";

/** What may be applied to a product, by its number in parameters; 0 is nothing. */
const activations = ["sigmoid", "reluSquared", "tanh"] as const;

const fields = [
  ...["x", "xWidth", "result", "resultWidth", "weights", "stride", "inputs", "outputs"],
  ...["activation", "multiplier", "addend", "rowsAt"],
];

/** How many rows the shaders for few rows take; more are a tile's. */
const fewRows = [1, 2, 4] as const;
const tileOutputs = 32;
const tileRows = 32;

/** Which rows and weights a shader is made for. */
interface Form extends Abilities {
  readonly dtype: ComputeType;
  /** Whether rows and results are whole vectors of four floats. */
  readonly isWhole: boolean;
}

const viewOf = ({ dtype, isWhole }: Form): ArenaView => (isBlockType(dtype) ? "u32" : isWhole ? "vec4<f32>" : "f32");

/** `store(p, row, output, value)`: what comes after a product, and where it goes; of four outputs at once where all are whole. */
function storeCode(form: Form): string {
  const view = viewOf(form);
  const isVector = view === "vec4<f32>";
  const type = isVector ? "vec4<f32>" : "f32";
  const at = (operand: string) => {
    const place = isVector ? `arena[(p.${operand} + at) / 4u]` : `arena[p.${operand} + at]`;
    return view === "u32" ? `bitcast<f32>(${place})` : place;
  };
  const target = isVector ? "arena[(p.result + at) / 4u]" : "arena[p.result + at]";
  return `${expFunction}
fn activated(activation: u32, x: f32) -> f32 {
  switch activation {
${lines(activations.length, (i) => `    case ${i + 1}u: { return ${unaryCode[activations[i] as "tanh"]("x")}; }`)}
    default: { return x; }
  }
}
fn store(p: Parameters, row: u32, output: u32, sum: ${type}) {
  let at = row * p.resultWidth + output;
  var value = sum;
  ${isVector ? "for (var i = 0u; i < 4u; i++) { value[i] = activated(p.activation, sum[i]); }" : "value = activated(p.activation, sum);"}
  if (p.multiplier != ${none}u) { value *= ${at("multiplier")}; }
  if (p.addend != ${none}u) { value += ${at("addend")}; }
  ${target} = ${view === "u32" ? "bitcast<u32>(value)" : "value"};
}`;
}

/** Floats of a row, four from input 4 * unit; 0 behind its end. */
function rowCode({ isWhole }: Form): string {
  if (isWhole) {
    return `fn rowAt(p: Parameters, row: u32, unit: u32) -> vec4<f32> {
  return select(vec4<f32>(), arena[(p.x + row * p.xWidth) / 4u + unit], 4u * unit < p.inputs);
}`;
  }
  return `fn rowAt(p: Parameters, row: u32, unit: u32) -> vec4<f32> {
  let at = p.x + row * p.xWidth + 4u * unit;
  let left = p.inputs - min(p.inputs, 4u * unit);
  return vec4<f32>(
    select(0.0, arena[at], left > 0u), select(0.0, arena[at + 1u], left > 1u),
    select(0.0, arena[at + 2u], left > 2u), select(0.0, arena[at + 3u], left > 3u));
}`;
}

/** Four outputs of a few rows: each lane sums over some of the inputs. */
function fewRowsOfFloats(form: Form & { dtype: FloatType }, rows: number): Shader {
  const { dtype } = form;
  const workgroup = form.isSoftware ? 16 : 64;
  const units = inputsOfVector[dtype] / 4;
  const vectorOf = (word: string, unit: number) => {
    if (dtype === "f32") return `bitcast<vec4<f32>>(${word})`;
    const [a, b] = unit === 0 ? [`${word}.x`, `${word}.y`] : [`${word}.z`, `${word}.w`];
    if (dtype === "f16") return `vec4<f32>(unpack2x16float(${a}), unpack2x16float(${b}))`;
    return `bitcast<vec4<f32>>(vec4<u32>(${a} << 16u, ${a} & 0xffff0000u, ${b} << 16u, ${b} & 0xffff0000u))`;
  };
  const multiply = (unit: number) => `
${lines(4, (o) => `    let w${unit}${o} = ${vectorOf(`word${o}`, unit)};`)}
${lines(
  rows,
  (r) => `    let x${unit}${r} = rowAt(p, min(first + ${r}u, last), k * ${units}u + ${unit}u);
    sum${r} += vec4<f32>(${lines(4, (o) => `dot(w${unit}${o}, x${unit}${r})`, ", ")});`,
)}`;
  return makeShader({
    label: `matmul, ${dtype}, ${rows} rows`,
    fields,
    workgroup,
    arena: viewOf(form),
    sum: "vec4<f32>",
    declarations: `${storeCode(form)}
${rowCode(form)}`,
    body: `
  let output = tile * 4u;
  if (output >= p.outputs) { return; }
  let first = row * ${rows}u;
  let last = given[p.rowsAt] - 1u;
${lines(4, (o) => `  let at${o} = p.weights + min(output + ${o}u, p.outputs - 1u) * p.stride;`)}
${lines(rows, (r) => `  var sum${r} = vec4<f32>();`)}
  for (var k = lane; k < p.stride; k += ${workgroup}u) {
${lines(4, (o) => `    let word${o} = weights[at${o} + k];`)}
${lines(units, multiply)}
  }
${lines(rows, (r) => `  let total${r} = sumOf(lane, sum${r});`)}
  var totals = array<vec4<f32>, ${rows}>(${lines(rows, (r) => `total${r}`, ", ")});
  for (var r = 0u; r < min(${rows}u, last + 1u - first); r++) {
    ${
      form.isWhole
        ? "if (lane == 0u) { store(p, first + r, output, totals[r]); }"
        : "if (lane < 4u && output + lane < p.outputs) { store(p, first + r, output + lane, totals[r][lane]); }"
    }
  }`,
  });
}

const byteProduct = (has: boolean) =>
  has
    ? "fn byteProduct(a: u32, b: u32) -> i32 { return dot4I8Packed(a, b); }"
    : `fn byteProduct(a: u32, b: u32) -> i32 {
  let left = (vec4<i32>(bitcast<i32>(a)) << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u);
  let right = (vec4<i32>(bitcast<i32>(b)) << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u);
  return dot(left, right);
}`;

/** Sixteen outputs of a few rows: sixteen lanes a block, each four outputs and eight of its inputs. */
function fewRowsOfBlocks(form: Form & { dtype: BlockType }, rows: number): Shader {
  const { dtype } = form;
  const workgroup = form.isSoftware ? 32 : 128;
  const { span, vectors, declarations, load, terms } = blockProduct(dtype);
  const blocksOfSpan = span / 32;
  const ones = "0x01010101u";
  return makeShader({
    label: `matmul, ${dtype}, ${rows} rows`,
    fields,
    workgroup,
    arena: "u32",
    declarations: `${storeCode(form)}
${byteProduct(form.hasByteProducts)}
fn byteProducts(a: vec4<u32>, b: u32) -> vec4<i32> {
  return vec4<i32>(byteProduct(a.x, b), byteProduct(a.y, b), byteProduct(a.z, b), byteProduct(a.w, b));
}
${declarations}
var<workgroup> partial: array<vec4<f32>, ${workgroup}>;
fn totalOf(lane: u32, value: vec4<f32>) -> vec4<f32> {
  workgroupBarrier();
  partial[lane] = value;
  for (var step = ${workgroup / 2}u; step >= 4u; step >>= 1u) {
    workgroupBarrier();
    if (lane < step) { partial[lane] += partial[lane + step]; }
  }
  return partial[lane];
}`,
    body: `
  if (tile * ${groupOutputs}u >= p.outputs) { return; }
  let first = row * ${rows}u;
  let last = given[p.rowsAt] - 1u;
  let group = p.weights + tile * p.stride;
  let quad = lane & 3u;
  let unit = (lane >> 2u) & 3u;
  let blocks = p.stride / ${vectors}u * ${blocksOfSpan}u;
  let scales = p.x + (p.inputs + 63u) / 64u * 16u;
${lines(rows, (r) => `  let x${r} = min(first + ${r}u, last) * p.xWidth;`)}
${lines(rows, (r) => `  var sum${r} = vec4<f32>();`)}
  for (var block = lane >> 4u; block < blocks; block += ${workgroup / 16}u) {
    let first = group + block / ${blocksOfSpan}u * ${vectors}u;
    ${load}
${lines(
  rows,
  (r) => `    {
      let lowBytes = arena[p.x + x${r} + block * 8u + unit];
      let highBytes = arena[p.x + x${r} + block * 8u + unit + 4u];
      let lowSum = byteProducts(low, lowBytes);
      let highSum = byteProducts(high, highBytes);
      let lowX = byteProduct(lowBytes, ${ones});
      let highX = byteProduct(highBytes, ${ones});
      sum${r} += bitcast<f32>(arena[scales + x${r} + block]) * (${terms});
    }`,
)}
  }
${lines(rows, (r) => `  let total${r} = totalOf(lane, sum${r});`)}
  var totals = array<vec4<f32>, ${rows}>(${lines(rows, (r) => `total${r}`, ", ")});
  if (lane >= 4u) { return; }
  for (var r = 0u; r < min(${rows}u, last + 1u - first); r++) {
    for (var i = 0u; i < 4u; i++) {
      let output = tile * ${groupOutputs}u + 4u * lane + i;
      if (output < p.outputs) { store(p, first + r, output, totals[r][i]); }
    }
  }`,
  });
}

/** A tile of outputs by rows: both kept in the memory of the workgroup, 32 inputs at a time; each lane makes four outputs of four rows. */
function manyRows(form: Form): Shader {
  const { dtype } = form;
  const workgroup = (tileOutputs / 4) * (tileRows / 4);
  const units = 8;
  const pitch = units + 1; // so that lanes side by side read from different banks
  const rowOfBlocks = `fn rowAt(p: Parameters, row: u32, unit: u32) -> vec4<f32> {
  let at = p.x + row * p.xWidth;
  let bytes = (vec4<i32>(bitcast<i32>(arena[at + unit])) << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u);
  return vec4<f32>(bytes) * bitcast<f32>(arena[at + (p.inputs + 63u) / 64u * 16u + unit / 8u]);
}`;
  const inBlocks = isBlockType(dtype);
  const storing =
    form.isWhole && !inBlocks
      ? "if (output < p.outputs) { store(p, line, output, sums[r]); }"
      : "for (var i = 0u; i < 4u; i++) { if (output + i < p.outputs) { store(p, line, output + i, sums[r][i]); } }";
  return makeShader({
    label: `matmul, ${dtype}, many rows`,
    fields,
    workgroup,
    arena: viewOf(form),
    declarations: `${storeCode(form)}
${inBlocks ? rowOfBlocks : rowCode(form)}
${weightsCode(dtype)}
var<workgroup> someWeights: array<vec4<f32>, ${tileOutputs * pitch}>;
var<workgroup> someRows: array<vec4<f32>, ${tileRows * pitch}>;`,
    body: `
  let firstOutput = tile * ${tileOutputs}u;
  if (firstOutput >= p.outputs) { return; }
  let firstRow = row * ${tileRows}u;
  let last = given[p.rowsAt] - 1u;
  let allUnits = (p.inputs + 3u) / 4u;
  let mineOutput = (lane % ${tileOutputs / 4}u) * 4u;
  let mineRow = (lane / ${tileOutputs / 4}u) * 4u;
${lines(4, (r) => `  var sum${r} = vec4<f32>();`)}
  for (var unit = 0u; unit < allUnits; unit += ${units}u) {
    workgroupBarrier();
    for (var i = lane; i < ${tileOutputs * units}u; i += ${workgroup}u) {
      let o = i / ${units}u;
      let k = unit + i % ${units}u;
      let isThere = k < allUnits;
      let at = o * ${pitch}u + i % ${units}u;
      someWeights[at] = select(vec4<f32>(), weightsAt(p.weights, p.stride, min(firstOutput + o, p.outputs - 1u), min(k, allUnits - 1u)), isThere);
      someRows[at] = select(vec4<f32>(), rowAt(p, min(firstRow + o, last), min(k, allUnits - 1u)), isThere);
    }
    workgroupBarrier();
    for (var k = 0u; k < min(${units}u, allUnits - unit); k++) {
${lines(4, (o) => `      let w${o} = someWeights[(mineOutput + ${o}u) * ${pitch}u + k];`)}
${lines(
  4,
  (r) => `      let x${r} = someRows[(mineRow + ${r}u) * ${pitch}u + k];
      sum${r} += vec4<f32>(dot(w0, x${r}), dot(w1, x${r}), dot(w2, x${r}), dot(w3, x${r}));`,
)}
    }
  }
  let output = firstOutput + mineOutput;
  var sums = array<vec4<f32>, 4>(sum0, sum1, sum2, sum3);
  for (var r = 0u; r < 4u; r++) {
    let line = firstRow + mineRow + r;
    if (line <= last) { ${storing} }
  }`,
  });
}

function variantsOf(form: Form, outputs: number): Variant[] {
  const { dtype } = form;
  const few = fewRows.map(
    (rows): Variant =>
      isBlockType(dtype)
        ? {
            shader: fewRowsOfBlocks({ ...form, dtype }, rows),
            mostRows: rows,
            rowsPerGroup: rows,
            tiles: Math.ceil(outputs / groupOutputs),
          }
        : {
            shader: fewRowsOfFloats({ ...form, dtype }, rows),
            mostRows: rows,
            rowsPerGroup: rows,
            tiles: Math.ceil(outputs / 4),
          },
  );
  const many = {
    shader: manyRows(form),
    mostRows: Number.POSITIVE_INFINITY,
    rowsPerGroup: tileRows,
    tiles: Math.ceil(outputs / tileOutputs),
  };
  return [...few, many];
}

export const matmul: Kernel = ({ call, inputs, outputs, activation, multiplier, addend }, operands) => {
  const [x] = inputs as [RowNode];
  const [result] = outputs as readonly [RowNode];
  const [weight] = matricesOf(call) as [WeightNode];
  const { dtype, stride, parts } = operands.matrix(weight);
  const width = weight.shape[1] as number;
  const { rows } = result;
  if (typeof rows === "number") throw new RangeError(`matmul ${weight.name}: rows that are the same in every pass`);
  const isWhole = width % 4 === 0 && result.width % 4 === 0;
  // Rows in blocks are as wide as the planner says, though only the beginning is used.
  if (isBlockType(dtype) && x.width < quantizedRow(width).scales) throw new RangeError("rows are not in blocks");
  return parts.map(({ buffer, offset, firstRow, rows: outputsOfPart }) => ({
    over: rows,
    weights: buffer,
    fields: {
      x: operands.value(x),
      xWidth: x.width,
      result: operands.value(result) + firstRow,
      resultWidth: result.width,
      weights: offset,
      stride,
      inputs: width,
      outputs: outputsOfPart,
      activation: activation === undefined ? 0 : 1 + activations.indexOf(activation as "tanh"),
      multiplier: multiplier ? operands.value(multiplier) + firstRow : none,
      addend: addend ? operands.value(addend) + firstRow : none,
      rowsAt: rowCountAt(rows),
    },
    variants: variantsOf({ dtype, isWhole, ...operands.abilities }, outputsOfPart),
  }));
};
