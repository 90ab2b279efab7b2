// Which model writes: loaded in this page, or on a server; how loading goes; and what it says of itself.

import { computed, effect, signal } from "@preact/signals";
import { announce, quarterly } from "./announcements.js";
import { isBusy } from "./busy.js";
import { type Engine, localEngine } from "./engines/engine.js";
import { listModels, type ServerAddress, type ServerModel, serverEngine } from "./engines/server-engine.js";
import { callWorker, startWorker } from "./engines/worker-client.js";
import type { Backend, LoadRequest, ModelFacts } from "./protocol.js";
import { texts } from "./texts/texts.js";

/** What the page can write with now. */
export type ModelState =
  | { readonly kind: "loading"; readonly name: string; readonly share: number; readonly cancel: () => void }
  | { readonly kind: "local"; readonly facts: ModelFacts }
  | { readonly kind: "server"; readonly address: ServerAddress; readonly model: ServerModel }
  | {
      readonly kind: "failed";
      readonly name: string;
      readonly message: string;
      /** Whether what the browser kept of it was deleted, since it is no model or damaged. */
      readonly isDeleted?: boolean;
    };

/** The name of the model in the package, here and on servers. */
export const taleTeller = "rwkv-tales";

export const model = signal<ModelState>({ kind: "loading", name: taleTeller, share: 0, cancel: () => {} });

/** undefined while nothing can write. */
export const engine = computed<Engine | undefined>(() => {
  const { value } = model;
  if (value.kind === "local") return value.facts.tokenizer === undefined ? undefined : localEngine;
  return value.kind === "server" ? serverEngine(value.address, value.model.id) : undefined;
});

export const facts = computed<ModelFacts | undefined>(() =>
  model.value.kind === "local" ? model.value.facts : undefined,
);
export const isTaleTeller = computed(
  () => facts.value?.isEmbedded ?? (model.value.kind === "server" && model.value.model.id === taleTeller),
);

/** A GPU would be no faster with a model as small, and its shaders take longer to compile than the model to load. */
export const embedded: LoadRequest = { source: { kind: "embedded" }, dtype: "stored", backend: "wasm" };

/** A model that waits to be loaded until what is being written is done. */
export interface Waiting {
  readonly name: string;
  now(): void;
  cancel(): void;
}
export const waiting = signal<Waiting | undefined>(undefined);

/** Resolves when nothing is being written, or the user does not want to wait; with false where another model was chosen, or none. */
function untilIdle(name: string): Promise<boolean> {
  waiting.peek()?.cancel();
  if (!isBusy.peek()) return Promise.resolve(true);
  return new Promise((resolve) => {
    const end = (isWanted: boolean) => {
      stop();
      waiting.value = undefined;
      resolve(isWanted);
    };
    const own: Waiting = { name, now: () => end(true), cancel: () => end(false) };
    waiting.value = own;
    const stop = effect(() => {
      if (!isBusy.value) queueMicrotask(() => waiting.value === own && end(true));
    });
  });
}

let loadings = 0;
/** Of the model that is loaded, so that it can be loaded in another way. */
let loadedBy: LoadRequest = embedded;

/**
 * Loads a model into the page, once nothing is being written. Errors are a state that the page shows.
 *
 * @returns what it failed with
 */
export async function loadModel(request: LoadRequest, name: string): Promise<Error | undefined> {
  if (!(await untilIdle(name))) return undefined;
  const told = quarterly(() => texts.value.model.loading(name));
  const own = ++loadings;
  const controller = new AbortController();
  const loading = (share: number) => {
    if (own === loadings && !controller.signal.aborted) {
      if (name !== taleTeller) told(share);
      model.value = { kind: "loading", name, share, cancel: () => controller.abort(new Error("cancelled")) };
    }
  };
  loading(0);
  try {
    const loaded = await callWorker("load", request, {
      signal: controller.signal,
      onPiece: ({ done, total }) => loading(total > 0 ? done / total : 0),
    });
    if (own !== loadings) return undefined;
    loadedBy = request;
    model.value = { kind: "local", facts: loaded };
    if (name !== taleTeller) announce(texts.value.model.isLoaded(name));
    return undefined;
  } catch (error) {
    if (own !== loadings) return undefined;
    const isEmbedded = request.source.kind === "embedded";
    if (controller.signal.aborted && !isEmbedded) return loadModel(embedded, taleTeller);
    model.value = { kind: "failed", name, message: controller.signal.aborted ? "cancelled" : (error as Error).message };
    return error as Error;
  }
}

/** Loads the model that is loaded once more, to compute elsewhere. */
export async function computeWith(backend: Backend): Promise<void> {
  const { value } = model;
  if (value.kind === "local") await loadModel({ ...loadedBy, backend }, value.facts.name);
}

/** Writes with a server from now on. @throws Error where it does not answer */
export async function useServer(address: ServerAddress, wanted?: string): Promise<void> {
  const all = await listModels(address);
  const found = all.find(({ id }) => id === wanted) ?? all[0];
  if (!found) throw new Error(`${address.url}: the server lists no model`);
  loadings++;
  model.value = { kind: "server", address, model: found };
}

/** The API of the server that this page came from; undefined where that is a server of files alone. */
export const ownServer: string | undefined =
  document.querySelector('meta[name="rwkv-server"]')?.getAttribute("content") === "here"
    ? new URL("v1/", document.baseURI).href
    : undefined;

/** Begins with the model of the server that serves the page, where it has one of its own; else with the one in the page. */
export async function begin(): Promise<void> {
  startWorker();
  if (ownServer !== undefined) {
    const address = { url: ownServer, key: "" };
    // Where it wants a key, or is gone, the user may say so in the dialog of models.
    const [first] = await listModels(address).catch(() => []);
    if (first && first.id !== taleTeller) {
      model.value = { kind: "server", address, model: first };
      return;
    }
  }
  await loadModel(embedded, taleTeller);
}
