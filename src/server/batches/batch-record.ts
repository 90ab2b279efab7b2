// What is known of a batch, as OpenAI's API tells it and as it is kept.

import * as v from "valibot";
import { wholeNumber } from "../schema.js";
import { batchUrls } from "./batch-lines.js";

const time = v.nullable(wholeNumber(0));

/** What a batch looks like from outside. Times are in seconds since 1970. */
export const batchFields = {
  id: v.string(),
  object: v.literal("batch"),
  endpoint: v.picklist(batchUrls),
  model: v.string(),
  errors: v.nullable(
    v.strictObject({
      object: v.literal("list"),
      data: v.array(
        v.strictObject({
          code: v.string(),
          message: v.string(),
          param: v.nullable(v.string()),
          line: v.nullable(wholeNumber(1)),
        }),
      ),
    }),
  ),
  input_file_id: v.string(),
  completion_window: v.literal("24h"),
  status: v.picklist([
    "validating",
    "failed",
    "in_progress",
    "finalizing",
    "completed",
    "expired",
    "cancelling",
    "cancelled",
  ]),
  output_file_id: v.nullable(v.string()),
  error_file_id: v.nullable(v.string()),
  created_at: wholeNumber(0),
  in_progress_at: time,
  expires_at: wholeNumber(0),
  finalizing_at: time,
  completed_at: time,
  failed_at: time,
  expired_at: time,
  cancelling_at: v.null(),
  cancelled_at: time,
  request_counts: v.strictObject({ total: wholeNumber(0), completed: wholeNumber(0), failed: wholeNumber(0) }),
  metadata: v.nullable(v.record(v.string(), v.string())),
};

export const batchObject = v.strictObject(batchFields);
export type BatchObject = v.InferOutput<typeof batchObject>;

/** A batch as it is kept. */
export interface BatchRecord extends BatchObject {
  readonly owner: string;
  /** The ids that the files of its answers will have. */
  readonly files: { readonly output: string; readonly errors: string };
}

/** Whether nothing of a batch changes any more. */
export function isFinal({ status }: BatchObject): boolean {
  return ["failed", "completed", "expired", "cancelled"].includes(status);
}

/** A batch without what only the server knows. */
export function toldBatch({ owner: _, files: __, ...batch }: BatchRecord): BatchObject {
  return batch;
}

/** What is told of a batch: numbers and names of the server's own, nothing that a client wrote. */
export interface BatchEnding {
  readonly batchId: string;
  /** How it ended; the status in which it is where the server cannot end it, and tries again. */
  readonly status: string;
  /** Requests of it, and those that were answered, or refused. */
  readonly total: number;
  readonly completed: number;
  readonly failed: number;
  /** Seconds since it was made. */
  readonly seconds: number;
  /** What is wrong with its file, in one word each. */
  readonly codes?: readonly string[];
  /** What went wrong, where the server failed. */
  readonly error?: unknown;
}
