// Serial and parallel side by side, as a page.

import { svgPlot } from "../plots/svg-plot.js";
import type { ParallelResult } from "./parallel.js";
import { figure, htmlTable, ink, reportPage } from "./report.js";

export async function parallelReport(result: ParallelResult): Promise<string> {
  const { model, batch, context, threads, serial_seconds, parallel_seconds, speed_up, loss_difference } = result;
  const tokens = batch * context;
  const introduction =
    `An RWKV-4 of ${model} (layers x width x vocabulary) over the same ${batch} sequences of ${context} tokens, on ${threads} threads: once as ` +
    "it generates, a token of each sequence after another with its state handed on, and once as it trains, all tokens in one pass. " +
    "Everything on this page was measured by <code>rwkv lab parallel</code>.";
  const bars = [
    { how: "token by token", speed: tokens / serial_seconds },
    { how: "all at once", speed: tokens / parallel_seconds },
  ];
  const chart = await svgPlot((Plot) => ({
    width: 720,
    height: 150,
    marginLeft: 110,
    marginRight: 60,
    style: { background: "transparent", color: "currentColor", fontFamily: "system-ui, sans-serif", fontSize: "12px" },
    x: { label: "tokens per second, losses only", grid: true },
    y: { label: null, domain: bars.map(({ how }) => how) },
    marks: [
      Plot.barX(bars, { x: "speed", y: "how", fill: ink.accent, inset: 3 }),
      Plot.text(bars, { x: "speed", y: "how", text: ({ speed }) => speed.toFixed(0), textAnchor: "start", dx: 4 }),
    ],
  }));
  const share = (result.wkv_share_of_step * 100).toFixed(1);
  return reportPage("Is training RWKV serial?", introduction, [
    {
      title: `No: ${speed_up.toFixed(1)} times as fast in parallel`,
      body:
        figure(
          chart,
          "Both run the same kernels. In parallel every matrix product takes all tokens at once; only wkv walks along time, and it does so for " +
            "all channels side by side.",
        ) +
        `<p>That walk, forward and back, takes ${share} % of a training step of ${result.step_seconds.toFixed(3)} s: found by training the ` +
        "same model with a sum in the place of wkv.</p>",
    },
    {
      title: "The same losses, the same gradients",
      body:
        `<p>The loss of no token differs by more than ${loss_difference.toExponential(1)} nats. The gradient of the parallel form tells how the ` +
        "loss changes when all weights move along a direction; the serial form, run a little before and a little after, tells the same:</p>" +
        htmlTable(
          ["direction", "parallel, by its gradient", "serial, by differences", "ratio"],
          result.directions.map(({ parallel, serial }, i) => [
            String(i + 1),
            parallel.toPrecision(5),
            serial.toPrecision(5),
            (parallel / serial).toFixed(4),
          ]),
        ),
    },
  ]);
}
