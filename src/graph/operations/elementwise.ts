// Functions of one and two elements: a table of plain forms and gradients, from which their operations are made. Chains of them
// are fused into one record (chains.ts), so models may use as many as a formula has.
//
// An operand may have fewer rows or channels than the result: one row stands for all rows, and each of `width` elements of a row
// for as many consecutive channels as make up the result's width. So a vector is an operand for all rows, a row of as many floats
// as there are heads one for each head, and a constant one for everything.

import type { Call, NoGradient, RowNode, Shape } from "../graph.js";
import { operation, type TypedOperation } from "../operation.js";
import { type Rows, zeros } from "../rows.js";
import { constant } from "./leaves.js";

/** What a function's gradient is made of: its operands, its result, and the result's gradient. */
interface Unary {
  readonly a: RowNode;
  readonly result: RowNode;
  readonly gradient: RowNode;
}
interface Binary extends Unary {
  readonly b: RowNode;
}

interface UnaryFunction {
  readonly plain: (a: number) => number;
  readonly gradient: ((of: Unary) => RowNode) | NoGradient;
}

interface BinaryFunction {
  readonly plain: (a: number, b: number) => number;
  /** For a and for b. */
  readonly gradient: readonly [(of: Binary) => RowNode, (of: Binary) => RowNode] | NoGradient;
}

export type UnaryName =
  | "sigmoid"
  | "tanh"
  | "exp"
  | "negate"
  | "oneMinus"
  | "reluSquared"
  | "eluPlusOne"
  | "squareRoot"
  | "reciprocal";
export type BinaryName = "add" | "subtract" | "multiply" | "minimum" | "maximum";

const unaryFunctions: Readonly<Record<UnaryName, UnaryFunction>> = {
  sigmoid: {
    plain: (a) => 1 / (1 + Math.exp(-a)),
    gradient: ({ result, gradient }) => multiply(gradient, subtract(result, multiply(result, result))),
  },
  tanh: {
    plain: Math.tanh,
    gradient: ({ result, gradient }) => multiply(gradient, subtract(constant(1), multiply(result, result))),
  },
  exp: { plain: Math.exp, gradient: ({ result, gradient }) => multiply(gradient, result) },
  negate: { plain: (a) => -a, gradient: ({ gradient }) => negate(gradient) },
  oneMinus: { plain: (a) => 1 - a, gradient: ({ gradient }) => negate(gradient) },
  /** Of max(a, 0)^2 the derivative is 2 max(a, 0), which is twice the root of the result. */
  reluSquared: {
    plain: (a) => Math.max(a, 0) ** 2,
    gradient: ({ result, gradient }) => multiply(multiply(constant(2), squareRoot(result)), gradient),
  },
  /** Of exponential linear units, arXiv 1511.07289, one more: e^a below 0, a + 1 above. */
  eluPlusOne: {
    plain: (a) => (a > 0 ? a + 1 : Math.exp(a)),
    gradient: ({ result, gradient }) => multiply(minimum(result, constant(1)), gradient),
  },
  squareRoot: {
    plain: Math.sqrt,
    gradient: ({ result, gradient }) => multiply(gradient, multiply(constant(0.5), reciprocal(result))),
  },
  reciprocal: {
    plain: (a) => 1 / a,
    gradient: ({ result, gradient }) => negate(multiply(gradient, multiply(result, result))),
  },
};

const binaryFunctions: Readonly<Record<BinaryName, BinaryFunction>> = {
  add: { plain: (a, b) => a + b, gradient: [({ gradient }) => gradient, ({ gradient }) => gradient] },
  subtract: { plain: (a, b) => a - b, gradient: [({ gradient }) => gradient, ({ gradient }) => negate(gradient)] },
  multiply: {
    plain: (a, b) => a * b,
    gradient: [({ b, gradient }) => multiply(gradient, b), ({ a, gradient }) => multiply(gradient, a)],
  },
  minimum: { plain: (a, b) => Math.min(a, b), gradient: { none: "only gradients are made of it" } },
  maximum: { plain: (a, b) => Math.max(a, b), gradient: { none: "nothing that is trained has a limit" } },
};

type UnaryOperation = TypedOperation<{ readonly a: RowNode }, "result">;
type BinaryOperation = TypedOperation<{ readonly a: RowNode; readonly b: RowNode }, "result">;

const unaryOperations = Object.fromEntries(
  Object.entries(unaryFunctions).map(([name, fn]) => [name, unaryOperation(name, fn)]),
) as Readonly<Record<UnaryName, UnaryOperation>>;

const binaryOperations = Object.fromEntries(
  Object.entries(binaryFunctions).map(([name, fn]) => [name, binaryOperation(name, fn)]),
) as Readonly<Record<BinaryName, BinaryOperation>>;

function unary(name: UnaryName): (a: RowNode) => RowNode {
  return (a) => unaryOperations[name].apply({ a }).result;
}

function binary(name: BinaryName): (a: RowNode, b: RowNode) => RowNode {
  return (a, b) => binaryOperations[name].apply({ a, b }).result;
}

/** 1 / (1 + e^-a) */
export const sigmoid = unary("sigmoid");
export const tanh = unary("tanh");
/** e^a */
export const exp = unary("exp");
/** -a */
export const negate = unary("negate");
/** 1 - a */
export const oneMinus = unary("oneMinus");
/** max(a, 0)^2, arXiv 2109.08668. */
export const reluSquared = unary("reluSquared");
/** The exponential linear unit and 1: e^a below 0, a + 1 above. */
export const eluPlusOne = unary("eluPlusOne");
export const squareRoot = unary("squareRoot");
/** 1 / a */
export const reciprocal = unary("reciprocal");
/** a + b */
export const add = binary("add");
/** a - b */
export const subtract = binary("subtract");
/** a * b */
export const multiply = binary("multiply");
export const minimum = binary("minimum");
export const maximum = binary("maximum");

/** A function of one element by name; for functions of vectors, and for tests of all. */
export function applyUnary(name: UnaryName, a: RowNode): RowNode {
  return unary(name)(a);
}

/** The plain form of a function of one element. */
export function plainUnary(name: string): (a: number) => number {
  return unaryFunctions[name as UnaryName].plain;
}

/** The operands of a call, where it is the function of this name. */
export function operandsOfFunction(name: BinaryName, call: Call): { a: RowNode; b: RowNode } | undefined {
  return binaryOperations[name].operandsOf(call);
}

/** The gradient of a function of a vector for the vector, from the function's value and its gradient. */
export function unaryGradient(name: string, a: RowNode, result: RowNode, gradient: RowNode): RowNode {
  const rule = unaryFunctions[name as UnaryName].gradient;
  if (typeof rule !== "function") throw new RangeError(`${name} has no gradient: ${rule.none}`);
  return rule({ a, result, gradient });
}

function unaryOperation(name: string, { plain, gradient }: UnaryFunction): UnaryOperation {
  return operation(
    {
      name,
      inputs: ["a"],
      outputs: ["result"],
      shape: ({ a }) => ({ result: a }),
      reference: ({ a }) => ({ result: { ...a, values: a.values.map((value: number) => plain(value)) } }),
      gradient:
        typeof gradient !== "function"
          ? gradient
          : ({ operands: { a }, outputs, gradients }, context) => {
              const result = context.value(outputs.result);
              context.add(a, () => gradient({ a: context.value(a), result, gradient: gradients.result as RowNode }));
            },
    },
    name,
  );
}

function binaryOperation(name: string, { plain, gradient }: BinaryFunction): BinaryOperation {
  return operation(
    {
      name,
      inputs: ["a", "b"],
      outputs: ["result"],
      shape: ({ a, b }) => ({ result: commonShape(name, a, b) }),
      reference: ({ a, b }) => ({ result: zip(a, b, plain) }),
      gradient:
        "none" in gradient
          ? gradient
          : ({ operands: { a, b }, outputs, gradients }, context) => {
              const of = (rule: (of: Binary) => RowNode) => () => {
                const all = { a: context.value(a), b: context.value(b), result: context.value(outputs.result) };
                return rule({ ...all, gradient: gradients.result as RowNode });
              };
              context.add(a, of(gradient[0]));
              context.add(b, of(gradient[1]));
            },
    },
    name,
  );
}

/** The shape of a function's result; the smaller of each dimension must divide or be one for all. */
function commonShape(name: string, a: RowNode, b: RowNode): Shape {
  const [wide, narrow] = a.width >= b.width ? [a, b] : [b, a];
  if (a.rows !== b.rows && a.rows !== 1 && b.rows !== 1) {
    throw new RangeError(`${name}: rows of ${a.rows} and of ${b.rows}`);
  }
  if (wide.width % narrow.width !== 0) throw new RangeError(`${name}: rows of ${a.width} and of ${b.width} floats`);
  return { rows: a.rows === 1 ? b.rows : a.rows, width: wide.width };
}

function zip(a: Rows, b: Rows, plain: (a: number, b: number) => number): Rows {
  const out = zeros(Math.max(a.rows, b.rows), Math.max(a.width, b.width), a.values);
  const at = (x: Rows, t: number, c: number) =>
    x.values[(x.rows === 1 ? 0 : t * x.width) + Math.floor(c / (out.width / x.width))] as number;
  for (let t = 0; t < out.rows; t++) {
    for (let c = 0; c < out.width; c++) out.values[t * out.width + c] = plain(at(a, t, c), at(b, t, c));
  }
  return out;
}
