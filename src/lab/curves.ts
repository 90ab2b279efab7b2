// Curves of several architectures in one plot: each in its own colour on every page, named at its end.

import { svgPlot } from "../plots/svg-plot.js";
import { architectures } from "./architectures/index.js";

export interface Curve {
  readonly title: string;
  readonly points: readonly { readonly x: number; readonly y: number }[];
}

export interface CurveAxes {
  readonly x: string;
  readonly y: string;
  /** Both axes by powers, with a tick at each x. */
  readonly logarithmic: boolean;
}

/** Told apart on light and dark ground, and by those who see few colours; in the order of the architectures. */
const colors: readonly string[] = [
  "#8a8d94",
  "#b8912a",
  "#4f7fd6",
  "#2a8f9e",
  "#8a63c9",
  "#c2477f",
  "#5b9a45",
  "#9c6b4f",
  "#d9622b",
];

const height = 400;
const margins = { marginTop: 24, marginBottom: 36, marginLeft: 64, marginRight: 130 } as const;
/** Pixels from one name to the next. */
const lineHeight = 15;

export function plotCurves(curves: readonly Curve[], axes: CurveAxes): Promise<string> {
  const points = curves.flatMap(({ title, points: all }) => all.map((point) => ({ title, ...point })));
  const ys = points.map(({ y }) => y);
  const [least, most] = [Math.min(...ys), Math.max(...ys)];
  const domain: [number, number] = least < most ? [least, most] : [least * 0.9, most * 1.1];
  const ends = curves.map(({ title, points: all }) => ({ title, ...(all.at(-1) as Curve["points"][number]) }));
  const heights = spread(
    ends.map(({ y }) => y),
    domain,
    axes.logarithmic,
  );
  const lastX = Math.max(...ends.map(({ x }) => x));
  const labels = ends.map(({ title }, i) => ({ title, x: lastX, y: heights[i] as number }));
  const xs = [...new Set(points.map(({ x }) => x))];
  const type = axes.logarithmic ? "log" : "linear";
  return svgPlot((Plot) => ({
    ariaLabel: `${axes.y} over ${axes.x}`,
    width: 720,
    height,
    ...margins,
    style: { background: "transparent", color: "currentColor", fontFamily: "system-ui, sans-serif", fontSize: "12px" },
    x: axes.logarithmic
      ? { type, base: 2, label: axes.x, ticks: xs, tickFormat: String, insetRight: 8 }
      : { type, label: axes.x, insetRight: 8 },
    y: { type, label: axes.y, domain, grid: true, ...(axes.logarithmic && { tickFormat: "~s" }) },
    color: { domain: architectures.map(({ title }) => title), range: [...colors] },
    marks: [
      Plot.lineY(points, { x: "x", y: "y", stroke: "title", strokeWidth: 2, marker: "dot" }),
      Plot.text(labels, { x: "x", y: "y", text: "title", fill: "title", textAnchor: "start", dx: 14 }),
    ],
  }));
}

/** Values moved so far that names at them do not overlap. */
export function spread(values: readonly number[], domain: readonly [number, number], logarithmic: boolean): number[] {
  const [to, back] = logarithmic ? [Math.log, Math.exp] : [(y: number) => y, (y: number) => y];
  const [low, high] = [to(domain[0]), to(domain[1])];
  const room = height - margins.marginTop - margins.marginBottom;
  const order = values.map((value, i) => ({ i, at: ((to(value) - low) / (high - low)) * room }));
  order.sort((a, b) => a.at - b.at);
  // Upwards from the lowest, then down again from the top where that went too far.
  order.forEach((label, n) => {
    const below = order[n - 1];
    if (below) label.at = Math.max(label.at, below.at + lineHeight);
  });
  for (let n = order.length - 1, above = room + lineHeight; n >= 0; n--) {
    const label = order[n] as (typeof order)[number];
    above = label.at = Math.min(label.at, above - lineHeight);
  }
  const moved = new Array<number>(values.length);
  for (const { i, at } of order) moved[i] = back(low + (at / room) * (high - low));
  return moved;
}
