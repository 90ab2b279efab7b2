// The overview of a folder of reports: what was measured of each architecture in one table, and where the rest is.

import { architectures } from "./architectures/index.js";
import { escapeHtml, exponentCell, htmlTable, reportPage } from "./report.js";
import type { FiguresByName, ReportFigures, ReportName } from "./report-figures.js";

/** @param figures of the commands that have been run */
export function overviewReport(figures: Partial<ReportFigures>): string {
  const introduction =
    "A recurrent network, a Transformer, linear attention, the Attention Free Transformer and RWKV: on the same kernels, " +
    "the same text, the same " +
    "machine. Everything here was measured by <code>rwkv lab</code>.";
  return reportPage(
    "RNN, Transformer, AFT, RWKV: side by side",
    introduction,
    [
      ...(figures.train || figures.scale
        ? [{ title: "Architectures", body: architectureTable(figures.train, figures.scale) }]
        : []),
      { title: "Reports", body: pages.map((page) => pageEntry(page, figures)).join("\n") },
    ],
    false,
  );
}

interface Page {
  readonly name: ReportName;
  readonly title: string;
  /** What is found there. */
  readonly about: (figures: Partial<ReportFigures>) => string | undefined;
}

const pages: readonly Page[] = [
  {
    name: "train",
    title: "Architectures trained side by side",
    about: ({ train }) => train && `Bits per byte of held-out text over tokens and over time: ${setupText(train)}.`,
  },
  {
    name: "scale",
    title: "How costs grow with the length of a text",
    about: ({ scale }) => scale && `Time and memory over T, and their exponents beside theory: ${setupText(scale)}.`,
  },
  {
    name: "parallel",
    title: "Is training RWKV serial?",
    about: ({ parallel }) =>
      parallel &&
      "No: with the same losses and gradients one text is computed all at once " +
        Object.values(parallel.results)
          .map(
            ({ title, one_text: { speed_up: speedUp }, wkv_share_of_step: share }) =>
              `${speedUp.toFixed(0)} times as fast as token by token by ${escapeHtml(title)}, whose recurrence takes ` +
              `${(share * 100).toFixed(1)} % of a training step`,
          )
          .join("; ") +
        `: ${setupText(parallel)}.`,
  },
  {
    name: "explain",
    title: "What each token does in RWKV",
    about: ({ explain }) =>
      explain && `Receptance, keys, values, decay and predictions for <q>${escapeHtml(explain.prompt)}</q>`,
  },
];

function pageEntry({ name, title, about }: Page, figures: Partial<ReportFigures>): string {
  const found = about(figures);
  return found === undefined
    ? `<p>${title}: <code>rwkv lab ${name}</code> has not been run for this folder.</p>`
    : `<p><a href="${name}.html">${title}</a><br>${found} <small><a href="${name}.json">JSON</a></small></p>`;
}

function setupText({ setup }: FiguresByName<unknown>): string {
  return Object.entries(setup)
    .map(([what, value]) => `${escapeHtml(what.replaceAll("_", " "))} ${escapeHtml(listed(value))}`)
    .join(", ");
}

function listed(value: string | number | readonly number[]): string {
  return Array.isArray(value) ? `${value[0]} to ${value.at(-1)}` : String(value);
}

function architectureTable(
  train: ReportFigures["train"] | undefined,
  scale: ReportFigures["scale"] | undefined,
): string {
  const longest = Math.max(...Object.values(scale?.results ?? {}).map(({ points }) => points.at(-1)?.tokens ?? 0));
  const trainHead = train ? ["bits per byte, held out", "tokens/s in training"] : [];
  const scaleHead = scale
    ? ["training step", "token", "state", `a token at T = ${longest}`, `state at T = ${longest}`]
    : [];
  const rows = architectures
    .filter(({ name }) => train?.results[name] || scale?.results[name])
    .map(({ name, title, paper }) => [
      `${escapeHtml(title)}<br><small>${escapeHtml(paper)}</small>`,
      ...(train ? trainCells(train.results[name]) : []),
      ...(scale ? scaleCells(scale.results[name]) : []),
    ]);
  const legend = scale
    ? "<p>Of the training step, the token and what is carried along: the exponent of T as measured, and in brackets as the " +
      "papers have it.</p>"
    : "";
  return `${legend}${htmlTable(["", ...trainHead, ...scaleHead], rows)}`;
}

function trainCells(result: ReportFigures["train"]["results"][string] | undefined): string[] {
  if (!result) return ["", ""];
  return [result.points.at(-1)?.bits_per_byte.toFixed(3) ?? "", result.tokens_per_second.toFixed(0)];
}

function scaleCells(result: ReportFigures["scale"]["results"][string] | undefined): string[] {
  const last = result?.points.at(-1);
  if (!result || !last) return ["", "", "", "", ""];
  const exponent = (of: "training" | "token" | "state") => exponentCell(result.measured[of], result.theory[of]);
  return [
    exponent("training"),
    exponent("token"),
    exponent("state"),
    `${(last.token_seconds * 1e6).toFixed(0)} &micro;s`,
    `${(last.state_bytes / 1e3).toFixed(1)} kB`,
  ];
}
