// Operations of a step after another as one shader, for passes in which every sequence has one token: as long as operations share channels
// alike, a workgroup continues with its own 64 channels of a row and waits for no other, and what an operation gives another stays with the
// lane that has the channel. So a layer takes about half as many dispatches.

import type { FusedOperation } from "../../graph/fusion.js";
import type { RowNode } from "../../graph/graph.js";
import type { Plan } from "../../graph/plan.js";
import { type ChannelWriter, channelsTogether } from "./channel-writer.js";
import type { Operands } from "./operands.js";
import { channelKernels } from "./operations/channel-kernels.js";
import { type Invocation, makeShader, oneVariant, passLayout } from "./shader.js";
import { expFunction } from "./wgsl.js";

/** Steps that one shader carries out: from the first to before the end. */
interface Region {
  readonly begin: number;
  readonly end: number;
}

/** The steps of a plan that are one shader each, as far as there are shaders for all their operations. */
export function regionsOf(plan: Plan): Region[] {
  const regions: Region[] = [];
  const canJoin = (step: number) => (plan.steps[step] ?? []).every(hasCode);
  for (let begin = 0; begin < plan.steps.length; begin++) {
    if (!canJoin(begin)) continue;
    let end = begin + 1;
    while (end < plan.steps.length && plan.barriers[end - 1] !== "always" && canJoin(end)) end++;
    if (end > begin + 1) regions.push({ begin, end });
    begin = end - 1;
  }
  return regions;
}

function hasCode(operation: FusedOperation): boolean {
  const { outputs, chain, call } = operation;
  if (outputs.some(({ rows }) => rows !== "tokens")) return false;
  return chain !== undefined || channelKernels.has(call.operation.name);
}

/** The invocation that carries out some steps. @param isNeeded whether a value is read after them */
export function regionInvocation(
  steps: readonly (readonly FusedOperation[])[],
  operands: Operands,
  isNeeded: (node: RowNode) => boolean,
): Invocation {
  const operations = steps.flat();
  const [{ channels: width }] = operations as [FusedOperation];
  const writer = new RegionWriter(operands, width, isNeeded);
  const names: string[] = [];
  for (const operation of operations) {
    const kernel = operation.chain
      ? channelKernels.get("elementwise")
      : channelKernels.get(operation.call.operation.name);
    kernel?.(operation, writer);
    names.push(operation.kernel);
  }
  return writer.invocation(names.join(", "));
}

class RegionWriter implements ChannelWriter {
  readonly operands: Operands;
  readonly width: number;
  readonly #isNeeded: (node: RowNode) => boolean;
  readonly #fields = new Map<string, number>();
  readonly #expressions = new Map<RowNode, string>();
  readonly #declarations: string[] = [];
  readonly #lines: string[] = [];
  #names = 0;

  constructor(operands: Operands, width: number, isNeeded: (node: RowNode) => boolean) {
    this.operands = operands;
    this.width = width;
    this.#isNeeded = isNeeded;
  }

  parameter(value: number): string {
    const name = `f${this.#fields.size}`;
    this.#fields.set(name, value);
    return `p.${name}`;
  }

  valueOf(node: RowNode, repeat = 1): string {
    const known = this.#expressions.get(node);
    if (known !== undefined) return known;
    const channel = repeat === 1 ? "c" : `c / ${repeat}u`;
    const at = node.rows === 1 ? channel : `row * ${node.width}u + ${channel}`;
    const name = this.name();
    this.line(`var ${name} = 0.0;`);
    this.line(`if (isInside) { ${name} = bitcast<f32>(arena[${this.parameter(this.operands.value(node))} + ${at}]); }`);
    if (node.rows !== 1) this.#expressions.set(node, name);
    return name;
  }

  define(node: RowNode, expression: string): void {
    const name = this.name();
    this.line(`let ${name} = ${expression};`);
    this.#expressions.set(node, name);
    if (!this.#isNeeded(node)) return;
    const place = this.parameter(this.operands.value(node));
    const repeat = this.width / node.width;
    if (repeat === 1)
      this.line(`if (isInside) { arena[${place} + row * ${node.width}u + c] = bitcast<u32>(${name}); }`);
    else
      this.line(
        `if (isInside && c % ${repeat}u == 0u) { arena[${place} + row * ${node.width}u + c / ${repeat}u] = bitcast<u32>(${name}); }`,
      );
  }

  shared(type: string): string {
    const name = this.name();
    this.#declarations.push(`var<workgroup> ${name}: array<${type}, ${channelsTogether}>;`);
    return name;
  }

  name(): string {
    return `v${this.#names++}`;
  }

  line(text: string): void {
    this.#lines.push(`  ${text}`);
  }

  invocation(names: string): Invocation {
    const shader = makeShader({
      label: `one token each: ${names}`,
      fields: [...this.#fields.keys()],
      workgroup: channelsTogether,
      arena: "u32",
      sum: "f32",
      declarations: `${expFunction}
${this.#declarations.join("\n")}`,
      body: `
  let c = tile * ${channelsTogether}u + lane;
  let isInside = c < ${this.width}u;
  let state = given[${passLayout.segments + 2}u + 4u * row];
${this.#lines.join("\n")}`,
    });
    return {
      over: "tokens",
      weights: undefined,
      fields: Object.fromEntries(this.#fields),
      variants: oneVariant(shader, Math.ceil(this.width / channelsTogether)),
    };
  }
}
