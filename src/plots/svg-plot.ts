// Draws plots as SVG text, outside a page. The libraries for it are large and few commands need them, so they are optional peer
// dependencies of the package: whoever wants plots installs them, and they are loaded when the first plot is drawn.

import { RwkvError } from "../errors.js";

type Plot = typeof import("@observablehq/plot");
type PlotOptions = import("@observablehq/plot").PlotOptions;

interface PlotLibraries {
  readonly plot: Plot;
  readonly parseHTML: typeof import("linkedom").parseHTML;
}

/** The packages that draw plots are not installed. The message names them and the command that installs them. */
export class PlotLibrariesError extends RwkvError {
  override name = "PlotLibrariesError";

  constructor(options?: ErrorOptions) {
    super(
      "plots need the packages @observablehq/plot and linkedom, which are not installed with rwkv by default: " +
        "npm install @observablehq/plot linkedom (with -g where rwkv was installed with -g)",
      options,
    );
  }
}

/**
 * Loads the libraries that draw. Call it before long work whose result will be drawn.
 *
 * @throws PlotLibrariesError when one is not installed
 */
export async function plotLibraries(): Promise<PlotLibraries> {
  try {
    const [plot, { parseHTML }] = await Promise.all([import("@observablehq/plot"), import("linkedom")]);
    return { plot, parseHTML };
  } catch (cause) {
    // A library that is there and fails to load is an error of its own.
    const { code, message } = cause as NodeJS.ErrnoException;
    if (!code?.endsWith("MODULE_NOT_FOUND") || !/(@observablehq\/plot|linkedom)\b/.test(message)) throw cause;
    throw new PlotLibrariesError({ cause });
  }
}

/**
 * @param options marks, scales and size, made with the library that is handed in
 * @throws PlotLibrariesError when the libraries are not installed
 */
export async function svgPlot(options: (plot: Plot) => PlotOptions): Promise<string> {
  const { plot, parseHTML } = await plotLibraries();
  const { document } = parseHTML("<!doctype html><html><body></body></html>");
  const drawn = plot.plot({ ...options(plot), document: document as unknown as Document });
  drawn.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  return drawn.outerHTML;
}
