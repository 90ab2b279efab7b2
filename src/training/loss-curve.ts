// The curve of a run as SVG: bits per byte over steps, of what is learned from and of what is held out.

import { svgPlot } from "../plots/svg-plot.js";
import type { LogEntry } from "./run-folder.js";

/** Points that are drawn of the training loss; more are averaged. */
const points = 400;

interface Point {
  readonly step: number;
  readonly bits: number;
  readonly of: string;
}

/** @param log entries in the order of their steps */
export async function lossCurve(log: readonly LogEntry[]): Promise<string> {
  const trained = averaged(log.filter((entry) => entry["bits_per_byte"] !== undefined));
  const heldOut = log.flatMap((entry): Point[] => {
    const bits = entry["validation_bits_per_byte_of_all"] ?? entry["validation_bits_per_byte"];
    return typeof bits === "number" ? [{ step: entry.step, bits, of: "held out" }] : [];
  });
  // The first steps, where a model knows nothing yet, would press the rest flat.
  const most = trained[Math.floor(trained.length / 20)]?.bits ?? 8;
  const curve = await svgPlot((Plot) => ({
    width: 720,
    height: 400,
    marginLeft: 50,
    style: { background: "white", color: "#222", fontFamily: "system-ui, sans-serif", fontSize: "12px" },
    x: { label: "step" },
    y: {
      label: "bits per byte",
      grid: true,
      domain: [lowest([...trained, ...heldOut]), Math.max(most, 0.1)],
      clamp: true,
    },
    color: { domain: ["trained on", "held out"], range: ["#9db7d5", "#c2410c"], legend: false },
    marks: [
      Plot.lineY(trained, { x: "step", y: "bits", stroke: "of" }),
      Plot.lineY(heldOut, { x: "step", y: "bits", stroke: "of", strokeWidth: 2, marker: "dot" }),
      ...[trained.at(-1), heldOut.at(-1)].flatMap((point, i) =>
        point
          ? [Plot.text([point], { x: "step", y: "bits", text: label, textAnchor: "end", dy: i === 0 ? 26 : -14 })]
          : [],
      ),
    ],
  }));
  return `${curve}\n`;
}

function label({ of, bits }: Point): string {
  return `${of} ${bits.toFixed(3)}`;
}

function averaged(entries: readonly LogEntry[]): Point[] {
  const size = Math.max(1, Math.ceil(entries.length / points));
  const result: Point[] = [];
  for (let at = 0; at < entries.length; at += size) {
    const part = entries.slice(at, at + size);
    const bits = part.reduce((sum, entry) => sum + (entry["bits_per_byte"] as number), 0) / part.length;
    result.push({ step: part.at(-1)?.step as number, bits, of: "trained on" });
  }
  return result;
}

function lowest(all: readonly Point[]): number {
  const bits = all.reduce((least, point) => Math.min(least, point.bits), Number.POSITIVE_INFINITY);
  return Number.isFinite(bits) ? Math.floor(bits * 10) / 10 : 0;
}
