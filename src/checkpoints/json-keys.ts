// Finds a key that stands twice in one object of a JSON text. JSON.parse silently keeps the last; in a checkpoint's header
// that would let two programs read different tensors from one file.

// A header is an object of objects; what nests deeper than that by far is not worth memory.
const deepest = 8;

/** @param json valid JSON; @returns the first repeated key as written there, or undefined */
export function repeatedKey(json: string): string | undefined {
  const open: (Set<string> | undefined)[] = [];
  const token = /"[^"\\]*(?:\\.[^"\\]*)*"|[{}[\]]/gs;
  for (let match = token.exec(json); match; match = token.exec(json)) {
    const text = match[0];
    if (text === "{") open.push(open.length < deepest ? new Set() : undefined);
    else if (text === "[") open.push(undefined);
    else if (text === "}" || text === "]") open.pop();
    else {
      const keys = open[open.length - 1];
      if (!keys || !/^\s*:/.test(json.slice(token.lastIndex, token.lastIndex + 64))) continue;
      const key = JSON.parse(text) as string;
      if (keys.has(key)) return text;
      keys.add(key);
    }
  }
  return undefined;
}
