// What an operation is: one descriptor, from which everything that enumerates operations is derived. It says what the operation
// takes and gives, its shape rule, its plain form, its gradient, and what the planner must know of its kernel. A new operation is
// a descriptor (operations/) and a kernel (kernels/); nothing else lists it.

import {
  type AttributeType,
  type Call,
  type Epilogue,
  type GradientContext,
  type MatrixUse,
  type NoGradient,
  type Operand,
  type Operation,
  operandName,
  type RowNode,
  type Shape,
  type Sharing,
  type StateVector,
  type Vector,
  type WeightNode,
} from "./graph.js";
import type { Floats, MatrixRows, PassInputs, Rows } from "./rows.js";

/** The name of an operand; one that begins with "..." is a list of any length. */
type Base<Name extends string> = Name extends `...${infer List}` ? List : Name;

/** Something for each name, a list where the name is of one. */
export type Named<Name extends string, T> = {
  readonly [Key in Name as Base<Key>]: Key extends `...${string}` ? readonly T[] : T;
};

/** The same, where some may be missing. */
export type NamedOptional<Name extends string, T> = {
  readonly [Key in Name as Base<Key>]: Key extends `...${string}` ? readonly (T | undefined)[] : T | undefined;
};

/** A call as the rule for its gradient sees it: operands and outputs by name. */
export interface DifferentiatedCall<Operands, Output extends string> {
  readonly operands: Operands;
  readonly outputs: Named<Output, RowNode>;
  /** The gradient of the loss for each output; missing for those that the loss does not depend on. */
  readonly gradients: NamedOptional<Output, RowNode>;
}

/** Operands as a graph has them. */
type GraphOperands<I extends string, V extends string, M extends string, S extends string, A extends string> = Named<
  I,
  RowNode
> &
  Named<V, Vector> &
  Named<M, WeightNode> &
  Named<S, StateVector> &
  Named<A, number>;

/** Operands as a plain form has them: values; states as offsets in a sequence's block, in floats. */
type PlainOperands<I extends string, V extends string, M extends string, S extends string, A extends string> = Named<
  I,
  Rows
> &
  Named<V, Floats> &
  Named<M, MatrixRows> &
  Named<S, number> &
  Named<A, number>;

/** A descriptor as it is written. Names are in the order in which a record has their addresses, states and attributes. */
export interface OperationDescriptor<
  I extends string,
  V extends string,
  M extends string,
  S extends string,
  A extends string,
  O extends string,
> {
  /** Also the name of its kernel (kernels/*.def). */
  readonly name: string;
  readonly inputs?: readonly I[];
  readonly vectors?: readonly V[];
  readonly matrices?: { readonly [Name in M]: MatrixUse };
  readonly states?: readonly S[];
  readonly attributes?: { readonly [Name in A]: AttributeType };
  readonly outputs: readonly O[];
  /** Whether it is no work at all: its value lies where its operand does. */
  readonly isLeaf?: boolean;
  /** Whether its value is put in its place before a pass. */
  readonly isGiven?: boolean;
  /** How threads share its work; left out where neighbours cannot make use of it. */
  readonly sharedBy?: Sharing;
  /** Inputs that are read, element by element, only before the same element of the output is written. */
  readonly inPlace?: { readonly output: Base<O>; readonly inputs: readonly I[] };
  /** Outputs that the kernel writes whether or not anyone reads them. */
  readonly alwaysWritten?: readonly O[];
  readonly epilogue?: Epilogue;
  /** Checks the operands, and gives the shape of each output. Throws a RangeError that names the operation. */
  shape(operands: GraphOperands<I, V, M, S, A>): Named<O, Shape>;
  /** The plain form: the definition that kernels are tested against. Outputs that only kernels need may be left out. */
  reference(operands: PlainOperands<I, V, M, S, A>, pass: PassInputs): Partial<Named<O, Rows>>;
  /** The rule for its gradient, or why there is none. */
  readonly gradient:
    | NoGradient
    | ((call: DifferentiatedCall<GraphOperands<I, V, M, S, A>, O>, context: GradientContext) => void);
}

/** An operation that graphs are built with. */
export interface TypedOperation<Operands, O extends string> extends Operation {
  /** Applies it to operands. */
  apply(operands: Operands): Named<O, RowNode>;
  /** The operands of a call, where it is one of this operation. */
  operandsOf(call: Call): Operands | undefined;
}

/** Makes an operation of its descriptor. */
export function operation<
  const I extends string = never,
  const V extends string = never,
  const M extends string = never,
  const S extends string = never,
  const A extends string = never,
  const O extends string = never,
>(
  descriptor: OperationDescriptor<I, V, M, S, A, O>,
  elementwise?: string,
): TypedOperation<GraphOperands<I, V, M, S, A>, O> {
  type Operands = GraphOperands<I, V, M, S, A>;
  const made: TypedOperation<Operands, O> = {
    name: descriptor.name,
    inputs: descriptor.inputs ?? [],
    vectors: descriptor.vectors ?? [],
    matrices: (descriptor.matrices ?? {}) as Readonly<Record<string, MatrixUse>>,
    states: descriptor.states ?? [],
    attributes: (descriptor.attributes ?? {}) as Readonly<Record<string, AttributeType>>,
    outputs: descriptor.outputs,
    isLeaf: descriptor.isLeaf ?? false,
    isGiven: descriptor.isGiven ?? false,
    sharedBy: descriptor.sharedBy,
    inPlace: descriptor.inPlace,
    alwaysWritten: descriptor.alwaysWritten ?? [],
    epilogue: descriptor.epilogue,
    elementwise,
    reference: descriptor.reference as Operation["reference"],
    gradient: descriptor.gradient as Operation["gradient"],
    apply(operands) {
      const shapes = descriptor.shape(operands);
      const call = makeCall(made, operands as Call["operands"], flatten<Shape>(descriptor.outputs, shapes));
      return outputsByName(call) as Named<O, RowNode>;
    },
    operandsOf: (call) => (call.operation === made ? (call.operands as unknown as Operands) : undefined),
  };
  return made;
}

/** A call of an operation, whose operands have been checked. */
function makeCall(operation: Operation, operands: Call["operands"], shapes: readonly Shape[]): Call {
  const outputs: RowNode[] = [];
  const call: Call = { operation, operands, outputs };
  shapes.forEach(({ rows, width }, output) => void outputs.push({ call, output, rows, width }));
  return call;
}

/** The same call with other inputs of the same shapes. */
export function copyCall(call: Call, replace: (input: RowNode) => RowNode): Call {
  const operands: Record<string, Operand> = { ...call.operands };
  for (const name of call.operation.inputs) {
    const key = operandName(name);
    const input = call.operands[key] as RowNode | readonly RowNode[];
    operands[key] = "call" in input ? replace(input) : input.map(replace);
  }
  return makeCall(call.operation, operands, call.outputs);
}

/** The outputs of a call by name. */
export function outputsByName(call: Call): Record<string, RowNode | readonly RowNode[]> {
  return byName(call.operation.outputs, call.outputs);
}

/** Values in the order of a call's outputs, by name: a list takes what the names beside it leave. */
export function byName<T>(names: readonly string[], values: readonly T[]): Record<string, T | readonly T[]> {
  const length = values.length - (names.length - 1);
  const result: Record<string, T | readonly T[]> = {};
  let at = 0;
  for (const name of names) {
    if (name.startsWith("...")) {
      result[name.slice(3)] = values.slice(at, at + length);
      at += length;
    } else result[name] = values[at++] as T;
  }
  return result;
}

/** What is given by name, in the order of the names. */
export function flatten<T>(names: readonly string[], named: object): T[] {
  const values = named as Record<string, T | readonly T[]>;
  return names.flatMap((name) =>
    name.startsWith("...") ? (values[name.slice(3)] as readonly T[]) : [values[name] as T],
  );
}
