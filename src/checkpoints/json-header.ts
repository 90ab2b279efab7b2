// Reads the JSON header of a safetensors file, with two checks that JSON.parse does not make. Depth: nothing in a
// header nests deeper than a shape, and parsing deeper text could take a hundred times its size in memory. Duplicate
// keys: JSON.parse silently keeps the last one, so two programs could read different tensors from one file.

/** The maxDepth nesting of a header: the header, the entry of a tensor, its shape. */
const maxDepth = 3;

/**
 * Parses a header.
 *
 * @throws SyntaxError when the text is not JSON, nests deeper than a header does, or has a duplicate key in an object
 */
export function parseHeader(text: string): unknown {
  checkStructure(text);
  return JSON.parse(text);
}

function checkStructure(text: string): void {
  /** The keys so far of each open object; undefined for an open array. */
  const open: (Set<string> | undefined)[] = [];
  const token = /"[^"\\]*(?:\\.[^"\\]*)*"|[{}[\]]/gs;
  for (let match = token.exec(text); match; match = token.exec(text)) {
    const [found] = match;
    if (found === "}" || found === "]") open.pop();
    else if (found === "{" || found === "[") {
      open.push(found === "{" ? new Set() : undefined);
      if (open.length > maxDepth) throw new SyntaxError("it nests deeper than a header does");
    } else {
      const keys = open[open.length - 1];
      if (!keys || !/^\s*:/.test(text.slice(token.lastIndex, token.lastIndex + 64))) continue;
      const key = JSON.parse(found) as string;
      if (keys.has(key)) throw new SyntaxError(`it has the key ${found.slice(0, 100)} twice`);
      keys.add(key);
    }
  }
}
