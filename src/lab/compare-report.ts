// Architectures trained side by side, as a page.

import type { ComparePoint, CompareResult } from "./compare.js";
import { plotCurves } from "./curves.js";
import { escapeHtml, figure, htmlTable, reportPage } from "./report.js";

export async function compareReport(results: readonly CompareResult[], about: string): Promise<string> {
  const sorted = [...results].sort((a, b) => lastOf(a).bits_per_byte - lastOf(b).bits_per_byte);
  const introduction =
    `${escapeHtml(about)} The same embedding, head, tokens, optimizer and seed for all, and as many weights, within 3 %. ` +
    "Everything on this page was measured by <code>rwkv lab train</code>.";
  return reportPage("Architectures trained side by side", introduction, [
    {
      title: "Bits per byte of held-out text",
      body:
        figure(
          await curves(sorted, "tokens", ({ tokens }) => tokens),
          "Over tokens seen: what each makes of the same text.",
        ) +
        figure(
          await curves(sorted, "seconds of training", ({ seconds }) => seconds),
          "Over time: what each makes of the same machine.",
        ),
    },
    {
      title: "At the end",
      body: htmlTable(
        ["", "bits per byte", "weights", "hidden", "tokens/s in training"],
        sorted.map((result) => [
          `${escapeHtml(result.title)}<br><small>${escapeHtml(result.paper)}</small>`,
          lastOf(result).bits_per_byte.toFixed(4),
          result.parameters.toLocaleString("en"),
          String(result.hidden),
          result.tokens_per_second.toFixed(0),
        ]),
      ),
    },
  ]);
}

function lastOf({ points }: CompareResult): ComparePoint {
  return points.at(-1) as ComparePoint;
}

function curves(results: readonly CompareResult[], label: string, x: (point: ComparePoint) => number): Promise<string> {
  const all = results.map(({ title, points }) => ({
    title,
    points: points.map((point) => ({ x: x(point), y: point.bits_per_byte })),
  }));
  return plotCurves(all, { x: label, y: "bits per byte", logarithmic: false });
}
