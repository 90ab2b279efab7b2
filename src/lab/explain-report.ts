// A text explained, as a page.

import { svgPlot } from "../plots/svg-plot.js";
import type { Explanation } from "./explain.js";
import type { LayerExplanation } from "./explained-layer.js";
import { escapeHtml, figure, htmlTable, ink, plotForScreens, reportPage } from "./report.js";

const fontStyle = { background: "transparent", color: "currentColor", fontFamily: "system-ui, sans-serif" } as const;

export async function explainReport(explanation: Explanation): Promise<string> {
  const { prompt, tokens, layers, model } = explanation;
  const names = tokens.map(({ text }, t) => `${t + 1} ${visible(text)}`);
  const hasDeltaRule = layers.some((layer) => layer.delta_rule);
  const introduction =
    `What <code>${escapeHtml(model)}</code> does with <q>${escapeHtml(prompt)}</q>, ` +
    `${tokens.length} tokens, from the empty state. Everything on this page was computed by <code>rwkv lab explain</code>.`;
  return reportPage("What each token does in RWKV", introduction, [
    { title: "Which earlier tokens are looked at", body: await weightMaps(layers, names, hasDeltaRule) },
    ...(hasDeltaRule ? [{ title: "What is removed", body: await removalMaps(layers, names) }] : []),
    {
      title: "How fast channels forget",
      body: figure(
        await plotForScreens((width) => halfLives(layers, width)),
        `Half-life of each channel in tokens, ${hasDeltaRule ? "by the mean of ln w over the text" : "-ln 2 / w"}. Channels on ` +
          "the left see the last token or two, those on the right whole texts.",
      ),
    },
    {
      title: hasDeltaRule ? "Receptance, key, value, and the delta rule" : "Receptance, key, value",
      body: figure(await strips(layers, names), hasDeltaRule ? deltaRuleStripsCaption : stripsCaption),
    },
    { title: "The next token, layer by layer", body: predictionTable(explanation) },
  ]);
}

const stripsCaption =
  "Mean over channels of r (how much of what is remembered comes through) and of k (the exponent that a token weighs with), and " +
  "the root mean square of v (what it says); each from its least to its largest in that layer.";

const deltaRuleStripsCaption =
  "Root mean squares of r (what is asked of the state), k and v (what is written to it); mean over channels of the decay w and of " +
  "the in-context learning rate a; the shares of the state that fade and that are removed. Each from its least to its largest in " +
  "that layer.";

async function weightMaps(
  layers: readonly LayerExplanation[],
  names: readonly string[],
  hasDeltaRule: boolean,
): Promise<string> {
  const maps = layers.map(({ layer, weights, reach, delta_rule: rule }) => {
    const subtracted = rule ? `, ${percent(rule.subtracted.at(-1) as number)} subtracted` : "";
    const title = `Layer ${layer + 1}: ${(reach.at(-1) as number).toFixed(1)} tokens back at the end${subtracted}`;
    return tokenMap(title, weights, names);
  });
  const about = hasDeltaRule
    ? "Row by row: what the values of each token so far weigh in what is read of the state (section 3 of arXiv 2503.14456): " +
      "exactly, by the product of the transition matrices of all tokens between. Weights are shown by their size, as shares of " +
      "the sum of a row, mean over heads; some are below zero. The norm and the bonus of the token itself come after."
    : "Row by row: the weights that <i>wkv</i> puts on each token so far (equation 16 of arXiv 2305.13048), mean over " +
      "channels. It is laid out as an attention map is; but no query takes part. How much a token weighs is decided by its own " +
      "key and by how long ago it was.";
  return `<p>${about}</p><div class="maps">${(await Promise.all(maps)).join("\n")}</div>`;
}

async function removalMaps(layers: readonly LayerExplanation[], names: readonly string[]): Promise<string> {
  const maps = layers.flatMap(({ layer, delta_rule: rule }) => {
    if (!rule) return [];
    const meanShare = (shares: readonly number[]) => percent(shares.reduce((sum, x) => sum + x, 0) / shares.length);
    const title = `Layer ${layer + 1}: a token removes ${meanShare(rule.removed)}, ${meanShare(rule.faded)} fades`;
    return [tokenMap(title, rule.removals, names)];
  });
  return (
    "<p>Before a token writes, it looks up its removal key in the state and takes away a share of what it finds. Row by row: the " +
    "values of which earlier tokens that is, by the size of their weights, as shares of the sum of a row, mean over heads. In the " +
    "titles: how much of the state is removed so, and how much fades by decay, mean over tokens and heads." +
    `</p><div class="maps">${(await Promise.all(maps)).join("\n")}</div>`
  );
}

/** A row for each token, a column for each that it has to do with. */
function tokenMap(title: string, rows: readonly (readonly number[])[], names: readonly string[]): Promise<string> {
  const cells = rows.flatMap((row, t) =>
    row.map((weight, s) => ({ at: names[t] as string, on: names[s] as string, weight })),
  );
  const size = Math.max(220, names.length * 14);
  return svgPlot((Plot) => ({
    title,
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
    stripsOf(layer).flatMap(({ name, values }) => {
      const [least, most] = [Math.min(...values), Math.max(...values)];
      return values.map((value, t) => ({
        token: names[t] as string,
        row: `${name}, layer ${layer.layer + 1}`,
        share: most > least ? (value - least) / (most - least) : 0,
      }));
    }),
  );
  const rows = cells.filter(({ token }) => token === names[0]).map(({ row }) => row);
  return svgPlot((Plot) => ({
    width: Math.max(360, names.length * 26 + 90),
    height: rows.length * 16 + 110,
    marginLeft: 110,
    marginBottom: 80,
    style: { ...fontStyle, fontSize: "10px" },
    x: { label: null, domain: names, tickRotate: -60 },
    y: { label: null, domain: rows },
    opacity: { domain: [0, 1], range: [0.03, 1] },
    marks: [Plot.cell(cells, { x: "token", y: "row", fill: ink.accent, fillOpacity: "share", inset: 0.5 })],
  }));
}

function stripsOf(layer: LayerExplanation): { name: string; values: readonly number[] }[] {
  const { receptance, key, value, delta_rule: rule } = layer;
  return [
    { name: "r", values: receptance },
    { name: "k", values: key },
    { name: "v", values: value },
    ...(rule
      ? [
          { name: "w", values: rule.decay },
          { name: "a", values: rule.learning_rate },
          { name: "faded", values: rule.faded },
          { name: "removed", values: rule.removed },
        ]
      : []),
  ];
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
