// Schemas of objects: listed members in their order, each at most once, then others where they are allowed.

import {
  characters,
  complement,
  concatenation,
  type Edge,
  type Expression,
  intersection,
  literal,
  nothing,
  repeat,
} from "../expressions.js";
import { textsWithMatch } from "../regular-expressions.js";
import { type Schema, type SchemaObject, schemaError } from "./schema-keywords.js";
import { anyString, plainCharacter, plainRanges, writtenInString } from "./values.js";

/** What compiles the schemas of members. */
interface MemberCompiler {
  compile(schema: Schema, place: string): Expression;
}

/** Members that are not listed. */
interface OtherMembers {
  readonly key: Expression;
  readonly value: Expression;
}

/**
 * The objects of a schema. Members that are not listed come last; where the schema lists members and does not say that
 * there may be others, there are none.
 *
 * @throws OptionError for keywords that cannot be held to together
 */
export function compileObject(compiler: MemberCompiler, keywords: SchemaObject, place: string): Expression {
  const {
    required = [],
    minProperties = 0,
    maxProperties,
  } = keywords as {
    required?: string[];
    minProperties?: number;
    maxProperties?: number;
  };
  const members = listedMembers(keywords, place);
  const isRequired = new Set(required);
  const others = otherMembers(compiler, keywords, [...members.keys()], place);
  const optional = [...members.keys()].filter((name) => !isRequired.has(name));
  // What can be counted: members without choice, and then others. Two of the others may have one name, so of them
  // only the first adds to the least number.
  const max = maxProperties ?? Number.POSITIVE_INFINITY;
  const missing = Math.max(0, minProperties - isRequired.size);
  if (missing > 1 || (missing === 1 && optional.length > 0 && others !== undefined)) {
    throw schemaError(
      `${place}/minProperties`,
      String(minProperties),
      "at most one more than there are required members, listed or not",
    );
  }
  if (max < members.size && optional.length > 0) {
    throw schemaError(
      `${place}/maxProperties`,
      String(max),
      "as many as there are listed members, or none of these optional",
    );
  }
  if (isRequired.size > max || (missing === 1 && optional.length === 0 && !others)) return nothing;
  const mostOthers = others ? max - members.size : 0;
  if (missing === 1 && mostOthers < 1 && optional.length === 0) return nothing;

  // Nodes 3i, 3i + 1, 3i + 2: before member i, none read; some read; a comma read after them, or none needed.
  const edges: Edge[] = [];
  let i = 0;
  for (const [name, schema] of members) {
    const [none, some, ready, next] = [3 * i, 3 * i + 1, 3 * i + 2, 3 * i + 4];
    const value = compiler.compile(schema, `${place}/properties/${escapedPointer(name)}`);
    edges.push({ from: none, to: ready });
    edges.push({ from: some, to: ready, reads: literal(",") });
    edges.push({ from: ready, to: next, reads: concatenation(`${JSON.stringify(name)}:`, value) });
    if (!isRequired.has(name)) edges.push({ from: none, to: none + 3 }, { from: some, to: next });
    i++;
  }
  const [none, some, end] = [3 * i, 3 * i + 1, 3 * i + 2];
  const final = [end];
  if (others && mostOthers > 0) {
    const member = concatenation(others.key, ":", others.value);
    const further = concatenation(",", member);
    edges.push({ from: some, to: end, reads: repeat(further, missing, mostOthers) });
    edges.push({ from: none, to: end, reads: concatenation(member, repeat(further, 0, mostOthers - 1)) });
  } else edges.push({ from: some, to: end });
  if (missing === 0) final.push(none);
  return concatenation("{", { kind: "graph", nodes: 3 * i + 3, edges, final }, "}");
}

/** The members that a schema names, required ones included, with what their values must satisfy. */
function listedMembers(keywords: SchemaObject, place: string): Map<string, Schema> {
  const {
    properties = {},
    required = [],
    patternProperties = {},
    additionalProperties = true,
  } = keywords as {
    properties?: Record<string, Schema>;
    required?: string[];
    patternProperties?: Record<string, Schema>;
    additionalProperties?: Schema;
  };
  const members = new Map<string, Schema>();
  const names = [...new Set([...Object.keys(properties), ...required])];
  if (names.length > 10_000) throw schemaError(`${place}/properties`, `${names.length}`, "at most 10000 members");
  for (const name of names) {
    const own = Object.hasOwn(properties, name) ? [properties[name] as Schema] : [];
    const byPattern = Object.entries(patternProperties).filter(([pattern]) => matches(pattern, name, place));
    const all = [...own, ...byPattern.map(([, schema]) => schema)];
    if (all.length === 0) all.push(additionalProperties);
    const schema = all.length === 1 ? (all[0] as Schema) : { allOf: all };
    if (schema !== false || required.includes(name)) members.set(name, schema);
  }
  return members;
}

function matches(pattern: string, name: string, place: string): boolean {
  try {
    return new RegExp(pattern, "u").test(name);
  } catch {
    throw schemaError(`${place}/patternProperties`, JSON.stringify(pattern.slice(0, 60)), "a regular expression");
  }
}

/** Members beside the listed ones; undefined where there are to be none. */
function otherMembers(
  compiler: MemberCompiler,
  keywords: SchemaObject,
  names: readonly string[],
  place: string,
): OtherMembers | undefined {
  const {
    properties,
    patternProperties = {},
    additionalProperties,
    unevaluatedProperties,
    propertyNames,
  } = keywords as {
    properties?: Record<string, Schema>;
    patternProperties?: Record<string, Schema>;
    additionalProperties?: Schema;
    unevaluatedProperties?: boolean;
    propertyNames?: Schema;
  };
  const patterns = Object.entries(patternProperties);
  if (propertyNames !== undefined) {
    if (names.length > 0 || patterns.length > 0) {
      throw schemaError(place, 'the keyword "propertyNames" beside listed members', "one or the other");
    }
    if (additionalProperties === false || unevaluatedProperties === false) return undefined;
    const named = typeof propertyNames === "object" ? { type: "string", ...propertyNames } : propertyNames;
    const key = named === true ? anyString : compiler.compile(named, `${place}/propertyNames`);
    return { key, value: compiler.compile(additionalProperties ?? true, `${place}/additionalProperties`) };
  }
  if (patterns.length > 0) {
    if (patterns.length > 1) throw schemaError(`${place}/patternProperties`, `${patterns.length} patterns`, "one");
    const [[pattern, schema]] = patterns as [[string, Schema]];
    // A name that is listed and fits would have to be left out, which takes more than a pattern.
    if (schema === false || names.some((name) => matches(pattern, name, place))) return undefined;
    const key = concatenation('"', textsWithMatch(pattern, `schema${place}/patternProperties`, writtenInString), '"');
    return { key, value: compiler.compile(schema, `${place}/patternProperties/${escapedPointer(pattern)}`) };
  }
  if (unevaluatedProperties === false && additionalProperties === undefined) return undefined;
  const allowed = additionalProperties ?? (properties === undefined && names.length === 0);
  if (allowed === false) return undefined;
  const key = names.length === 0 ? anyString : nameBeside(names);
  return { key, value: compiler.compile(allowed, `${place}/additionalProperties`) };
}

/** All names but these, as strings without escapes, which could write one of them in another way. */
function nameBeside(names: readonly string[]): Expression {
  const edges: Edge[] = [];
  const final = new Set<number>();
  const [root, rest] = [0, 1];
  const next: Map<number, number>[] = [new Map(), new Map()];
  const isName = new Set<number>();
  for (const name of names) {
    let node = root;
    for (const character of name) {
      const code = character.codePointAt(0) as number;
      const children = next[node] as Map<number, number>;
      node = children.get(code) ?? next.push(new Map()) - 1;
      children.set(code, node);
    }
    isName.add(node);
  }
  const allBut = (codes: readonly number[]) =>
    characters(...intersection(plainRanges, complement(codes.map((code) => [code, code] as const))));
  next.forEach((children, node) => {
    if (!isName.has(node)) final.add(node);
    if (node === rest) edges.push({ from: rest, to: rest, reads: plainCharacter });
    else edges.push({ from: node, to: rest, reads: allBut([...children.keys()]) });
    for (const [code, child] of children) {
      const own = intersection(plainRanges, [[code, code]]);
      if (own.length > 0) edges.push({ from: node, to: child, reads: characters(...own) });
    }
  });
  const graph: Expression = { kind: "graph", nodes: next.length, edges, final: [...final] };
  return concatenation('"', graph, '"');
}

function escapedPointer(name: string): string {
  return name.slice(0, 60).replaceAll("~", "~0").replaceAll("/", "~1");
}
