// Models that the browser keeps for this site: which there are, and those on their way. What is under way goes on while another model writes.

import { signal } from "@preact/signals";
import { announce, quarterly } from "./announcements.js";
import { callWorker } from "./engines/worker-client.js";
import { loadModel, model } from "./model-state.js";
import type { KeptModel, Library, LoadRequest, Source, Way } from "./protocol.js";
import { wayKey, ways } from "./settings.js";
import { texts } from "./texts/texts.js";

/** A model on its way into the browser's storage. */
export interface Keeping {
  readonly id: number;
  readonly name: string;
  readonly source: Source;
  readonly done: number;
  readonly total: number;
  /** Why it ended, where it did not succeed. */
  readonly error?: string;
  cancel(): void;
  again(): void;
  dismiss(): void;
}

/** undefined until it was asked for. */
export const library = signal<Library | undefined>(undefined);
export const keepings = signal<readonly Keeping[]>([]);

export async function refreshLibrary(): Promise<void> {
  library.value = await callWorker("library", null);
}

export async function removeKept({ files, from, title }: KeptModel): Promise<void> {
  await callWorker("remove", files);
  const { [wayKey(from, title)]: _, ...others } = ways.value;
  ways.value = others;
  announce(texts.value.model.isDeleted(title));
  await refreshLibrary();
}

let last = 0;

/**
 * Brings a model into the browser's storage; what had come of it before is not downloaded again.
 *
 * @param onKept called with its path
 */
export function keep(source: Source, name: string, onKept: (path: string) => void): void {
  const id = ++last;
  const told = quarterly(() => texts.value.model.keeping(name));
  const controller = new AbortController();
  const change = (part: Partial<Keeping>) => {
    keepings.value = keepings.value.map((one) => (one.id === id ? { ...one, ...part } : one));
    const { done = 0, total = 0 } = part;
    if (total > 0) told(done / total);
  };
  const dismiss = () => {
    keepings.value = keepings.value.filter((one) => one.id !== id);
  };
  const again = () => {
    dismiss();
    keep(source, name, onKept);
  };
  const cancel = () => controller.abort();
  keepings.value = [...keepings.value, { id, name, source, done: 0, total: 0, cancel, again, dismiss }];
  // Else the browser may clear it when the disk is full.
  void navigator.storage?.persist?.().catch(() => false);
  callWorker("keep", source, { signal: controller.signal, onPiece: change })
    .then(
      (path) => {
        dismiss();
        announce(texts.value.model.isKept(name));
        onKept(path);
      },
      (error: Error) => {
        if (controller.signal.aborted) dismiss();
        else change({ error: error.message });
      },
    )
    .then(refreshLibrary)
    .catch(() => {}); // the list of models shows what it showed before
}

/**
 * Keeps a model, and loads it as soon as it is there; how it is to be computed with is known when its download goes on in another tab. What
 * turns out to be no model, or damaged, is not kept.
 *
 * @param from where it is from, as kept models tell it
 */
export function keepAndLoad({ source, ...way }: LoadRequest, name: string, from: string): void {
  rememberWay(from, name, way);
  const load = async (path: string) => {
    const error = await loadModel({ ...way, source: { kind: "kept", path } }, name);
    if (error?.name !== "CheckpointError") return;
    await refreshLibrary();
    const bad = library.value?.kept.find((one) => one.path === path);
    if (!bad) return;
    await removeKept(bad);
    if (model.value.kind === "failed") model.value = { ...model.value, isDeleted: true };
  };
  keep(source, name, (path) => void load(path).catch(() => {})); // where it cannot be deleted, the list still has it
}

/** Notes how a kept model is to be computed with. */
export function rememberWay(from: string, title: string, way: Way): void {
  ways.value = { ...ways.value, [wayKey(from, title)]: way };
}
