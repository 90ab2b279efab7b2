// The progress of loading a model. It combines the download, where there is one, and the placement of the weights, so that a bar
// runs from zero to full once.

/** Called with the number of bytes done and their total number. */
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

  /** Notes how much of a file was downloaded. */
  downloaded(file: string, done: number, total: number): void {
    this.#files.set(file, [done, total]);
    this.#update();
  }

  /** Notes how much of the weights was placed. */
  placed(done: number, total: number): void {
    if (this.#files.size === 0) return this.#report(done, total);
    this.#placed = total > 0 ? done / total : 1;
    // Some bytes of a large file may not be needed; all that were needed have arrived.
    if (this.#placed === 1) for (const [file, [, size]] of this.#files) this.#files.set(file, [size, size]);
    this.#update();
  }

  /** Reports the sum; the download is one half. */
  #update(): void {
    let [done, total] = [0, 0];
    for (const [fileDone, fileTotal] of this.#files.values()) {
      done += fileDone;
      total += fileTotal;
    }
    const all = Math.floor((done + this.#placed * total) / 2);
    // A file that is fetched again after an error starts from zero.
    if (all <= this.#reported) return;
    this.#reported = all;
    this.#report(all, total);
  }
}
