// Operations as parts of a shader for one token of each sequence (channels.ts): each writes what it does for the lane's channel.

import type { FusedOperation } from "../../../graph/fusion.js";
import { type Call, type RowNode, type StateVector, statesOf, type Vector, vectorsOf } from "../../../graph/graph.js";
import type { BinaryName, UnaryName } from "../../../graph/operations/elementwise.js";
import { vectorIn } from "../../../graph/operations/leaves.js";
import type { ChannelWriter } from "../channel-writer.js";
import { binaryCode, floatLiteral, unaryCode } from "../wgsl.js";
import { quantizedRow } from "./quantize-rows.js";

type ChannelKernel = (operation: FusedOperation, writer: ChannelWriter) => void;

const vectorAt = (writer: ChannelWriter, vector: Vector, channel = "c") =>
  `vectors[${writer.parameter(writer.operands.vector(vector))} + min(${channel}, ${(vector.shape[0] as number) - 1}u)]`;

const elementwise: ChannelKernel = ({ chain }, writer) => {
  if (!chain) return;
  const { inputs, constants, outputs, instructions } = chain;
  const values = new Map<number, string>();
  inputs.forEach(({ node, repeat }, i) => {
    const vector = vectorIn(node);
    const channel = repeat === 1 ? "c" : `c / ${repeat}u`;
    values.set(i, vector ? vectorAt(writer, vector, channel) : writer.valueOf(node, repeat));
  });
  constants.forEach((value, i) => void values.set(inputs.length + i, floatLiteral(value)));
  for (const { function: name, a, b, result } of instructions) {
    const [left, right] = [values.get(a) as string, values.get(b) as string];
    const unary = unaryCode[name as UnaryName];
    const variable = writer.name();
    writer.line(`let ${variable} = ${unary ? unary(left) : binaryCode[name as BinaryName](left, right)};`);
    values.set(result, variable);
  }
  const firstOutput = inputs.length + constants.length;
  outputs.forEach((node, i) => void writer.define(node, values.get(firstOutput + i) as string));
};

const layerNorm: ChannelKernel = ({ call, inputs }, writer) => {
  if (!call) return;
  const [x] = inputs as [RowNode];
  const [weight, bias] = vectorsOf(call) as [Vector, Vector];
  const [from, mean, squares, scale] = [writer.name(), writer.name(), writer.name(), writer.name()];
  const { width } = x;
  // Every workgroup takes the mean of the whole row, which is quicker than waiting for one that does.
  writer.line(`let ${from} = ${writer.parameter(writer.operands.value(x))} + row * ${width}u;`);
  writer.line(`var ${mean} = 0.0;`);
  writer.line(`for (var i = lane; i < ${width}u; i += 64u) { ${mean} += bitcast<f32>(arena[${from} + i]); }`);
  writer.line(`${mean} = sumOf(lane, ${mean}) / ${width}.0;`);
  writer.line(`var ${squares} = 0.0;`);
  writer.line(`for (var i = lane; i < ${width}u; i += 64u) {`);
  writer.line(`  let centred = bitcast<f32>(arena[${from} + i]) - ${mean};`);
  writer.line(`  ${squares} += centred * centred;`);
  writer.line("}");
  const epsilon = floatLiteral(call.operands["epsilon"] as number);
  writer.line(`let ${scale} = 1.0 / sqrt(sumOf(lane, ${squares}) / ${width}.0 + ${epsilon});`);
  const normal = `(${writer.valueOf(x)} - ${mean}) * ${scale}`;
  writer.define(call.outputs[0] as RowNode, `${normal} * ${vectorAt(writer, weight)} + ${vectorAt(writer, bias)}`);
};

/** The row before, which is that of the state, where the own row then goes. */
function rowBefore(writer: ChannelWriter, previous: StateVector, value: string): string {
  const [before, place] = [writer.name(), writer.name()];
  writer.line(`let ${place} = state + ${writer.parameter(writer.operands.state(previous))} + c;`);
  writer.line(`var ${before} = 0.0;`);
  writer.line(`if (isInside) { ${before} = states[${place}]; states[${place}] = ${value}; }`);
  return before;
}

const tokenShift: ChannelKernel = ({ call, inputs, outputs }, writer) => {
  if (!call) return;
  const value = writer.valueOf(inputs[0] as RowNode);
  const before = rowBefore(writer, statesOf(call)[0] as StateVector, value);
  vectorsOf(call).forEach((factor, i) => {
    const result = call.outputs[i] as RowNode;
    if (!outputs.includes(result)) return;
    const share = writer.name();
    writer.line(`let ${share} = ${vectorAt(writer, factor)};`);
    writer.define(result, `${value} * ${share} + ${before} * (1.0 - ${share})`);
  });
};

const shiftDifference: ChannelKernel = ({ call, inputs }, writer) => {
  if (!call) return;
  const value = writer.valueOf(inputs[0] as RowNode);
  const before = rowBefore(writer, statesOf(call)[0] as StateVector, value);
  writer.define(call.outputs[0] as RowNode, `${before} - ${value}`);
};

/** WGSL for the sum of an expression over the lanes of a head, as a name. Heads are whole in the 64 channels. */
function headTotal(writer: ChannelWriter, size: number, expression: string): string {
  const [memory, sum] = [writer.shared("f32"), writer.name()];
  writer.line(`${memory}[lane] = select(0.0, ${expression}, isInside);`);
  writer.line("workgroupBarrier();");
  writer.line(`var ${sum} = 0.0;`);
  writer.line(`for (var i = 0u; i < ${size}u; i++) { ${sum} += ${memory}[lane / ${size}u * ${size}u + i]; }`);
  return sum;
}

function headSizeOf({ call, inputs }: FusedOperation): number {
  return (inputs[0] as RowNode).width / (call?.operands["heads"] as number);
}

const headSum: ChannelKernel = (operation, writer) => {
  const { call, inputs } = operation;
  const total = headTotal(writer, headSizeOf(operation), writer.valueOf(inputs[0] as RowNode));
  writer.define(call?.outputs[0] as RowNode, total);
};

const headNorm: ChannelKernel = (operation, writer) => {
  const { call, inputs } = operation;
  const size = headSizeOf(operation);
  const value = writer.valueOf(inputs[0] as RowNode);
  const centred = writer.name();
  writer.line(`let ${centred} = ${value} - ${headTotal(writer, size, value)} / ${size}.0;`);
  const squares = headTotal(writer, size, `${centred} * ${centred}`);
  const epsilon = floatLiteral(call?.operands["epsilon"] as number);
  writer.define(call?.outputs[0] as RowNode, `${centred} / sqrt(${squares} / ${size}.0 + ${epsilon})`);
};

const headNormalize: ChannelKernel = (operation, writer) => {
  const { call, inputs } = operation;
  const value = writer.valueOf(inputs[0] as RowNode);
  const squares = headTotal(writer, headSizeOf(operation), `${value} * ${value}`);
  const epsilon = floatLiteral(call?.operands["epsilon"] as number);
  writer.define(call?.outputs[0] as RowNode, `${value} / max(sqrt(${squares}), ${epsilon})`);
};

const quantizeRows: ChannelKernel = ({ call, inputs }, writer) => {
  const result = call?.outputs[0] as RowNode;
  const { scales } = quantizedRow((inputs[0] as RowNode).width);
  const value = writer.valueOf(inputs[0] as RowNode);
  const [memory, most, place] = [writer.shared("f32"), writer.name(), writer.name()];
  writer.line(`${memory}[lane] = ${value};`);
  writer.line("workgroupBarrier();");
  writer.line(`var ${most} = 0.0;`);
  writer.line(`for (var i = 0u; i < 32u; i++) { ${most} = max(${most}, abs(${memory}[(lane & 32u) + i])); }`);
  writer.line(`let ${place} = ${writer.parameter(writer.operands.value(result))} + row * ${result.width}u;`);
  writer.line("if ((lane & 3u) == 0u) {");
  writer.line(`  let four = vec4<f32>(${[0, 1, 2, 3].map((i) => `${memory}[lane + ${i}u]`).join(", ")});`);
  writer.line(`  let inverse = select(0.0, 127.0 / ${most}, ${most} > 0.0);`);
  writer.line("  let whole = vec4<u32>(vec4<i32>(round(four * inverse)) & vec4<i32>(255));");
  writer.line(`  arena[${place} + c / 4u] = whole.x | (whole.y << 8u) | (whole.z << 16u) | (whole.w << 24u);`);
  writer.line("}");
  writer.line(`if ((lane & 31u) == 0u) { arena[${place} + ${scales}u + c / 32u] = bitcast<u32>(${most} / 127.0); }`);
};

/** The recurrence wkv over one token. */
const wkv: ChannelKernel = (operation, writer) => {
  if (!operation.call) return;
  const { call, inputs, outputs, multiplier } = operation;
  const [k, v] = [writer.valueOf(inputs[0] as RowNode), writer.valueOf(inputs[1] as RowNode)];
  const factor = multiplier && writer.valueOf(multiplier);
  const [w, u] = vectorsOf(call).map((vector) => vectorAt(writer, vector)) as [string, string];
  const places = statesOf(call).map((state) => `state + ${writer.parameter(writer.operands.state(state))} + c`);
  const result = writer.name();
  writer.line(`var ${result} = 0.0;`);
  writer.line("if (isInside) {");
  for (const [i, name] of ["numerator", "denominator", "exponent"].entries()) {
    writer.line(`  let ${name} = states[${places[i]}];`);
  }
  writer.line(`  let first = ${u} + ${k};`);
  writer.line("  var most = max(exponent, first);");
  writer.line("  let past = expOf(exponent - most);");
  writer.line("  let present = expOf(first - most);");
  writer.line(`  ${result} = (past * numerator + present * ${v}) / (past * denominator + present);`);
  writer.line(`  let decayed = exponent + ${w};`);
  writer.line(`  most = max(decayed, ${k});`);
  writer.line("  let kept = expOf(decayed - most);");
  writer.line(`  let added = expOf(${k} - most);`);
  writer.line(`  states[${places[0]}] = kept * numerator + added * ${v};`);
  writer.line(`  states[${places[1]}] = kept * denominator + added;`);
  writer.line(`  states[${places[2]}] = most;`);
  writer.line("}");
  writer.define(outputs[0] as RowNode, factor === undefined ? result : `${result} * ${factor}`);
};

/** A value of each lane in the memory of the workgroup, where the others of its head read it. */
function share(writer: ChannelWriter, node: RowNode): string {
  const memory = writer.shared("f32");
  writer.line(`${memory}[lane] = ${writer.valueOf(node)};`);
  return memory;
}

/** The recurrence wkv6 over one token: a lane a column of a head's matrix. */
const wkv6: ChannelKernel = (operation, writer) => {
  const { call, inputs } = operation;
  const [decay, receptance, key, value, bonus] = inputs as [RowNode, RowNode, RowNode, RowNode, RowNode];
  const size = headSizeOf({ ...operation, inputs: [receptance] });
  const [w, r, k, u] = [decay, receptance, key, bonus].map((node) => share(writer, node));
  const v = writer.valueOf(value);
  const matrix = `state + ${writer.parameter(writer.operands.state(statesOf(call as Call)[0] as StateVector))}`;
  const result = writer.name();
  writer.line("workgroupBarrier();");
  writer.line(`var ${result} = 0.0;`);
  writer.line("if (isInside) {");
  writer.line(`  let head = lane / ${size}u * ${size}u;`);
  writer.line(`  for (var i = 0u; i < ${size}u; i++) {`);
  writer.line(`    let at = ${matrix} + (c / ${size}u * ${size}u + i) * ${size}u + c % ${size}u;`);
  writer.line("    let before = states[at];");
  writer.line(`    let added = ${k}[head + i] * ${v};`);
  writer.line(`    ${result} += ${r}[head + i] * (before + ${u}[head + i] * added);`);
  writer.line(`    states[at] = ${w}[head + i] * before + added;`);
  writer.line("  }");
  writer.line("}");
  writer.define(call?.outputs[0] as RowNode, result);
};

/**
 * The recurrence wkv7 over one token: a lane a row of a head's matrix. What the new row gives for the receptance follows from the old
 * one, so that one loop sums and another replaces.
 */
const wkv7: ChannelKernel = (operation, writer) => {
  const { call, inputs } = operation;
  const [receptance, decay, key, value, removal, replacement] = inputs as [
    ...[RowNode, RowNode, RowNode, RowNode, RowNode, RowNode],
  ];
  const size = headSizeOf(operation);
  const [r, w, k, a, b] = [receptance, decay, key, removal, replacement].map((node) => share(writer, node));
  const v = writer.valueOf(value);
  const matrix = `state + ${writer.parameter(writer.operands.state(statesOf(call as Call)[0] as StateVector))}`;
  const result = writer.name();
  writer.line("workgroupBarrier();");
  writer.line(`var ${result} = 0.0;`);
  writer.line("if (isInside) {");
  writer.line(`  let head = lane / ${size}u * ${size}u;`);
  writer.line(`  let at = ${matrix} + c * ${size}u;`);
  writer.line("  var removed = 0.0;");
  writer.line("  var replaced = 0.0;");
  writer.line("  var added = 0.0;");
  writer.line(`  for (var j = 0u; j < ${size}u; j++) {`);
  writer.line("    let old = states[at + j];");
  writer.line(`    let wanted = ${r}[head + j];`);
  writer.line(`    removed += old * ${a}[head + j];`);
  writer.line(`    ${result} += old * ${w}[head + j] * wanted;`);
  writer.line(`    replaced += ${b}[head + j] * wanted;`);
  writer.line(`    added += ${k}[head + j] * wanted;`);
  writer.line("  }");
  writer.line(`  ${result} += ${v} * added - removed * replaced;`);
  writer.line(`  for (var j = 0u; j < ${size}u; j++) {`);
  writer.line(
    `    states[at + j] = states[at + j] * ${w}[head + j] - removed * ${b}[head + j] + ${v} * ${k}[head + j];`,
  );
  writer.line("  }");
  writer.line("}");
  writer.define(call?.outputs[0] as RowNode, result);
};

export const channelKernels: ReadonlyMap<string, ChannelKernel> = new Map(
  Object.entries({
    elementwise,
    headNorm,
    headNormalize,
    headSum,
    layerNorm,
    quantizeRows,
    shiftDifference,
    tokenShift,
    wkv,
    wkv6,
    wkv7,
  }),
);
