// Models by name on the command line: what a --model names is downloaded once, with its progress shown; Ctrl-C ends the download, and the
// same command goes on from there.

import prettyBytes from "pretty-bytes";
import type { ComingFile } from "../hub/coming-file.js";
import { mayBeName } from "../hub/model-name.js";
import { bar, StatusLine } from "./status-line.js";
import { note } from "./terminal.js";

/** Where stderr is no terminal, a line says how far it is each time this many milliseconds have passed. */
const linePause = 15_000;

/** The path or URL that a model is opened by. @throws CheckpointError, OptionError, RwkvError */
export async function placeOfModel(text: string): Promise<string> {
  if (!mayBeName(text)) return text;
  const { modelByName } = await import("../hub/named-models.js");
  return withDownload(async (signal, onFile) => {
    const found = await modelByName(text, { signal, onFile, onWarning: note });
    return typeof found === "string" ? found : text;
  });
}

/**
 * Loads a model by name while it is downloaded, with the progress of that shown.
 *
 * @returns the path or URL that it is opened by where it need not be downloaded, or is whole before it can be loaded
 * @throws as `placeOfModel` and `load`
 */
export async function loadWhileComing<Loaded extends object>(
  text: string,
  load: (file: ComingFile) => Promise<Loaded>,
): Promise<Loaded | string> {
  if (!mayBeName(text)) return text;
  const { comingModel } = await import("../hub/named-models.js");
  let loading: Promise<Loaded> | undefined;
  const place = await withDownload(async (signal, onFile) => {
    const found = await comingModel(text, { signal, onFile, onWarning: note });
    if (typeof found !== "object") return found ?? text;
    loading = load(found);
    loading.catch(() => {}); // it is waited for when the download has ended
    return found.whole;
  });
  return (await loading) ?? place;
}

/** Runs a download with its progress, which Ctrl-C ends; then the program ends, too. */
export async function withDownload<T>(
  download: (signal: AbortSignal, onFile: (file: string, done: number, total: number) => void) => Promise<T>,
): Promise<T> {
  const interrupt = new AbortController();
  const onInterrupt = () => interrupt.abort(new Error("interrupted"));
  process.once("SIGINT", onInterrupt);
  process.once("SIGTERM", onInterrupt);
  const progress = new DownloadProgress();
  try {
    return await download(interrupt.signal, (file, done, total) => progress.update(file, done, total));
  } catch (error) {
    if (!interrupt.signal.aborted) throw error;
    progress.stop();
    note("(stopped; what was downloaded stays, and the same command goes on from there)");
    process.exit(130);
  } finally {
    process.off("SIGINT", onInterrupt);
    process.off("SIGTERM", onInterrupt);
    progress.stop();
  }
}

/** How far a download is: a bar on a terminal, elsewhere a line now and then. */
class DownloadProgress {
  readonly #line = new StatusLine();
  #file: string | undefined;
  #started = 0;
  /** Bytes that were here when it began. */
  #first = 0;
  #told = 0;

  update(file: string, done: number, total: number): void {
    const now = performance.now();
    if (file !== this.#file) {
      [this.#file, this.#started, this.#first, this.#told] = [file, now, done, now];
      const before = done > 0 ? `, of which ${prettyBytes(done)} are here` : "";
      note(`downloading ${file}: ${prettyBytes(total)}${before}`);
    }
    const name = file.slice(file.lastIndexOf("/") + 1);
    const share = total > 0 ? done / total : 1;
    const seconds = (now - this.#started) / 1000;
    const speed = seconds > 1 ? (done - this.#first) / seconds : 0;
    const rate = speed > 0 ? `, ${prettyBytes(speed)}/s, ${timeLeft((total - done) / speed)}` : "";
    const figures = `${Math.floor(share * 100)}% of ${prettyBytes(total)}${rate}`;
    if (process.stderr.isTTY) return this.#line.draw(`${bar(share, 24)} ${figures}`);
    if (now - this.#told < linePause) return;
    this.#told = now;
    note(`${name}: ${figures}`);
  }

  stop(): void {
    this.#line.clear();
  }
}

function timeLeft(seconds: number): string {
  if (seconds < 90) return `${Math.ceil(seconds)} s left`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min left` : `${(seconds / 3600).toFixed(1)} h left`;
}
