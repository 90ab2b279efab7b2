// Serial and parallel side by side, as a page.

import { svgPlot } from "../plots/svg-plot.js";
import type { ParallelResult, ParallelSetup } from "./parallel.js";
import { escapeHtml, figure, htmlTable, ink, narrowScreen, plotForScreens, reportPage } from "./report.js";

type Setup = Pick<ParallelSetup, "layers" | "width" | "vocabulary" | "batch" | "context" | "threads">;

export async function parallelReport(results: readonly ParallelResult[], setup: Setup): Promise<string> {
  const { layers, width, vocabulary, batch, context, threads } = setup;
  const introduction =
    `${results.map(({ title }) => escapeHtml(title)).join(", ")}, of ${layers}x${width}x${vocabulary} (layers x width x ` +
    `vocabulary), over the same ${batch} sequences of ${context} tokens, on ${threads} threads: once as it generates, a token ` +
    "of each sequence after another with its state handed on, and once as it trains, all tokens in one pass. " +
    "Everything on this page was measured by <code>rwkv lab parallel</code>.";
  const speedUps = results.map(({ one_text: { speed_up: speedUp } }) => speedUp);
  const [least, most] = [Math.min(...speedUps).toFixed(0), Math.max(...speedUps).toFixed(0)];
  return reportPage("Is training RWKV serial?", introduction, [
    {
      title: `No: one text is ${least === most ? least : `${least} to ${most}`} times as fast all at once`,
      body:
        figure(
          await plotForScreens((screen) => speedChart(results, setup, screen)),
          "Both run the same kernels. In parallel every matrix product takes all tokens at once; only the recurrence walks " +
            "along time, and it does so for all channels or heads side by side. Token by token, a product takes one token of " +
            "each text.",
        ) + stepTable(results, batch),
    },
    {
      title: "The same losses, the same gradients",
      body:
        "<p>The gradient of the parallel form tells how the loss changes when all weights move along a direction; the serial " +
        `form, run a little before and a little after, tells the same:</p>${results.map(gradientTable).join("\n")}`,
    },
  ]);
}

function speedChart(results: readonly ParallelResult[], { batch, context }: Setup, width: number): Promise<string> {
  const bars = results.flatMap((result) => {
    const { title, one_text: alone } = result;
    return [
      { how: `${title}, one text, serial`, speed: context / alone.serial_seconds },
      { how: `${title}, one text, parallel`, speed: context / alone.parallel_seconds },
      { how: `${title}, ${batch} texts, serial`, speed: (batch * context) / result.serial_seconds },
      { how: `${title}, ${batch} texts, parallel`, speed: (batch * context) / result.parallel_seconds },
    ];
  });
  return svgPlot((Plot) => ({
    width,
    height: 60 + 32 * bars.length,
    marginLeft: 165,
    marginRight: 50,
    marginBottom: 40,
    style: {
      background: "transparent",
      color: "currentColor",
      fontFamily: "system-ui, sans-serif",
      fontSize: "12px",
    },
    x: {
      label: "tokens per second, losses only",
      labelOffset: 36,
      grid: true,
      ticks: width === narrowScreen ? 2 : 6,
    },
    y: { label: null, domain: bars.map(({ how }) => how) },
    marks: [
      Plot.barX(bars, { x: "speed", y: "how", fill: ink.accent, inset: 3 }),
      Plot.text(bars, { x: "speed", y: "how", text: ({ speed }) => speed.toFixed(0), textAnchor: "start", dx: 4 }),
    ],
  }));
}

function stepTable(results: readonly ParallelResult[], batch: number): string {
  const head = ["", "one text, all at once", `${batch} texts, all at once`, "training step", "of it the recurrence"];
  const rows = results.map((result) => [
    escapeHtml(result.title),
    `${result.one_text.speed_up.toFixed(1)} times as fast`,
    `${result.speed_up.toFixed(1)} times as fast`,
    `${result.step_seconds.toFixed(3)} s`,
    `${(result.wkv_share_of_step * 100).toFixed(1)} %`,
  ]);
  return (
    `${htmlTable(head, rows)}<p>The share of the recurrence, forward and back, is found by training the same model with a sum ` +
    "in its place.</p>"
  );
}

function gradientTable(result: ParallelResult): string {
  const rows = result.directions.map(({ parallel, serial }, i) => [
    String(i + 1),
    parallel.toPrecision(5),
    serial.toPrecision(5),
    (parallel / serial).toFixed(5),
  ]);
  const head = ["direction", "parallel, by its gradient", "serial, by differences", "ratio"];
  return `<p>${escapeHtml(result.title)}: ${lossText(result)}</p>${htmlTable(head, rows)}`;
}

function lossText({ loss_difference: difference }: ParallelResult): string {
  return difference === 0
    ? "the loss of every token is the same to the bit."
    : `the loss of no token differs by more than ${difference.toExponential(1)} nats.`;
}
