// How costs grow, as a page: theory and measurement in one table, and the curves.

import { plotCurves } from "./curves.js";
import { escapeHtml, exponentCell, exponentText, figure, htmlTable, reportPage } from "./report.js";
import type { ScalePoint, ScaleResult } from "./scale.js";

const measures: readonly {
  readonly title: string;
  readonly unit: string;
  readonly of: (point: ScalePoint) => number;
}[] = [
  { title: "A training step of one text", unit: "seconds", of: ({ step_seconds }) => step_seconds },
  { title: "Memory of that step", unit: "bytes", of: ({ step_bytes }) => step_bytes },
  { title: "Reading a prompt", unit: "seconds", of: ({ prefill_seconds }) => prefill_seconds },
  { title: "Generating the token after T", unit: "seconds", of: ({ token_seconds }) => token_seconds },
  { title: "The state of the sequence", unit: "bytes", of: ({ state_bytes }) => state_bytes },
];

export async function scaleReport(
  results: readonly ScaleResult[],
  setup: { readonly layers: number; readonly width: number; readonly threads: number },
): Promise<string> {
  const { layers, width, threads } = setup;
  const introduction =
    `Models of ${layers} layers x ${width}, alike but for how they mix over time, on texts of T tokens; the same kernels, ` +
    `${threads} threads, ` +
    "one run. Everything on this page was measured by <code>rwkv lab scale</code>.";
  const plots = await Promise.all(
    measures.map(async ({ title, unit, of }) => figure(await curves(results, unit, of), `${title}.`)),
  );
  return reportPage("How costs grow with the length of a text", introduction, [
    { title: "Exponents of T", body: `${explanation}${exponentTable(results)}` },
    { title: "The curves", body: plots.join("\n") },
    { title: "All figures", body: figureTable(results) },
  ]);
}

const explanation =
  "<p>Time and space of T tokens of width d, as the papers have them (s is a window), then of costs that grow as T to the " +
  "power of p: p as measured, fitted for T &ge; 1024 where there are such points, and in brackets as the papers " +
  "have it. Where a constant part weighs still, as the products of a token's matrices do beside attention, the measured " +
  "exponent is below the " +
  "theory and comes nearer with longer texts. Memory of a step is linear for all but AFT-full, which learns a bias for each of " +
  "T&sup2; pairs of positions: the kernels store no row of attention scores, where a Transformer that stores them takes " +
  "T&sup2;.</p>";

function exponentTable(results: readonly ScaleResult[]): string {
  return htmlTable(
    ["", "time, space", "training step", "prompt", "token", "carried along", "memory of a step"],
    results.map(({ title, paper, complexity, measured, theory }) => [
      `${escapeHtml(title)}<br><small>${escapeHtml(paper)}</small>`,
      `${complexity.time}<br>${complexity.space}`,
      exponentCell(measured.training, theory.training),
      exponentCell(measured.prefill, theory.training),
      exponentCell(measured.token, theory.token),
      exponentCell(measured.state, theory.state),
      exponentText(measured.memory),
    ]),
  );
}

function curves(results: readonly ScaleResult[], unit: string, of: (point: ScalePoint) => number): Promise<string> {
  const all = results.map(({ title, points }) => ({
    title,
    points: points.map((point) => ({ x: point.tokens, y: of(point) })),
  }));
  return plotCurves(all, { x: "T", y: unit, logarithmic: true });
}

function figureTable(results: readonly ScaleResult[]): string {
  const rows = results.flatMap(({ title, points }) =>
    points.map((point) => [
      escapeHtml(title),
      String(point.tokens),
      `${(point.step_seconds * 1000).toFixed(1)} ms`,
      `${(point.step_bytes / 1e6).toFixed(1)} MB`,
      `${(point.prefill_seconds * 1000).toFixed(1)} ms`,
      `${(point.token_seconds * 1e6).toFixed(0)} &micro;s`,
      `${(point.state_bytes / 1e3).toFixed(1)} kB`,
    ]),
  );
  return htmlTable(["", "T", "training step", "its memory", "prompt", "token", "carried along"], rows);
}
