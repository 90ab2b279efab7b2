// Files of questions: a JSON object a line.

import { RwkvError } from "../errors.js";

/** A line of a file. */
export interface EvaluationRecord {
  /** The file and the line, for errors. */
  readonly place: string;
  readonly fields: Readonly<{ [name: string]: unknown }>;
}

/**
 * The objects of a file; empty lines are left out.
 *
 * @param limit how many are wanted, at most
 * @throws RwkvError for a line that is no object, and where there is none at all
 */
export function recordsOf(file: string, text: string, limit = Number.POSITIVE_INFINITY): EvaluationRecord[] {
  const records: EvaluationRecord[] = [];
  for (const [i, line] of text.split("\n").entries()) {
    if (records.length >= limit) break;
    if (line.trim() === "") continue;
    const place = `${file}, line ${i + 1}`;
    const fields = parsed(line);
    if (typeof fields !== "object" || fields === null || Array.isArray(fields)) {
      throw new RwkvError(`${place}: expected a JSON object, found ${JSON.stringify(line.slice(0, 40))}`);
    }
    records.push({ place, fields: fields as EvaluationRecord["fields"] });
  }
  if (records.length === 0) throw new RwkvError(`${file}: expected a JSON object a line, found none`);
  return records;
}

/** @throws RwkvError unless the field is a text that is not empty */
export function textField({ place, fields }: EvaluationRecord, name: string): string {
  const value = fields[name];
  if (typeof value === "string" && value !== "") return value;
  throw new RwkvError(`${place}: field "${name}": expected a text that is not empty`);
}

function parsed(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}
