// Applications with a folder for batches, and what OpenAI's client asks of them.

import OpenAI, { toFile } from "openai";
import type { Model } from "rwkv";
import { type AppOptions, createApp, openBatchDirectory } from "rwkv/server";
import { expect, onTestFinished } from "vitest";

export type BatchAppOptions = AppOptions & { readonly bytes?: number };

/** An application with a folder for batches, and OpenAI's client of it. */
export async function openedBatches(model: Model, folder: string, { bytes, ...options }: BatchAppOptions = {}) {
  const batches = await openBatchDirectory(folder, { ...(bytes !== undefined && { bytes }) });
  const app = createApp(model, { name: "tales", batches, ...options });
  onTestFinished(() => app.close());
  const clientOf = (apiKey: string) =>
    new OpenAI({
      baseURL: "http://localhost/v1",
      apiKey,
      maxRetries: 0,
      fetch: async (url, init) => app.fetch(new Request(url, init)),
    });
  return { app, clientOf, client: clientOf("none") };
}

export const bodyOf = (i: number) => ({ prompt: `Tale ${i}: Once`, max_tokens: 6, seed: i });
export const lineOf = (i: number, more: object = {}) => ({
  custom_id: `tale-${i}`,
  method: "POST",
  url: "/v1/completions",
  body: { model: "tales", ...bodyOf(i), ...more },
});
export const jsonl = (values: readonly unknown[]) => values.map((value) => `${JSON.stringify(value)}\n`).join("");
export const upload = async (client: OpenAI, content: string) =>
  client.files.create({ file: await toFile(Buffer.from(content), "in.jsonl"), purpose: "batch" });
export const begin = (client: OpenAI, input_file_id: string) =>
  client.batches.create({
    input_file_id,
    endpoint: "/v1/completions",
    completion_window: "24h",
    metadata: { of: "tales" },
  });
/** The batch once it has ended. */
export async function ended(client: OpenAI, id: string): Promise<OpenAI.Batch> {
  const status = async () => (await client.batches.retrieve(id)).status;
  await expect.poll(status, { timeout: 50_000 }).toMatch(/^(failed|completed|expired|cancelled)$/);
  return client.batches.retrieve(id);
}
export const linesOf = async (client: OpenAI, id: string | null | undefined) =>
  id
    ? (await (await client.files.content(id)).text())
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line))
    : [];
