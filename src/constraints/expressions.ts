// What grammars are made of: expressions over characters and bytes, and rules, through which they may recur. Regular
// expressions, GBNF and JSON Schema are all turned into these, and `network.ts` turns them into nodes and edges.

/** A range of code points, both ends included. */
export type CodePointRange = readonly [low: number, high: number];

/** What leads from one node of a graph to another: an expression, a range of bytes, or nothing that is read. */
export interface Edge {
  readonly from: number;
  readonly to: number;
  readonly reads?: Expression | { readonly kind: "byte"; readonly low: number; readonly high: number };
}

/** A set of texts. */
export type Expression =
  /** One character out of ranges. */
  | { readonly kind: "characters"; readonly ranges: readonly CodePointRange[] }
  /** One of these texts. */
  | { readonly kind: "texts"; readonly texts: readonly string[] }
  /** One part after the other. */
  | { readonly kind: "sequence"; readonly parts: readonly Expression[] }
  /** One of the parts. */
  | { readonly kind: "alternatives"; readonly parts: readonly Expression[] }
  /** `min` to `max` times the body; `max` may be Infinity. */
  | { readonly kind: "repeat"; readonly body: Expression; readonly min: number; readonly max: number }
  /** What is read on a way from node 0 to one of the final nodes. */
  | {
      readonly kind: "graph";
      readonly nodes: number;
      readonly edges: readonly Edge[];
      readonly final: readonly number[];
    }
  /** What a rule describes, which may refer to itself. */
  | { readonly kind: "rule"; readonly rule: Rule };

/** A named expression. The body is set after the rule is made, so that rules can refer to each other. */
export interface Rule {
  readonly name: string;
  body: Expression;
}

export const maxCodePoint = 0x10ffff;

/** Every character. */
export const anyCharacter: Expression = { kind: "characters", ranges: [[0, maxCodePoint]] };

/** The empty text alone. */
export const empty: Expression = { kind: "sequence", parts: [] };

/** No text at all. */
export const nothing: Expression = { kind: "alternatives", parts: [] };

export function literal(text: string): Expression {
  return { kind: "texts", texts: [text] };
}

export function characters(...ranges: CodePointRange[]): Expression {
  return { kind: "characters", ranges };
}

/** One of the characters of a text. */
export function oneOfCharacters(text: string): Expression {
  return characters(
    ...Array.from(text, (c): CodePointRange => [c.codePointAt(0) as number, c.codePointAt(0) as number]),
  );
}

/** Texts that stand after each other are made one up to this length, so that doubling a part often costs nothing. */
const maxJoined = 1000;

/** One part after the other; strings stand for themselves. */
export function concatenation(...parts: readonly (Expression | string)[]): Expression {
  const joined: Expression[] = [];
  let text = "";
  const endText = () => {
    if (text !== "") joined.push(literal(text));
    text = "";
  };
  for (const part of parts) {
    const own = typeof part === "string" ? part : onlyText(part);
    if (own !== undefined && text.length + own.length <= maxJoined) text += own;
    else {
      endText();
      joined.push(typeof part === "string" ? literal(part) : part);
    }
  }
  endText();
  return joined.length === 1 ? (joined[0] as Expression) : { kind: "sequence", parts: joined };
}

/** The text of an expression that has only one and is written as one. */
function onlyText(expression: Expression): string | undefined {
  if (expression.kind === "texts" && expression.texts.length === 1) return expression.texts[0];
  if (expression.kind !== "characters" || expression.ranges.length !== 1) return undefined;
  const [low, high] = expression.ranges[0] as CodePointRange;
  return low === high && !isSurrogate(low) ? String.fromCodePoint(low) : undefined;
}

function isSurrogate(code: number): boolean {
  return code >= 0xd800 && code <= 0xdfff;
}

/** One of the parts. Texts among them become one part, which shares their beginnings. */
export function alternatives(parts: readonly Expression[]): Expression {
  const texts: string[] = [];
  const others: Expression[] = [];
  for (const part of parts) {
    if (part.kind === "texts") for (const text of part.texts) texts.push(text);
    else others.push(part);
  }
  if (texts.length > 0) others.push({ kind: "texts", texts });
  return others.length === 1 ? (others[0] as Expression) : { kind: "alternatives", parts: others };
}

export function repeat(body: Expression, min: number, max: number): Expression {
  return min === 1 && max === 1 ? body : { kind: "repeat", body, min, max };
}

export function optional(body: Expression): Expression {
  return repeat(body, 0, 1);
}

/** Ranges in ascending order that neither overlap nor touch. */
export function normalizeRanges(ranges: readonly CodePointRange[]): CodePointRange[] {
  const result: [number, number][] = [];
  for (const [low, high] of ranges.toSorted((a, b) => a[0] - b[0])) {
    const last = result.at(-1);
    if (last && low <= last[1] + 1) last[1] = Math.max(last[1], high);
    else result.push([low, high]);
  }
  return result;
}

/** All characters that are not in the ranges. */
export function complement(ranges: readonly CodePointRange[]): CodePointRange[] {
  const result: CodePointRange[] = [];
  let next = 0;
  for (const [low, high] of normalizeRanges(ranges)) {
    if (low > next) result.push([next, low - 1]);
    next = high + 1;
  }
  if (next <= maxCodePoint) result.push([next, maxCodePoint]);
  return result;
}

/** The characters that are in both. */
export function intersection(a: readonly CodePointRange[], b: readonly CodePointRange[]): CodePointRange[] {
  return complement([...complement(a), ...complement(b)]);
}
