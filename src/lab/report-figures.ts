// What the lab writes as JSON: figures of each command, those of architectures by their names.

import type { CompareResult } from "./compare.js";
import type { Explanation } from "./explain.js";
import type { ParallelResult } from "./parallel.js";
import type { ScaleResult } from "./scale.js";

/** Figures of several architectures, and what they were measured with. */
export interface FiguresByName<Result> {
  readonly setup: Readonly<Record<string, string | number | readonly number[]>>;
  readonly results: Readonly<Record<string, Result>>;
}

export interface ReportFigures {
  readonly train: FiguresByName<CompareResult>;
  readonly scale: FiguresByName<ScaleResult>;
  readonly parallel: FiguresByName<ParallelResult>;
  readonly explain: Explanation;
}

/** What can be reported. */
export type ReportName = keyof ReportFigures;

export const reportNames: readonly ReportName[] = ["train", "scale", "parallel", "explain"];

export function byName<Result extends { readonly name: string }>(results: readonly Result[]): Record<string, Result> {
  return Object.fromEntries(results.map((result) => [result.name, result]));
}

/** Whether something read from a file is figures of that kind: as far as the overview uses them. */
export function areFigures<Name extends ReportName>(found: unknown, name: Name): found is ReportFigures[Name] {
  if (!isRecord(found)) return false;
  if (name === "explain") return typeof found["prompt"] === "string";
  const { setup, results } = found;
  if (!isRecord(setup) || !isRecord(results) || Object.keys(results).length === 0) return false;
  return Object.values(results).every((result) => {
    if (name === "parallel" && isRecord(result)) {
      const { title, one_text: text, wkv_share_of_step: share } = result;
      return typeof title === "string" && isRecord(text) && [text["speed_up"], share].every(Number.isFinite);
    }
    if (!isRecord(result) || !Array.isArray(result["points"]) || result["points"].length === 0) return false;
    const last: unknown = result["points"].at(-1);
    const needed = name === "train" ? ["bits_per_byte"] : ["tokens", "token_seconds", "state_bytes"];
    if (!isRecord(last) || !needed.every((field) => Number.isFinite(last[field]))) return false;
    if (name === "train") return Number.isFinite(result["tokens_per_second"]);
    return isGrowth(result["measured"]) && isGrowth(result["theory"]);
  });
}

function isGrowth(found: unknown): boolean {
  return isRecord(found) && ["training", "token", "state"].every((of) => Number.isFinite(found[of]));
}

function isRecord(found: unknown): found is Record<string, unknown> {
  return typeof found === "object" && found !== null && !Array.isArray(found);
}
