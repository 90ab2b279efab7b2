// Reads the JSON header of a safetensors file, with two checks that JSON.parse does not make. Depth: nothing in a header
// nests deeper than a shape, and parsing what does could take a hundred times its size in memory. Keys: JSON.parse silently
// keeps the last of equal ones, which would let two programs read different tensors from one file.

/** header, tensor entry, shape */
const deepest = 3;

/**
 * Parses a header.
 *
 * @throws SyntaxError when it is not JSON, nests deeper than a header does, or has a key twice in one object
 */
export function parseHeader(text: string): unknown {
  checkStructure(text);
  return JSON.parse(text);
}

function checkStructure(text: string): void {
  /** For each open object its keys so far; undefined for an array. */
  const open: (Set<string> | undefined)[] = [];
  const token = /"[^"\\]*(?:\\.[^"\\]*)*"|[{}[\]]/gs;
  for (let match = token.exec(text); match; match = token.exec(text)) {
    const [found] = match;
    if (found === "}" || found === "]") open.pop();
    else if (found === "{" || found === "[") {
      open.push(found === "{" ? new Set() : undefined);
      if (open.length > deepest) throw new SyntaxError("it nests deeper than a header does");
    } else {
      const keys = open[open.length - 1];
      if (!keys || !/^\s*:/.test(text.slice(token.lastIndex, token.lastIndex + 64))) continue;
      const key = JSON.parse(found) as string;
      if (keys.has(key)) throw new SyntaxError(`it has the key ${found.slice(0, 100)} twice`);
      keys.add(key);
    }
  }
}
