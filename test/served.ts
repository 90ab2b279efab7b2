// A server of the embedded model for tests: a real one, over HTTP.

import OpenAI from "openai";
import { type LoadOptions, load, type Model } from "rwkv";
import { type App, type AppOptions, createApp, type Listening, type ListenOptions, listen } from "rwkv/server";

export interface Served {
  readonly model: Model;
  readonly app: App;
  readonly server: Listening;
  readonly url: string;
  readonly client: OpenAI;
  /** Posts JSON, or a body as it is. */
  post(path: string, body: unknown, init?: RequestInit): Promise<Response>;
  /** The values of metrics, by name with labels. */
  metrics(): Promise<Map<string, number>>;
  close(): Promise<void>;
}

/** @param key the API key that the client sends */
export async function served(
  options: AppOptions = {},
  {
    listening = {},
    loading = {},
    key = "none",
  }: { listening?: ListenOptions; loading?: LoadOptions; key?: string } = {},
): Promise<Served> {
  const model = await load(undefined, { threads: 1, ...loading });
  const app = createApp(model, { name: "tales", ...options });
  const server = await listen(app, { port: 0, ...listening });
  const { url } = server;
  const headers = { Authorization: `Bearer ${key}` };
  return {
    model,
    app,
    server,
    url,
    client: new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 }),
    post: (path, body, init = {}) =>
      fetch(url + path, {
        method: "POST",
        body: typeof body === "string" ? body : JSON.stringify(body),
        ...init,
        headers: { "Content-Type": "application/json", ...headers, ...init.headers },
      }),
    async metrics() {
      const text = await (await fetch(`${url}/metrics`, { headers })).text();
      return readMetrics(text);
    },
    async close() {
      await server.close();
      await model.dispose();
    },
  };
}

/** Reads Prometheus' text format. @throws Error for a line that is not of it */
export function readMetrics(text: string): Map<string, number> {
  const values = new Map<string, number>();
  const types = new Set<string>();
  for (const line of text.split("\n")) {
    if (line === "" || line.startsWith("# HELP ")) continue;
    const type = /^# TYPE (\w+) (counter|gauge|histogram|summary)$/.exec(line);
    if (type) {
      types.add(type[1]!);
      continue;
    }
    const [, name, labels = "", value] = /^(\w+)(\{(?:\w+="[^"\\]*",?)*\})? (\S+)$/.exec(line) ?? [];
    if (!name || ![name, name.replace(/_(bucket|sum|count)$/, "")].some((one) => types.has(one))) {
      throw new Error(`not a line of Prometheus' format: ${line}`);
    }
    values.set(name + labels, Number(value));
  }
  return values;
}
