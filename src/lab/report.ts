// The page that results are shown on: one file that needs nothing else, light or dark as the reader has it, readable on a phone.

/** A part of a page. */
export interface Section {
  readonly title: string;
  /** HTML: paragraphs, tables, SVG. */
  readonly body: string;
}

/** @param overviewBeside whether the page has a link to index.html */
export function reportPage(
  title: string,
  introduction: string,
  sections: readonly Section[],
  overviewBeside = true,
): string {
  const parts = sections.map(
    (section) => `<section>\n<h2>${escapeHtml(section.title)}</h2>\n${section.body}\n</section>`,
  );
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)}</title>
<style>${style}</style>
</head>
<body>
<main>
${overviewBeside ? '<nav><a href="index.html">All reports</a></nav>\n' : ""}<h1>${escapeHtml(title)}</h1>
<p>${introduction}</p>
${parts.join("\n")}
</main>
</body>
</html>
`;
}

/** Text that may stand in HTML. */
export function escapeHtml(text: string): string {
  const entities: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
  return text.replaceAll(/[&<>"]/g, (character) => entities[character] as string);
}

/** A table; cells are HTML. */
export function htmlTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const cells = (tag: string, row: readonly string[]) => row.map((cell) => `<${tag}>${cell}</${tag}>`).join("");
  const body = rows.map((row) => `<tr>${cells("td", row)}</tr>`).join("\n");
  return `<div class="wide"><table>\n<thead><tr>${cells("th", head)}</tr></thead>\n<tbody>\n${body}\n</tbody></table></div>`;
}

/** A plot with its caption. */
export function figure(svg: string, caption: string): string {
  return `<figure><div class="wide">${svg}</div><figcaption>${caption}</figcaption></figure>`;
}

/** A plot as HTML, drawn for wide and for narrow screens. @param draw gives the SVG for a width in pixels */
export async function plotForScreens(draw: (width: number) => Promise<string>): Promise<string> {
  return `<div class="on-wide">${await draw(wideScreen)}</div><div class="on-narrow">${await draw(narrowScreen)}</div>`;
}

const wideScreen = 720;
export const narrowScreen = 350;

/** An exponent to two digits; what is nearly 0 has no sign. */
export function exponentText(exponent: number): string {
  return (Math.round(exponent * 100) / 100 || 0).toFixed(2);
}

/** An exponent of T as measured, and in brackets as the papers have it: HTML. */
export function exponentCell(measured: number, theory: number): string {
  return `${exponentText(measured)} <small>(${theory})</small>`;
}

/** Colours that hold on light and dark ground. */
export const ink = { accent: "#d9622b", quiet: "#7c93b8" } as const;

const style = `
:root { color-scheme: light dark; --ground: #fdfcf9; --text: #23242a; --faint: #6b6d76; --line: #dcdad2; }
@media (prefers-color-scheme: dark) { :root { --ground: #17181c; --text: #e4e3de; --faint: #9a9ba3; --line: #36373d; } }
body { margin: 0; background: var(--ground); color: var(--text); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0.5rem 0 1rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 0.5rem; }
p { max-width: 42rem; }
figure { margin: 1rem 0; }
figcaption { color: var(--faint); font-size: 0.9rem; max-width: 42rem; }
.wide { overflow-x: auto; }
.on-narrow { display: none; }
@media (max-width: 45rem) { .on-wide { display: none; } .on-narrow { display: block; } }
.maps { display: flex; flex-wrap: wrap; gap: 1rem; }
figure h2 { font-size: 0.95rem; margin: 0.5rem 0 0; }
table { border-collapse: collapse; font-size: 0.85rem; white-space: nowrap; }
th, td { padding: 0.25rem 0.5rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { color: var(--faint); font-weight: 600; white-space: normal; vertical-align: bottom; }
a { color: inherit; text-decoration-color: var(--faint); text-underline-offset: 0.2em; }
nav { font-size: 0.9rem; }
code { font: 0.85em ui-monospace, monospace; white-space: pre; }
small { color: var(--faint); }
svg { color: var(--text); background: transparent; --plot-background: var(--ground); max-width: none; }
`;
