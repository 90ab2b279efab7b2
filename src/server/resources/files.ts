// /v1/files: inputs and outputs of batches.

import * as v from "valibot";
import type { FileRecord } from "../batches/file-store.js";
import { ApiError, invalidField } from "../errors.js";
import { type Route, withForm } from "../route.js";
import { type Described, optional, parseBody, wholeNumber } from "../schema.js";
import type { Services } from "../services.js";

const fileAnswer = v.strictObject({
  id: v.string(),
  object: v.literal("file"),
  bytes: wholeNumber(0),
  created_at: wholeNumber(0),
  expires_at: v.nullable(wholeNumber(0)),
  filename: v.string(),
  purpose: v.picklist(["batch", "batch_output"]),
  status: v.literal("processed"),
});
const fileList = v.strictObject({
  object: v.literal("list"),
  data: v.array(fileAnswer),
  first_id: v.nullable(v.string()),
  last_id: v.nullable(v.string()),
  has_more: v.boolean(),
});
const deletedFile = v.strictObject({ id: v.string(), object: v.literal("file"), deleted: v.literal(true) });

/** The query of lists: how many, and after which. */
export const pageQuery = v.object({
  limit: optional(
    v.pipe(
      v.string(),
      v.regex(/^\d{1,5}$/, "a number from 1 to 10000"),
      v.transform(Number),
      v.minValue(1),
      v.maxValue(10_000),
    ),
  ),
  after: optional(v.string()),
});

/** A part of a list, as OpenAI's API pages them. */
export function pageOf<Item extends { readonly id: string }>(
  all: readonly Item[],
  query: Readonly<Record<string, string>>,
) {
  const { limit = 20, after } = parseBody(pageQuery, query);
  const from = after === undefined ? 0 : all.findIndex(({ id }) => id === after) + 1;
  const data = all.slice(from, from + limit);
  return {
    object: "list" as const,
    data,
    first_id: data[0]?.id ?? null,
    last_id: data.at(-1)?.id ?? null,
    has_more: from + limit < all.length,
  };
}

export function files({ batches, options }: Services): Route[] {
  if (!batches) return [];
  const { files: store } = batches.directory;
  return [
    withForm({
      method: "post",
      path: "/v1/files",
      summary: "Keep a file of requests",
      maxFormBytes: options.limits.fileBytes,
      answer: fileAnswer,
      handle: async ({ body: form, owner }) => {
        const [file, purpose] = [form.get("file"), form.get("purpose")];
        if (purpose !== "batch") throw invalidField("purpose", 'expected "batch"');
        if (!(file instanceof Blob)) throw invalidField("file", "expected a file");
        const filename = "name" in file && typeof file.name === "string" ? file.name.slice(0, 200) : "file";
        const bytes = new Uint8Array(await file.arrayBuffer());
        const created_at = Math.floor(Date.now() / 1000);
        const record = { id: store.newId(), owner, filename, purpose: "batch" as const, created_at };
        return Response.json(toldFile(await store.add(record, bytes, options.limits.keptFiles)));
      },
    }),
    {
      method: "get",
      path: "/v1/files",
      summary: "List files",
      queryNames: ["limit", "after", "purpose"],
      answer: fileList,
      handle: async ({ owner, query }) => {
        const { purpose } = query;
        const all = (await store.list(owner)).filter((file) => purpose === undefined || file.purpose === purpose);
        return Response.json(pageOf(all.map(toldFile), query));
      },
    },
    {
      method: "get",
      path: "/v1/files/:id",
      summary: "Describe a file",
      answer: fileAnswer,
      handle: async ({ owner, params }) => Response.json(toldFile(await store.find(owner, params["id"] ?? ""))),
    },
    {
      method: "get",
      path: "/v1/files/:id/content",
      summary: "Download a file",
      contentTypes: ["application/jsonl"],
      handle: async ({ owner, params }) => {
        const { bytes, stream } = await store.content(owner, params["id"] ?? "");
        return new Response(stream, {
          headers: { "Content-Type": "application/jsonl", "Content-Length": String(bytes) },
        });
      },
    },
    {
      method: "delete",
      path: "/v1/files/:id",
      summary: "Delete a file",
      answer: deletedFile,
      handle: async ({ owner, params }) => {
        const id = params["id"] ?? "";
        await store.find(owner, id);
        if (await batches.directory.isRead(id)) {
          throw new ApiError(409, "a batch that has not ended needs the file: cancel it first", {
            code: "file_in_use",
          });
        }
        await store.delete(owner, id);
        return Response.json({ id, object: "file", deleted: true });
      },
    },
  ];
}

function toldFile({ id, bytes, created_at, expires_at, filename, purpose }: FileRecord): Described<typeof fileAnswer> {
  return {
    id,
    object: "file",
    bytes,
    created_at,
    expires_at: expires_at ?? null,
    filename,
    purpose,
    status: "processed",
  };
}
