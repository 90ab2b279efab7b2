// Looks at all lines of a batch before the first is carried out.

import { readBatchLine } from "./batch-lines.js";
import { readLines } from "./lines.js";

/** Requests of a batch, as OpenAI's API has it. */
const maxRequests = 50_000;
/** Problems of an input that are told. */
const maxProblems = 100;

/** What is wrong with a batch. */
export interface Problem {
  readonly code: string;
  readonly message: string;
  readonly line: number | null;
}

/**
 * Reads the lines of an input.
 *
 * @param endpoint where all of them must go
 * @param maxBytes of a line
 * @returns how many there are, and what is wrong with them
 */
export async function checkInput(
  path: string,
  endpoint: string,
  maxBytes: number,
): Promise<{ readonly total: number; readonly problems: readonly Problem[] }> {
  const problems: Problem[] = [];
  const ids = new Set<string>();
  for await (const line of readLines(path, { maxBytes })) {
    const asked = readBatchLine(line, maxBytes);
    const wrong = (code: string, message: string) => problems.push({ code, message, line: line.number });
    if (asked.kind === "problem") wrong(asked.code, asked.message);
    else if (asked.form === "plain")
      wrong("invalid_line", `line ${line.number}: expected custom_id, method, url and body`);
    else if (asked.url !== endpoint) wrong("mismatched_endpoint", `line ${line.number}: url: expected ${endpoint}`);
    else if (ids.has(asked.id ?? ""))
      wrong("duplicate_custom_id", `line ${line.number}: custom_id: is that of an earlier line`);
    ids.add(asked.id ?? "");
    if (problems.length >= maxProblems || ids.size > maxRequests) break;
  }
  if (ids.size > maxRequests)
    problems.push({ code: "too_many_requests", message: `expected at most ${maxRequests} lines`, line: null });
  if (ids.size === 0) problems.push({ code: "empty_file", message: "expected a line at least", line: null });
  return { total: ids.size, problems };
}
