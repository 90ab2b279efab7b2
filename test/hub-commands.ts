// Commands by which tests in pages start and steer a hub (hub-server.ts), which runs beside vitest's own server.

import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { type HubServer, startHub } from "./hub-server.js";

let hub: HubServer | undefined;
const big = new Uint8Array(9_000_000).map((_, i) => i ^ (i >>> 8) ^ (i >>> 16));

/** How the storage answers. */
interface StorageManner {
  /** Not at all. */
  readonly isSilent?: boolean;
  /** Pages of other origins may see of its headers only what they always may: no ETag and no Content-Range. */
  readonly isReserved?: boolean;
  readonly lastModified?: string;
  /** The size that it tells of any file, in bytes. */
  readonly size?: number;
  /** For any range it sends a few bytes. */
  readonly isShort?: boolean;
}

/** For `browser.commands` of a vitest project. */
export const hubCommands = {
  startHub: async (): Promise<string> => {
    await hub?.close();
    const fixtures = new URL("./fixtures/", import.meta.url);
    const sharded = readdirSync(new URL("odd-hugging-face", fixtures)).map((name) => [
      `sharded/${name}`,
      readFileSync(new URL(`odd-hugging-face/${name}`, fixtures)),
    ]);
    const odd = readFileSync(new URL("odd.pth", fixtures));
    const tale = readFileSync(new URL("../embedded/model.safetensors", import.meta.url));
    hub = await startHub({
      "odd.pth": odd,
      "big.bin": big,
      "tale.safetensors": tale,
      ...Object.fromEntries(sharded),
    });
    return hub.endpoint;
  },
  stopHub: async (): Promise<void> => {
    await hub?.close();
    hub = undefined;
  },
  hubSent: async (): Promise<number> => hub?.sent() ?? 0,
  /** Bytes of files from this one on are held back; null: none. */
  hubHold: async (_: unknown, from: number | null): Promise<void> => {
    if (hub) hub.heldFrom = from ?? Number.POSITIVE_INFINITY;
  },
  hubSum: async (): Promise<string> =>
    createHash("sha256")
      .update(hub?.files.get("big.bin") ?? big)
      .digest("hex"),
  /** Another content of big.bin, of the same size, in a commit of its own. */
  hubChange: async (): Promise<void> => {
    hub?.files.set(
      "big.bin",
      big.map((byte) => byte ^ 255),
    );
    if (hub) hub.commit = "89abcdef0123456789abcdef0123456789abcdef";
  },
  /** The requests of a method that have come. */
  hubAsked: async (_: unknown, method: string): Promise<number> =>
    hub?.requests.filter((request) => request.includes(` ${method} `)).length ?? 0,
  /** From now on the storage is as told. */
  hubStorage: async (_: unknown, how: StorageManner): Promise<void> => {
    if (!hub) return;
    hub.onStorage = (request, response) => {
      const isHead = request.method === "HEAD";
      if (how.isSilent) return true;
      if (how.isReserved) response.removeHeader("access-control-expose-headers");
      if (how.lastModified !== undefined) response.setHeader("last-modified", how.lastModified);
      if (isHead && how.size !== undefined) response.writeHead(200, { "content-length": `${how.size}` }).end();
      else if (how.isShort && !isHead) response.writeHead(206, { "content-length": "5" }).end("short");
      else return false;
      return true;
    };
  },
  /** From now on there is a tokenizer.json, which may not be read. */
  hubForbidTokenizer: async (): Promise<void> => {
    if (!hub) return;
    hub.onHub = ({ method, url }, response) => {
      if (!url?.endsWith("/tokenizer.json")) return false;
      response.writeHead(method === "HEAD" ? 200 : 403, { "content-length": "0" }).end();
      return true;
    };
  },
  /** From now on the storage sends zeros. */
  hubDamage: async (): Promise<void> => {
    if (!hub) return;
    hub.onStorage = (request, response) => {
      const [first, last] = /(\d+)-(\d+)/
        .exec(request.headers.range ?? "")
        ?.slice(1)
        .map(Number) ?? [0, 0];
      const range = `bytes ${first}-${last}/${big.length}`;
      response.writeHead(206, { "content-range": range }).end(new Uint8Array((last as number) - (first as number) + 1));
      return true;
    };
  },
};

type PageSide<Command> = Command extends (context: never, ...rest: infer Rest) => infer Result
  ? (...rest: Rest) => Result
  : never;

declare module "vitest/browser" {
  interface BrowserCommands {
    startHub: PageSide<typeof hubCommands.startHub>;
    stopHub: PageSide<typeof hubCommands.stopHub>;
    hubSent: PageSide<typeof hubCommands.hubSent>;
    hubHold: PageSide<typeof hubCommands.hubHold>;
    hubSum: PageSide<typeof hubCommands.hubSum>;
    hubChange: PageSide<typeof hubCommands.hubChange>;
    hubAsked: PageSide<typeof hubCommands.hubAsked>;
    hubStorage: PageSide<typeof hubCommands.hubStorage>;
    hubForbidTokenizer: PageSide<typeof hubCommands.hubForbidTokenizer>;
    hubDamage: PageSide<typeof hubCommands.hubDamage>;
  }
}
