// A row for each token, a column for each that it looks at. Drawn on a canvas, since a text of 64 tokens has thousands of cells in each layer.

import { useEffect, useRef, useState } from "preact/hooks";
import { theme } from "../settings.js";
import { percentText, texts, visible } from "../texts/texts.js";

interface TokenMapProps {
  readonly title: string;
  readonly rows: readonly (readonly number[])[];
  readonly names: readonly string[];
}

export function TokenMap({ title, rows, names }: TokenMapProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [pointed, setPointed] = useState<readonly [row: number, column: number] | undefined>(undefined);
  const count = names.length;
  const colors = theme.value;
  useEffect(() => {
    const { current } = canvas;
    const context = current?.getContext("2d");
    if (!current || !context) return;
    const size = Math.round(current.clientWidth * devicePixelRatio);
    current.width = size;
    current.height = size;
    const style = getComputedStyle(current);
    context.clearRect(0, 0, size, size);
    const cell = size / count;
    const gap = cell > 8 ? 1 : 0;
    for (const [t, row] of rows.entries()) {
      for (const [s, weight] of row.entries()) {
        context.globalAlpha = 0.05 + 0.95 * Math.sqrt(Math.min(1, Math.max(0, weight)));
        context.fillStyle = style.color;
        context.fillRect(s * cell, t * cell, cell - gap, cell - gap);
      }
    }
  }, [rows, count, colors]);
  const at = pointed && rows[pointed[0]]?.[pointed[1]];
  const strongest = rows.at(-1)?.reduce((best, weight, s, all) => (weight > (all[best] as number) ? s : best), 0) ?? 0;
  const shown = pointed && at !== undefined ? pointed : ([count - 1, strongest] as const);
  const share = rows[shown[0]]?.[shown[1]] ?? 0;
  const told = texts.value.inside.pointed(
    visible(names[shown[0]] ?? ""),
    visible(names[shown[1]] ?? ""),
    percentText(share),
  );
  return (
    <figure class="token-map">
      <p class="map-title">{title}</p>
      <canvas
        ref={canvas}
        role="img"
        aria-label={`${title}. ${told}`}
        onPointerMove={(event) => {
          const { left, top, width } = event.currentTarget.getBoundingClientRect();
          const place = (offset: number) => Math.max(0, Math.min(count - 1, Math.floor((offset / width) * count)));
          setPointed([place(event.clientY - top), place(event.clientX - left)]);
        }}
        onPointerLeave={() => setPointed(undefined)}
      />
      <figcaption>
        <code>{told}</code>
      </figcaption>
    </figure>
  );
}
