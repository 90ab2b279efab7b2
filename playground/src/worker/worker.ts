// Everything that computes: the page calls, this answers (protocol.ts). Parts that few use are loaded when they are first called.

import type { CallName, Calls, ToPage, ToWorker } from "../protocol.js";
import { chat } from "./chat.js";
import { complete } from "./complete.js";
import { inspect } from "./inspect.js";
import { LoadedModel } from "./loaded-model.js";

/** What a call is given beside its input. */
export interface Context<Piece> {
  readonly loaded: LoadedModel;
  readonly signal: AbortSignal;
  send(piece: Piece): void;
}
type Handler<Name extends CallName> = (
  input: Calls[Name]["input"],
  context: Context<Calls[Name]["piece"]>,
) => Promise<Calls[Name]["output"]>;

const handlers: { readonly [Name in CallName]: Handler<Name> } = {
  inspect,
  load: (request, context) => context.loaded.load(request, context),
  library: async () => (await import("./library.js")).library(),
  keep: async (source, context) => (await import("./library.js")).keep(source, context),
  remove: async (names) => (await import("./library.js")).remove(names),
  chat,
  complete,
  explain: async (text, context) => (await import("./explain.js")).explainText(text, context),
  train: async (request, context) => (await import("./train.js")).train(request, context),
  bench: async (input, context) => (await import("./bench.js")).bench(input, context),
};

const loaded = new LoadedModel();
const running = new Map<number, AbortController>();
const post = (message: ToPage) => globalThis.postMessage(message);

globalThis.addEventListener("message", ({ data }: MessageEvent<ToWorker>) => {
  if ("abort" in data) running.get(data.id)?.abort();
  else void answer(data.id, data.call, data.input);
});

async function answer<Name extends CallName>(id: number, call: Name, input: Calls[Name]["input"]): Promise<void> {
  const controller = new AbortController();
  running.set(id, controller);
  const send = (piece: Calls[Name]["piece"]) => post({ id, piece });
  try {
    const handler: Handler<Name> = handlers[call];
    const output = await handler(input, { loaded, signal: controller.signal, send });
    post({ id, output });
  } catch (error) {
    const { name, message } = error instanceof Error ? error : new Error(String(error));
    post({ id, error: { name, message } });
  } finally {
    running.delete(id);
  }
}
