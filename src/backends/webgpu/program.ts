// A plan as what a pass sends to the device: dispatches in their order. Operations of a step do not depend on each other, so those with the
// same shaders and weights in the same buffer are one dispatch, whose third dimension counts them.

import { BackendError } from "../../errors.js";
import type { Chain } from "../../graph/chains.js";
import type { FusedOperation } from "../../graph/fusion.js";
import type { RowNode } from "../../graph/graph.js";
import type { Plan } from "../../graph/plan.js";
import { regionInvocation, regionsOf } from "./channels.js";
import type { Operands } from "./operands.js";
import { elementwise } from "./operations/elementwise.js";
import { kernels } from "./operations/index.js";
import { type Invocation, parameterWindow, type Variant } from "./shader.js";

/** One or more operations that are carried out at once. */
export interface Dispatch {
  readonly over: Invocation["over"];
  /** The number of the buffer of weights that is bound. */
  readonly weights: number | undefined;
  /** Where its parameters are, in bytes. */
  readonly parameters: number;
  readonly variants: readonly Variant[];
  readonly count: number;
}

/** What passes are made of. */
export interface Program {
  readonly dispatches: readonly Dispatch[];
  /** The same for passes in which every sequence has one token. */
  readonly oneTokenEach: readonly Dispatch[];
  /** The parameters of all dispatches. */
  readonly parameters: Uint32Array<ArrayBuffer>;
}

/** Offsets of parameters are multiples of this on every device, in words. */
const alignment = 64;

/** @throws BackendError for an operation that there is no shader for */
export function programOf(plan: Plan, operands: Operands): Program {
  const words: number[] = [];
  const steps = plan.steps.map((step) =>
    groupsOf(invocationsOf(step, operands)).map((group) => dispatchOf(group, words)),
  );
  const oneTokenEach: Dispatch[] = [];
  const regions = new Map(regionsOf(plan).map((region) => [region.begin, region]));
  for (let step = 0; step < steps.length; step++) {
    const region = regions.get(step);
    if (!region) {
      oneTokenEach.push(...(steps[step] as Dispatch[]));
      continue;
    }
    const read = plan.steps.slice(region.end).flatMap((all) => all.flatMap(({ inputs }) => inputs));
    const later = new Set([...plan.roots, ...read]);
    const own = plan.steps.slice(region.begin, region.end);
    oneTokenEach.push(dispatchOf([regionInvocation(own, operands, (node) => later.has(node))], words));
    step = region.end - 1;
  }
  // A dispatch sees a window of the same size wherever its parameters are.
  const parameters = new Uint32Array(words.length + parameterWindow / 4);
  parameters.set(words);
  return { dispatches: steps.flat(), oneTokenEach, parameters };
}

/** The dispatch that carries out invocations at once, with its parameters behind those that there are. */
function dispatchOf(group: readonly Invocation[], words: number[]): Dispatch {
  const first = group[0] as Invocation;
  while (words.length % alignment !== 0) words.push(0);
  const parameters = words.length * 4;
  for (const { fields, variants } of group) {
    for (const name of (variants[0] as Variant).shader.fields) words.push(fields[name] ?? 0);
  }
  const variants = first.variants.map((variant, i) => ({
    ...variant,
    tiles: Math.max(...group.map((each) => (each.variants[i] as Variant).tiles)),
  }));
  return { over: first.over, weights: first.weights, parameters, variants, count: group.length };
}

function invocationsOf(step: readonly FusedOperation[], operands: Operands): Invocation[] {
  const invocations: Invocation[] = [];
  const chains = new Map<string, Chain[]>();
  for (const operation of step) {
    if (operation.chain) {
      const [{ rows, width }] = operation.outputs as readonly [RowNode];
      const shape = `${rows} ${width}`;
      chains.set(shape, [...(chains.get(shape) ?? []), operation.chain]);
      continue;
    }
    const { name } = operation.call.operation;
    const kernel = kernels.get(name);
    if (!kernel) throw new BackendError(`webgpu backend: there is no shader for the operation ${name}`);
    invocations.push(...kernel(operation, operands));
  }
  return [...invocations, ...[...chains.values()].map((alike) => elementwise(alike, operands))];
}

/** Those that one dispatch can carry out, together. */
function groupsOf(invocations: readonly Invocation[]): Invocation[][] {
  const open = new Map<string, Invocation[]>();
  const groups: Invocation[][] = [];
  for (const invocation of invocations) {
    const { over, weights, variants } = invocation;
    const { shader } = variants[0] as Variant;
    const key = `${over} ${weights} ${variants.map((variant) => variant.shader.code).join("")}`;
    let group = open.get(key);
    if (!group || (group.length + 1) * shader.fields.length * 4 > parameterWindow) {
      group = [];
      open.set(key, group);
      groups.push(group);
    }
    group.push(invocation);
  }
  return groups;
}
