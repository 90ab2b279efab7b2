// Serial and parallel side by side, as a page.

import { svgPlot } from "../plots/svg-plot.js";
import type { ParallelResult } from "./parallel.js";
import { figure, htmlTable, ink, narrowScreen, plotForScreens, reportPage } from "./report.js";

export async function parallelReport(result: ParallelResult): Promise<string> {
  const { model, batch, context, threads, one_text: alone } = result;
  const tokens = batch * context;
  const introduction =
    `An RWKV-4 of ${model} (layers x width x vocabulary) over the same ${batch} sequences of ${context} tokens, on ` +
    `${threads} threads: once as ` +
    "it generates, a token of each sequence after another with its state handed on, and once as it trains, all tokens in " +
    "one pass. " +
    "Everything on this page was measured by <code>rwkv lab parallel</code>.";
  const bars = [
    { how: "one text, token by token", speed: context / alone.serial_seconds },
    { how: "one text, all at once", speed: context / alone.parallel_seconds },
    { how: `${batch} texts, token by token`, speed: tokens / result.serial_seconds },
    { how: `${batch} texts, all at once`, speed: tokens / result.parallel_seconds },
  ];
  const chart = (width: number) =>
    svgPlot((Plot) => ({
      width,
      height: 210,
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
        ticks: width === narrowScreen ? 3 : 6,
      },
      y: { label: null, domain: bars.map(({ how }) => how) },
      marks: [
        Plot.barX(bars, { x: "speed", y: "how", fill: ink.accent, inset: 3 }),
        Plot.text(bars, { x: "speed", y: "how", text: ({ speed }) => speed.toFixed(0), textAnchor: "start", dx: 4 }),
      ],
    }));
  const share = (result.wkv_share_of_step * 100).toFixed(1);
  return reportPage("Is training RWKV serial?", introduction, [
    {
      title: `No: one text is ${alone.speed_up.toFixed(0)} times as fast all at once`,
      body:
        figure(
          await plotForScreens(chart),
          "Both run the same kernels. In parallel every matrix product takes all tokens at once; only wkv walks along " +
            "time, and it does so for " +
            `all channels side by side. Token by token, a product takes one token of each text: ${batch} texts are then ` +
            `${result.speed_up.toFixed(1)} times as fast all at once.`,
        ) +
        `<p>That walk, forward and back, takes ${share} % of a training step of ${result.step_seconds.toFixed(3)} s: found ` +
        "by training the " +
        "same model with a sum in the place of wkv.</p>",
    },
    {
      title: "The same losses, the same gradients",
      body:
        `<p>${lossText(result)} The gradient of the parallel form tells how the ` +
        "loss changes when all weights move along a direction; the serial form, run a little before and a little after, " +
        "tells the same:</p>" +
        htmlTable(
          ["direction", "parallel, by its gradient", "serial, by differences", "ratio"],
          result.directions.map(({ parallel, serial }, i) => [
            String(i + 1),
            parallel.toPrecision(5),
            serial.toPrecision(5),
            (parallel / serial).toFixed(5),
          ]),
        ),
    },
  ]);
}

function lossText({ loss_difference: difference }: ParallelResult): string {
  return difference === 0
    ? "The loss of every token is the same to the bit."
    : `The loss of no token differs by more than ${difference.toExponential(1)} nats.`;
}
