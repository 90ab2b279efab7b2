// A text explained, as a page.

import { svgPlot } from "../plots/svg-plot.js";
import type { Explanation, LayerExplanation } from "./explain.js";
import { escapeHtml, figure, htmlTable, ink, plotForScreens, reportPage } from "./report.js";

const fontStyle = { background: "transparent", color: "currentColor", fontFamily: "system-ui, sans-serif" } as const;

export async function explainReport(explanation: Explanation): Promise<string> {
  const { prompt, tokens, layers, model } = explanation;
  const names = tokens.map(({ text }, t) => `${t + 1} ${visible(text)}`);
  const introduction =
    `What <code>${escapeHtml(model)}</code> does with <q>${escapeHtml(prompt)}</q>, ` +
    `${tokens.length} tokens, from the empty state. Everything on this page was computed by <code>rwkv lab explain</code>.`;
  const maps = await Promise.all(layers.map((layer) => weightMap(layer, names)));
  return reportPage("What each token does in RWKV", introduction, [
    {
      title: "Which earlier tokens wkv looks at",
      body:
        "<p>Row by row: the weights that <i>wkv</i> puts on each token so far (equation 16 of arXiv 2305.13048), mean over " +
        "channels. " +
        "It is laid out as an attention map is; but no query takes part. How much a token weighs is decided by its own key " +
        "and by how long " +
        `ago it was.</p><div class="maps">${maps.join("\n")}</div>`,
    },
    {
      title: "How fast channels forget",
      body: figure(
        await plotForScreens((width) => halfLives(layers, width)),
        "Half-life of each channel in tokens, -ln 2 / w. Channels on the left see the last token or two, those on the " +
          "right whole texts.",
      ),
    },
    {
      title: "Receptance, key, value",
      body: figure(
        await strips(layers, names),
        "Mean over channels of r (how much of what is remembered comes through) and of k (the exponent that a token weighs " +
          "with), and the " +
          "root mean square of v (what it says); each from its least to its largest in that layer.",
      ),
    },
    { title: "The next token, layer by layer", body: predictionTable(explanation) },
  ]);
}

function weightMap(layer: LayerExplanation, names: readonly string[]): Promise<string> {
  const cells = layer.weights.flatMap((row, t) =>
    row.map((weight, s) => ({ at: names[t] as string, on: names[s] as string, weight })),
  );
  const size = Math.max(220, names.length * 14);
  return svgPlot((Plot) => ({
    title: `Layer ${layer.layer + 1}: ${(layer.reach.at(-1) as number).toFixed(1)} tokens back at the end`,
    width: size + 80,
    height: size + 80,
    marginLeft: 80,
    marginBottom: 80,
    style: { ...fontStyle, fontSize: "9px" },
    x: { label: null, domain: names, tickRotate: -90 },
    y: { label: null, domain: names },
    // Opacity, so that a weight of nothing is the ground, be it light or dark.
    opacity: { type: "sqrt", domain: [0, 1], range: [0.03, 1] },
    marks: [Plot.cell(cells, { x: "on", y: "at", fill: ink.accent, fillOpacity: "weight", inset: 0.5 })],
  })).then((svg) => `<div class="wide">${svg}</div>`);
}

function halfLives(layers: readonly LayerExplanation[], width: number): Promise<string> {
  const points = layers.flatMap(({ layer, half_lives }) =>
    half_lives.map((halfLife) => ({ layer: `layer ${layer + 1}`, halfLife: Math.min(1e4, Math.max(0.01, halfLife)) })),
  );
  return svgPlot((Plot) => ({
    width,
    height: 70 + 60 * layers.length,
    marginLeft: 60,
    marginBottom: 40,
    style: { ...fontStyle, fontSize: "11px" },
    x: {
      type: "log",
      label: "half-life in tokens",
      labelOffset: 36,
      grid: true,
      tickFormat: (tokens: number) => String(tokens),
    },
    y: { label: null, domain: layers.map(({ layer }) => `layer ${layer + 1}`) },
    marks: [Plot.tickX(points, { x: "halfLife", y: "layer", stroke: ink.accent, strokeOpacity: 0.6 })],
  }));
}

function strips(layers: readonly LayerExplanation[], names: readonly string[]): Promise<string> {
  const cells = layers.flatMap((layer) =>
    (["receptance", "key", "value"] as const).flatMap((what) => {
      const values = layer[what];
      const [least, most] = [Math.min(...values), Math.max(...values)];
      return values.map((value, t) => ({
        token: names[t] as string,
        row: `${what[0]}, layer ${layer.layer + 1}`,
        share: most > least ? (value - least) / (most - least) : 0,
      }));
    }),
  );
  return svgPlot((Plot) => ({
    width: Math.max(360, names.length * 26 + 90),
    height: layers.length * 3 * 16 + 110,
    marginLeft: 80,
    marginBottom: 80,
    style: { ...fontStyle, fontSize: "10px" },
    x: { label: null, domain: names, tickRotate: -60 },
    y: { label: null, domain: cells.filter(({ token }) => token === names[0]).map(({ row }) => row) },
    opacity: { domain: [0, 1], range: [0.03, 1] },
    marks: [Plot.cell(cells, { x: "token", y: "row", fill: ink.accent, fillOpacity: "share", inset: 0.5 })],
  }));
}

function predictionTable({ tokens, layers }: Explanation): string {
  const head = ["after", ...layers.map(({ layer }) => `layer ${layer + 1}`), "what followed"];
  const rows = tokens.map(({ text }, t) => [
    `<code>${escapeHtml(visible(text))}</code>`,
    ...layers.map(({ predictions }) => {
      const {
        text: predicted,
        probability,
        probability_of_next: next,
      } = predictions[t] as (typeof predictions)[number];
      const followed = next === undefined ? "" : `<br><small>what followed: ${percent(next)}</small>`;
      return `<code>${escapeHtml(visible(predicted))}</code> ${percent(probability)}${followed}`;
    }),
    `<code>${escapeHtml(visible(tokens[t + 1]?.text ?? ""))}</code>`,
  ]);
  return (
    "<p>The last norm and the head, applied to the residual stream after each layer: the most probable next token, and how " +
    "probable the one " +
    `was that did follow.</p>${htmlTable(head, rows)}`
  );
}

function percent(share: number): string {
  return `${(share * 100).toFixed(share < 0.0995 ? 1 : 0)} %`;
}

/** A token's text with its blanks seen. */
function visible(text: string): string {
  return text.replaceAll(" ", "␣").replaceAll("\n", "↵").replaceAll("\t", "⇥");
}
