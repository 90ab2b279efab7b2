// What a compute shader is here: its WGSL, the fields of its parameters, and what all shaders are bound to. Everything is bound in the
// same way, so a pass changes pipelines and offsets of parameters and little else.

import type { RowSet } from "../../graph/graph.js";
import { type SumType, subgroupSum, workgroupSum } from "./wgsl.js";

/** The most tokens, sequences and selected rows of a pass. */
export const maxTokens = 128;

/**
 * Where a pass has its numbers, in words of 32 bits: how many tokens, selected rows and sequences there are; for each sequence its first
 * row, how many it has and where its state lies; the tokens; the sequence of each row; the selected rows.
 */
export const passLayout = {
  tokenCount: 0,
  selectedCount: 1,
  segmentCount: 2,
  segments: 4,
  tokens: 4 + 4 * maxTokens,
  sequences: 4 + 5 * maxTokens,
  selected: 4 + 6 * maxTokens,
  words: 4 + 7 * maxTokens,
} as const;

/** Bytes of the table of parameters that a dispatch sees. */
export const parameterWindow = 2048;

/** In place of an offset: there is no such operand. */
export const none = 0xffffffff;

/**
 * How the arena is seen: by floats, by vectors of four where all that a shader touches are whole ones, or by words where some are integers,
 * which as floats might not stay what they are.
 */
export type ArenaView = "f32" | "vec4<f32>" | "u32";

/** A compute shader. Two with the same code are the same pipeline. */
export interface Shader {
  /** The name of its operation and of what it is made for, for messages and for tools. */
  readonly label: string;
  readonly code: string;
  /** The same for a device with subgroups, where that is another. */
  readonly subgroupCode?: string;
  /** The names of its parameters, each a word of 32 bits; floats are given by `floatBits`. */
  readonly fields: readonly string[];
}

/** A way to carry out an operation: for up to so many rows. */
export interface Variant {
  readonly shader: Shader;
  readonly mostRows: number;
  /** Rows of one workgroup; the second dimension of the grid counts them. */
  readonly rowsPerGroup: number;
  /** The first dimension of the grid. */
  readonly tiles: number;
}

/** An operation on its operands. */
export interface Invocation {
  /** The rows that it gives, or "sequences" where it walks each by itself. */
  readonly over: RowSet | "sequences";
  /** The buffer of weights that it reads. */
  readonly weights: number | undefined;
  readonly fields: Readonly<Record<string, number>>;
  /** For ever more rows; the last for any number. */
  readonly variants: readonly Variant[];
}

/** What a shader is made of. */
export interface ShaderParts {
  readonly label: string;
  readonly fields: readonly string[];
  /** What the program adds up over a workgroup by `sumOf(lane, value)`. */
  readonly sum?: SumType;
  /** Lines before the program: constants, functions, memory of the workgroup. */
  readonly declarations?: string;
  /** Invocations of a workgroup. */
  readonly workgroup: number;
  /** The program; `p` are its parameters, `tile` and `row` its place in the grid, `lane` its place in the workgroup. */
  readonly body: string;
  readonly arena?: ArenaView;
  /** What lies where states do: floats, or the tokens that are chosen. */
  readonly states?: "f32" | "u32";
}

/** Puts a shader together. */
export function makeShader({
  label,
  fields,
  sum,
  declarations = "",
  workgroup,
  body,
  arena = "f32",
  states = "f32",
}: ShaderParts): Shader {
  const padding = Array.from({ length: -fields.length & 3 }, (_, i) => `padding${i}`);
  const all = [...fields, ...padding];
  const codeWith = (sumCode: string) => `// ${label}
struct Parameters { ${all.map((field) => `${field}: u32`).join(", ")} }
@group(0) @binding(0) var<storage, read_write> arena: array<${arena}>;
@group(0) @binding(1) var<uniform> table: array<Parameters, ${Math.floor(parameterWindow / (4 * all.length))}>;
@group(0) @binding(2) var<storage, read> vectors: array<f32>;
@group(0) @binding(3) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> states: array<${states}>;
@group(0) @binding(5) var<storage, read> given: array<u32>;
${sumCode}${declarations}
@compute @workgroup_size(${workgroup})
fn main(@builtin(workgroup_id) place: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let p = table[place.z];
  let tile = place.x;
  let row = place.y;
${body}
}
`;
  if (!sum) return { label, code: codeWith(""), fields: all };
  const code = codeWith(`${workgroupSum(workgroup, sum)}\n`);
  const subgroupCode = `enable subgroups;\n${codeWith(`${subgroupSum(workgroup, sum)}\n`)}`;
  return { label, code, subgroupCode, fields: all };
}

/** Where a pass has the number of rows of a value. */
export function rowCountAt(rows: Exclude<RowSet, number>): number {
  return rows === "tokens" ? passLayout.tokenCount : passLayout.selectedCount;
}

/** The only variant of an operation whose workgroups take a row each. */
export function oneVariant(shader: Shader, tiles: number): readonly Variant[] {
  return [{ shader, tiles, mostRows: Number.POSITIVE_INFINITY, rowsPerGroup: 1 }];
}
