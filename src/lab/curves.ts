// Curves of several architectures in one plot: each in its own colour on every page, named at its end.

import { svgPlot } from "../plots/svg-plot.js";
import { architectures } from "./architectures/index.js";
import { narrowScreen, plotForScreens } from "./report.js";

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
  "#c98a8f",
  "#b03a3a",
];

const height = 400;
const margins = { marginTop: 24, marginBottom: 40 } as const;
/** Pixels from one name to the next. */
const lineHeight = 15;

/** The plot as HTML. */
export function plotCurves(curves: readonly Curve[], axes: CurveAxes): Promise<string> {
  return plotForScreens((width) => drawCurves(curves, axes, width));
}

function drawCurves(curves: readonly Curve[], axes: CurveAxes, width: number): Promise<string> {
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
  const narrow = width === narrowScreen;
  const type = axes.logarithmic ? "log" : "linear";
  const xs = [...new Set(points.map(({ x }) => x))].sort((a, b) => a - b);
  const xTicks = xs.filter((_, i) => !narrow || (xs.length - 1 - i) % 2 === 0);
  return svgPlot((Plot) => ({
    ariaLabel: `${axes.y} over ${axes.x}`,
    width,
    height,
    ...margins,
    marginLeft: narrow ? 44 : 64,
    marginRight: narrow ? 108 : 130,
    style: {
      background: "transparent",
      color: "currentColor",
      fontFamily: "system-ui, sans-serif",
      fontSize: narrow ? "11px" : "12px",
    },
    x: { type, insetRight: 8 },
    y: {
      type,
      label: axes.y,
      domain,
      grid: true,
      ...(axes.logarithmic && { ticks: powersOfTen(domain), tickFormat: "~s" }),
    },
    color: { domain: architectures.map(({ title }) => title), range: [...colors] },
    marks: [
      // Its own text: a logarithmic scale's format would leave some of the given ticks without.
      axes.logarithmic
        ? Plot.axisX(xTicks, { label: axes.x, labelOffset: 36, text: String })
        : Plot.axisX({ label: axes.x, labelOffset: 36, ticks: narrow ? 4 : 8, tickFormat: "~s" }),
      Plot.lineY(points, { x: "x", y: "y", stroke: "title", strokeWidth: 2, marker: "dot" }),
      Plot.text(labels, { x: "x", y: "y", text: "title", fill: "title", textAnchor: "start", dx: 14 }),
    ],
  }));
}

/** Those in a domain, or its ends where there are fewer than two. */
function powersOfTen([low, high]: readonly [number, number]): number[] {
  const powers: number[] = [];
  for (let power = Math.ceil(Math.log10(low)); power <= Math.log10(high); power++) powers.push(10 ** power);
  return powers.length >= 2 ? powers : [low, high];
}

/** Values moved so far that names at them do not overlap. */
export function spread(values: readonly number[], domain: readonly [number, number], logarithmic: boolean): number[] {
  const [to, back] = logarithmic ? [Math.log, Math.exp] : [(y: number) => y, (y: number) => y];
  const [low, high] = [to(domain[0]), to(domain[1])];
  const plotHeight = height - margins.marginTop - margins.marginBottom;
  const order = values.map((value, i) => ({ i, at: ((to(value) - low) / (high - low)) * plotHeight }));
  order.sort((a, b) => a.at - b.at);
  // Upwards from the lowest, then down again from the top where that went too far.
  order.forEach((label, n) => {
    const below = order[n - 1];
    if (below) label.at = Math.max(label.at, below.at + lineHeight);
  });
  for (let n = order.length - 1, above = plotHeight + lineHeight; n >= 0; n--) {
    const label = order[n] as (typeof order)[number];
    above = label.at = Math.min(label.at, above - lineHeight);
  }
  const moved = new Array<number>(values.length);
  for (const { i, at } of order) moved[i] = back(low + (at / plotHeight) * (high - low));
  return moved;
}
