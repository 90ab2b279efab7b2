// /v1/batches: OpenAI's Batch API. A batch is a file of requests that are carried out when there is time.

import * as v from "valibot";
import { newBatch } from "../batches/batch-directory.js";
import { batchUrls } from "../batches/batch-lines.js";
import { type BatchRecord, batchObject, isFinal, toldBatch } from "../batches/batch-record.js";
import { ApiError } from "../errors.js";
import { type Call, type Route, withBody } from "../route.js";
import { optional, text } from "../schema.js";
import type { Services } from "../services.js";
import { pageOf } from "./files.js";

const body = v.object({
  input_file_id: text(),
  endpoint: v.picklist(batchUrls),
  completion_window: v.literal("24h"),
  metadata: optional(
    v.pipe(
      v.record(v.pipe(v.string(), v.maxLength(64)), v.pipe(v.string(), v.maxLength(512))),
      v.check((value) => Object.keys(value).length <= 16, "at most 16 pairs"),
    ),
  ),
});
const batchList = v.strictObject({
  object: v.literal("list"),
  data: v.array(batchObject),
  first_id: v.nullable(v.string()),
  last_id: v.nullable(v.string()),
  has_more: v.boolean(),
});

export function batches({ batches: kept, served, options }: Services): Route[] {
  if (!kept) return [];
  const { directory, runner } = kept;
  const find = async ({ owner, params }: Call<unknown>) => {
    const id = params["id"] ?? "";
    const record = await directory.read(id, owner);
    if (record) return record;
    const message = `there is no batch ${JSON.stringify(id.slice(0, 100))}`;
    throw new ApiError(404, message, { code: "batch_not_found" });
  };
  const told = async (record: BatchRecord) => {
    const isEnding = !isFinal(record) && (await directory.isToBeCancelled(record.id));
    return { ...toldBatch(record), ...(isEnding && { status: "cancelling" }) };
  };
  return [
    withBody({
      method: "post",
      path: "/v1/batches",
      summary: "Carry out a file of requests when there is time",
      body,
      answer: batchObject,
      handle: async ({ body: { input_file_id, endpoint, metadata }, owner }) => {
        await directory.files.find(owner, input_file_id, "input_file_id");
        await directory.makePlace(owner, options.limits.keptBatches);
        const files = { output: directory.files.newId(), errors: directory.files.newId() };
        const about = { owner, files, endpoint, model: served.id, input_file_id, metadata: metadata ?? null };
        const record = newBatch(directory.newId(), about);
        await directory.write(record);
        runner.add(record.id);
        return Response.json(toldBatch(record));
      },
    }),
    {
      method: "get",
      path: "/v1/batches",
      summary: "List batches",
      queryNames: ["limit", "after"],
      answer: batchList,
      handle: async ({ owner, query }) => {
        const own = (await directory.list()).filter((record) => record.owner === owner);
        return Response.json(pageOf(await Promise.all(own.map(told)), query));
      },
    },
    {
      method: "get",
      path: "/v1/batches/:id",
      summary: "Describe a batch",
      answer: batchObject,
      handle: async (call) => Response.json(await told(await find(call))),
    },
    {
      method: "post",
      path: "/v1/batches/:id/cancel",
      summary: "Carry out no more of a batch",
      answer: batchObject,
      handle: async (call) => {
        const record = await find(call);
        if (isFinal(record)) {
          throw new ApiError(409, `the batch is ${record.status} already`, { code: "batch_not_cancellable" });
        }
        await directory.askToCancel(record.id);
        return Response.json(await told(record));
      },
    },
  ];
}
