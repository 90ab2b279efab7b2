// Imports in src/ go one way, from the parts that are above to those below (docs/architecture.md), and never in a circle.

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join, posix, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

/**
 * The parts of src/ from above to below: files and folders. A part imports from those that are below it, not from its neighbours.
 */
const layers: readonly (readonly string[])[] = [
  ["cli", "bundlers", "platform/implementations.ts"],
  ["lab"],
  ["bench", "evaluation"],
  ["training", "server", "index.ts"],
  ["load.ts"],
  ["open-runtime.ts", "load-coming.ts"],
  ["strategy.ts"],
  ["hub"],
  ["chat", "constraints"],
  ["generation", "loading-progress.ts"],
  ["models"],
  // In the folder of a platform, but above backends: which of them it has, and the script of its compute threads.
  ["platform/*/backends.ts", "platform/*/worker.ts"],
  ["backends"],
  ["graph"],
  ["checkpoints", "tokenizers", "sampling"],
  ["quantization", "checksum.ts", "interruptible.ts", "plots"],
  ["platform"],
  ["http"],
  [
    "byte-source.ts",
    "text-files.ts",
    "foreign-file.ts",
    "dtypes.ts",
    "stored-vocabulary.ts",
    "next-event-loop-turn.ts",
  ],
  ["errors.ts"],
];

/** Imports against this order that are known and are to go: never to be added to. */
const knownUpward: readonly string[] = [];

/** Files that import each other in a circle, known and to go: never to be added to. */
const knownCircles: readonly string[] = [];

const src = fileURLToPath(new URL("../src/", import.meta.url));
const files = readdirSync(src, { recursive: true, encoding: "utf8" })
  .filter((name) => name.endsWith(".ts"))
  .map((name) => name.replaceAll(sep, "/"));
const specifiers = new Map(files.map((file) => [file, specifiersIn(readFileSync(join(src, file), "utf8"))]));
const imports = new Map(files.map((file) => [file, specifiers.get(file)!.flatMap((name) => targets(file, name))]));

/** What a file imports and exports again, types included. */
function specifiersIn(source: string): string[] {
  const forms = /^(?:import|export|\})[^"]*\bfrom "([^"]+)";$|^import "([^"]+)";$|\bimport\("([^"]+)"\)/gm;
  return [...source.matchAll(forms)].map(([, from, alone, called]) => (from ?? alone ?? called) as string);
}

/** The files of src/ that a specifier in a file stands for. */
function targets(file: string, specifier: string): string[] {
  const [, platform] = /^#platform\/(.*)$/.exec(specifier) ?? [];
  if (platform !== undefined) return ["node", "browser"].map((name) => `platform/${name}/${platform}.ts`);
  if (!specifier.startsWith(".")) return [];
  return [posix.join(posix.dirname(file), specifier).replace(/\.js$/, ".ts")];
}

function partOf(file: string): string {
  const folder = file.split("/")[0] as string;
  const any = file.replace(/^platform\/(node|browser)\//, "platform/*/");
  const part = [any, folder].find((name) => layers.some((layer) => layer.includes(name)));
  if (part === undefined) throw new Error(`src/${file} is in no layer of this test: say where it belongs`);
  return part;
}

const layerOf = (part: string) => layers.findIndex((layer) => layer.includes(part));

test("what is imported exists, on both platforms", () => {
  const missing = [...imports].flatMap(([file, names]) =>
    names.filter((name) => !existsSync(join(src, name))).map((name) => `${file} -> ${name}`),
  );
  expect(missing).toEqual([]);
  expect([...imports.values()].flat().length).toBeGreaterThan(500); // or the pattern above finds no imports any more
});

test("imports go from above to below", () => {
  const upward = new Map<string, string[]>();
  for (const [file, names] of imports) {
    for (const name of names) {
      const [from, to] = [partOf(file), partOf(name)];
      if (from === to || layerOf(from) < layerOf(to)) continue;
      const edge = `${from} -> ${to}`;
      upward.set(edge, [...(upward.get(edge) ?? []), `${file} -> ${name}`]);
    }
  }
  const unknown = [...upward].filter(([edge]) => !knownUpward.includes(edge));
  expect(unknown).toEqual([]);
  expect(knownUpward.filter((edge) => !upward.has(edge))).toEqual([]); // what is gone leaves the list
});

test("no files import each other in a circle", () => {
  const circles = circlesIn(files, (file) => imports.get(file) ?? []).map((circle) => circle.sort().join(", "));
  expect(circles.sort()).toEqual(knownCircles);
});

test("packages that are imported are dependencies", () => {
  const manifest = JSON.parse(readFileSync(join(src, "../package.json"), "utf8"));
  const declared = Object.keys({ ...manifest.dependencies, ...manifest.peerDependencies });
  const used = [...specifiers.values()].flat().filter((name) => !/^([.#]|node:)/.test(name));
  const packages = used.map((name) => name.split("/", name.startsWith("@") ? 2 : 1).join("/"));
  expect([...new Set(packages)].sort()).toEqual(declared.sort());
});

/** Sets of nodes that lead to each other: strongly connected components of more than one (Tarjan, 1972). */
function circlesIn(nodes: readonly string[], next: (node: string) => readonly string[]): string[][] {
  const found: string[][] = [];
  const order = new Map<string, number>();
  const stack: string[] = [];
  const visit = (node: string): number => {
    const index = order.size;
    order.set(node, index);
    stack.push(node);
    let low = index;
    for (const other of next(node)) {
      if (!order.has(other)) low = Math.min(low, visit(other));
      else if (stack.includes(other)) low = Math.min(low, order.get(other)!);
    }
    if (low === index) {
      const circle = stack.splice(stack.indexOf(node));
      if (circle.length > 1) found.push(circle);
    }
    return low;
  };
  for (const node of nodes) if (!order.has(node)) visit(node);
  return found;
}

test("scripts import files that are there", () => {
  const root = fileURLToPath(new URL("../", import.meta.url));
  const scripts = ["bench", "deploy", "tools"].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(".mjs"))
      .map((name) => join(root, folder, name)),
  );
  expect(scripts.length).toBeGreaterThan(10);
  const missing = scripts.flatMap((script) =>
    specifiersIn(readFileSync(script, "utf8"))
      .filter((name) => name.startsWith(".") && !existsSync(join(script, "..", name)))
      .map((name) => `${script}: ${name}`),
  );
  expect(missing).toEqual([]);
});
