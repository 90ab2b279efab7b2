// Draws plots as SVG text, outside a page. The libraries are large and few commands need them, so they are loaded here only.

type Plot = typeof import("@observablehq/plot");
type PlotOptions = import("@observablehq/plot").PlotOptions;

/** @param options marks, scales and size, made with the library that is handed in */
export async function svgPlot(options: (plot: Plot) => PlotOptions): Promise<string> {
  const [plot, { parseHTML }] = await Promise.all([import("@observablehq/plot"), import("linkedom")]);
  const { document } = parseHTML("<!doctype html><html><body></body></html>");
  const drawn = plot.plot({ ...options(plot), document: document as unknown as Document });
  drawn.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  return drawn.outerHTML;
}
