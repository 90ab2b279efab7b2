// The folder that reports go to: NAME.json, NAME.html, and index.html, which lays what is there side by side.

import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomically } from "#platform/file-writer";
import { overviewReport } from "./overview-report.js";
import { areFigures, type ReportFigures, type ReportName, reportNames } from "./report-figures.js";

/**
 * Writes figures as NAME.json and the page as NAME.html, and draws index.html anew.
 * @returns the paths of the page and of the overview
 */
export async function writeReport<Name extends ReportName>(
  folder: string,
  name: Name,
  figures: ReportFigures[Name],
  page: string,
): Promise<{ page: string; overview: string }> {
  await mkdir(folder, { recursive: true });
  const write = async (file: string, text: string): Promise<string> => {
    const path = join(folder, file);
    await writeFileAtomically(path, (to) => to.append(new TextEncoder().encode(text)));
    return path;
  };
  await write(`${name}.json`, `${JSON.stringify(figures, null, 1)}\n`);
  const path = await write(`${name}.html`, page);
  const all: Partial<Record<ReportName, unknown>> = {};
  for (const each of reportNames) all[each] = await readFigures(folder, each);
  return { page: path, overview: await write("index.html", overviewReport(all as Partial<ReportFigures>)) };
}

/** Figures that a command wrote; undefined where there are none, or what is there is something else. */
async function readFigures(folder: string, name: ReportName): Promise<unknown> {
  const text = await readFile(join(folder, `${name}.json`), "utf8").catch(() => undefined);
  if (text === undefined) return undefined;
  try {
    const found: unknown = JSON.parse(text);
    return areFigures(found, name) ? found : undefined;
  } catch {
    return undefined;
  }
}
