// Models that the browser keeps for this site: which there are, and those on their way. What is under way goes on while another model writes.

import { signal } from "@preact/signals";
import { callWorker } from "./engines/worker-client.js";
import { loadModel } from "./model-state.js";
import type { Library, LoadRequest, Source } from "./protocol.js";

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

export async function removeKept(names: readonly string[]): Promise<void> {
  await callWorker("remove", names);
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
  const controller = new AbortController();
  const change = (part: Partial<Keeping>) => {
    keepings.value = keepings.value.map((one) => (one.id === id ? { ...one, ...part } : one));
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

/** Keeps a model, and loads it as soon as it is there. */
export function keepAndLoad({ source, ...how }: LoadRequest, name: string): void {
  keep(source, name, (path) => void loadModel({ ...how, source: { kind: "kept", path } }, name));
}
