// The language that models are written in: a graph of operations over matrices whose rows are tokens. A model builds one
// once; the reference backend walks it as it stands, the kernel backends compile it to a plan. Nothing here computes, and nothing
// here knows an operation by name: what each takes and gives is in its descriptor (operation.ts).

import type { PassInputs, Rows } from "./rows.js";

/**
 * How many rows a value has in a pass: one for every token of the pass, one for every token whose logits are wanted, or the same
 * in every pass, as the gradient of a weight has.
 */
export type RowSet = "tokens" | "selected" | number;

/** The shape of a value. */
export interface Shape {
  readonly rows: RowSet;
  /** Floats in a row. */
  readonly width: number;
}

/** A weight that the checkpoint holds, by its canonical name. Vectors are small and computed with in float32. */
export interface WeightNode {
  readonly op: "matrix" | "vector";
  readonly name: string;
  /** Matrices: [outputs, inputs], row-major. Vectors: [length]; those that a state begins with have its dimensions. */
  readonly shape: readonly number[];
  /**
   * The fewest bits a weight that the matrix may be quantized to; 16: it is not quantized, as suits small matrices,
   * in which there is little to gain and much to lose. By default 4.
   */
  readonly fewestBits?: 4 | 8 | 16;
}

/** Floats that a sequence carries from token to token. */
export interface StateVector {
  /** Position among the graph's state vectors. */
  readonly index: number;
  /** Its dimensions; rows come one after another. */
  readonly shape: readonly number[];
  /** Floats in all: the product of the dimensions. */
  readonly width: number;
  /** What it is before the first token: the value of every element, or a weight that holds all of them. */
  readonly initial: number | WeightNode;
}

/** A vector weight, or a function of one, which is computed when the model is loaded. */
export type Vector =
  | WeightNode
  | {
      readonly op: "vectorFunction";
      /** The name of an elementwise function of one operand. */
      readonly function: string;
      readonly x: Vector;
      readonly shape: readonly number[];
    };

/**
 * What a kernel can do with a matrix: "product" takes any type, blocks of integers included; "table" takes rows of float32,
 * float16 or bfloat16; "float32" nothing else.
 */
export type MatrixUse = "product" | "table" | "float32";

/** The type as which a kernel reads an attribute: as an unsigned integer of 32 bits, or as a float32. */
export type AttributeType = "count" | "number";

/**
 * How threads share the work of a kernel. Operations that share channels alike need no barrier between them: "channels" always
 * does; "rows or channels" shares rows, and channels when there are fewer rows than threads, and needs whole rows before it;
 * "heads" shares heads, of which the operation has an attribute, and channels alike where the channels of a thread are whole
 * heads.
 */
export type Sharing = "channels" | "rows or channels" | "heads";

/** What may be done where a product is stored: an activation, then a factor, then a summand, each a row for every row. */
export interface Epilogue {
  readonly activations: readonly string[];
  readonly multiplier: boolean;
  readonly addend: boolean;
}

/** Why no gradient flows through an operation. */
export interface NoGradient {
  readonly none: string;
}

/** A descriptor as everything that walks graphs sees it. */
export interface Operation {
  readonly name: string;
  readonly inputs: readonly string[];
  readonly vectors: readonly string[];
  readonly matrices: Readonly<Record<string, MatrixUse>>;
  readonly states: readonly string[];
  readonly attributes: Readonly<Record<string, AttributeType>>;
  readonly outputs: readonly string[];
  readonly isLeaf: boolean;
  readonly isGiven: boolean;
  readonly sharedBy: Sharing | undefined;
  readonly inPlace: { readonly output: string; readonly inputs: readonly string[] } | undefined;
  readonly alwaysWritten: readonly string[];
  readonly epilogue: Epilogue | undefined;
  /** The name of the elementwise function that it is, if it is one. */
  readonly elementwise: string | undefined;
  reference(operands: never, pass: PassInputs): Partial<Record<string, Rows | readonly Rows[]>>;
  readonly gradient: NoGradient | ((call: never, context: GradientContext) => void);
}

/** What an operation may be given, by the name that its descriptor has for it. */
export type Operand = RowNode | Vector | StateVector | number | readonly RowNode[] | readonly Vector[];

/** An operation applied to operands. */
export interface Call {
  readonly operation: Operation;
  readonly operands: Readonly<Record<string, Operand>>;
  /** All values that it can give, in the descriptor's order; those that nobody needs are not computed. */
  readonly outputs: readonly RowNode[];
}

/** A value in a graph: one of the outputs of a call. */
export interface RowNode extends Shape {
  readonly call: Call;
  /** Position among the call's outputs. */
  readonly output: number;
}

/** What a rule for a gradient builds with. What is made is made only where it is needed. */
export interface GradientContext {
  /** The value of a node, to be used in gradients: computed again where checkpointing did not keep it. */
  value(node: RowNode): RowNode;
  /** Adds to the gradient of an input. */
  add(input: RowNode, make: () => RowNode): void;
  /** Adds to the gradient of a matrix: [outputs, inputs]. */
  addMatrix(weight: WeightNode, make: () => RowNode): void;
  /** Adds to the gradient of a vector: one row. */
  addVector(vector: Vector, make: () => RowNode): void;
  /** Adds to the gradient of the state that sequences begin with: one row. */
  addState(state: StateVector, make: () => RowNode): void;
}

/** A finished graph. */
export interface Graph {
  /** Logits: a row of `width` = vocabulary size for each selected token. */
  readonly output: RowNode;
  readonly weights: readonly WeightNode[];
  /** In the order in which a saved state holds them. */
  readonly stateVectors: readonly StateVector[];
  /**
   * Values that gradient checkpointing keeps, in order: everything between two of them can be recomputed from the first
   * (Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174).
   */
  readonly checkpoints: readonly RowNode[];
}

/** What a backend carries out: a graph, or some of its layers (split.ts). */
export interface GraphPart extends Pick<Graph, "weights" | "stateVectors"> {
  /** Logits, or the value that is handed on which needs all others. */
  readonly output: RowNode;
  /** Values that the layers before hand on to these. */
  readonly given?: readonly RowNode[];
  /** Values that these layers hand on; absent where they give logits. */
  readonly handedOn?: readonly RowNode[];
  /** Of a whole graph what each layer begins with; absent in some of its layers, which are not cut again. */
  readonly checkpoints?: readonly RowNode[];
}

/** The values that a pass is run for. */
export function rootsOf({ output, handedOn = [output] }: GraphPart): readonly RowNode[] {
  return handedOn;
}

/** The number of rows of a value: one for every token, one for every selected token, or a fixed number. */
export function shapeOf(rows: RowSet, width: number): Shape {
  return { rows, width };
}

/** The values that a call is computed from, in the descriptor's order. */
export function inputsOf({ operation, operands }: Call): readonly RowNode[] {
  return listed<RowNode>(operation.inputs, operands);
}

/** The vectors that a call takes. */
export function vectorsOf({ operation, operands }: Call): readonly Vector[] {
  return listed<Vector>(operation.vectors, operands);
}

/** The weight matrices that a call takes. */
export function matricesOf({ operation, operands }: Call): readonly WeightNode[] {
  return listed<WeightNode>(Object.keys(operation.matrices), operands);
}

/** The states that a call reads and leaves behind. */
export function statesOf({ operation, operands }: Call): readonly StateVector[] {
  return listed<StateVector>(operation.states, operands);
}

/** The operands of these names, lists element by element. */
function listed<T>(names: readonly string[], operands: Call["operands"]): readonly T[] {
  return names.flatMap((name) => operands[operandName(name)] as T | readonly T[]);
}

/** The name of an operand without the mark of a list. */
export function operandName(name: string): string {
  return name.startsWith("...") ? name.slice(3) : name;
}

/** The weight that a vector is a function of. */
export function weightOf(vector: Vector): WeightNode {
  return vector.op === "vectorFunction" ? weightOf(vector.x) : vector;
}

/** All nodes that the roots need, each after its inputs; what the first root needs comes first. */
export function topologicalOrder(...roots: readonly RowNode[]): RowNode[] {
  const order: RowNode[] = [];
  const seen = new Set<RowNode>();
  for (const root of roots) {
    if (seen.has(root)) continue;
    const stack: { inputs: readonly RowNode[]; node: RowNode; next: number }[] = [];
    const visit = (node: RowNode) => {
      seen.add(node);
      stack.push({ inputs: inputsOf(node.call), node, next: 0 });
    };
    visit(root);
    while (stack.length > 0) {
      const frame = stack[stack.length - 1] as (typeof stack)[number];
      const input = frame.inputs[frame.next++];
      if (input === undefined) {
        order.push(frame.node);
        stack.pop();
      } else if (!seen.has(input)) visit(input);
    }
  }
  return order;
}

/** The calls of nodes, each once, in the order of the first of its nodes. */
export function callsOf(nodes: readonly RowNode[]): Call[] {
  return [...new Set(nodes.map(({ call }) => call))];
}
