// Tables of text for terminals.

/**
 * Rows of cells as lines: each column as wide as its widest cell, two spaces between columns, and nothing at the ends of lines.
 *
 * @param right columns, by number, whose cells are set to the right
 */
export function textTable(rows: readonly (readonly string[])[], right: readonly number[] = []): string[] {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, cell.length);
  }
  return rows.map((row) => {
    const cells = row.map((cell, i) =>
      right.includes(i) ? cell.padStart(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0),
    );
    return cells.join("  ").trimEnd();
  });
}
