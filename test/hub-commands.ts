// Commands by which tests in pages start and steer a hub (hub-server.ts), which runs beside vitest's own server.

import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { type HubServer, startHub } from "./hub-server.js";

let hub: HubServer | undefined;
const big = new Uint8Array(9_000_000).map((_, i) => i ^ (i >>> 8) ^ (i >>> 16));

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
    hub = await startHub({ "odd.pth": odd, "big.bin": big, ...Object.fromEntries(sharded) });
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
  hubSum: async (): Promise<string> => createHash("sha256").update(big).digest("hex"),
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
    hubDamage: PageSide<typeof hubCommands.hubDamage>;
  }
}
