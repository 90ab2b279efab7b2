// Progress of loading a model: where its file is downloaded, of the download and of placing the weights together, so that a bar
// goes once from nothing to all.

/** Told of bytes done, and of bytes in all. */
export type OnProgress = (done: number, total: number) => void;

/** Puts the two parts together. Without a download, progress is that of the weights alone. */
export class LoadingProgress {
  readonly #report: OnProgress;
  /** For each file that is downloaded bytes done, and in all. */
  readonly #files = new Map<string, readonly [done: number, total: number]>();
  #placed = 0;
  #reported = 0;

  constructor(report: OnProgress) {
    this.#report = report;
  }

  /** What has come of a file. */
  downloaded(file: string, done: number, total: number): void {
    this.#files.set(file, [done, total]);
    this.#update();
  }

  /** What of the weights is in its place. */
  placed(done: number, total: number): void {
    if (this.#files.size === 0) return this.#report(done, total);
    this.#placed = total > 0 ? done / total : 1;
    // Of a large file some bytes may not be needed, and what was needed has come.
    if (this.#placed === 1) for (const [file, [, size]] of this.#files) this.#files.set(file, [size, size]);
    this.#update();
  }

  /** Half of the way is the download. */
  #update(): void {
    let [done, total] = [0, 0];
    for (const [fileDone, fileTotal] of this.#files.values()) {
      done += fileDone;
      total += fileTotal;
    }
    const all = Math.floor((done + this.#placed * total) / 2);
    // A file that is fetched anew after an error begins again.
    if (all <= this.#reported) return;
    this.#reported = all;
    this.#report(all, total);
  }
}
