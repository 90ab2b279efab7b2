// Reads a Python str or bytes literal as data. Grammar: Python reference, section 2.4.1 (without raw, formatted and
// triple-quoted forms, which repr() never writes).

const simpleEscapes: Readonly<Record<string, number>> = {
  "\\": 0x5c,
  "'": 0x27,
  '"': 0x22,
  a: 7,
  b: 8,
  f: 12,
  n: 10,
  r: 13,
  t: 9,
  v: 11,
};

/**
 * Reads a literal.
 *
 * @returns the UTF-8 bytes of a str literal, or the bytes of a bytes literal; undefined for any other text
 */
export function pythonLiteralBytes(literal: string): Uint8Array | undefined {
  const isBytes = literal.startsWith("b");
  const quote = literal[isBytes ? 1 : 0];
  const body = literal.slice(isBytes ? 2 : 1, -1);
  if ((quote !== "'" && quote !== '"') || literal.length < (isBytes ? 3 : 2) || !literal.endsWith(quote))
    return undefined;

  const encoder = new TextEncoder();
  if (!body.includes("\\") && !body.includes(quote) && !isBytes) return encoder.encode(body); // nearly every line of a vocabulary
  const bytes: number[] = [];
  const emit = (codePoint: number) => {
    if (isBytes) bytes.push(codePoint);
    else bytes.push(...encoder.encode(String.fromCodePoint(codePoint)));
  };
  for (let at = 0; at < body.length; ) {
    const codePoint = body.codePointAt(at) as number;
    const character = String.fromCodePoint(codePoint);
    if (character === quote || (isBytes && codePoint > 127)) return undefined;
    if (character !== "\\") {
      emit(codePoint);
      at += character.length;
      continue;
    }
    const simple = simpleEscapes[body[at + 1] ?? ""];
    if (simple !== undefined) {
      emit(simple);
      at += 2;
      continue;
    }
    const numeric = /^\\(?:x([\da-fA-F]{2})|u([\da-fA-F]{4})|U([\da-fA-F]{8})|([0-7]{1,3}))/.exec(
      body.slice(at, at + 10),
    );
    if (!numeric) return undefined;
    const [text, hex, short, long, octal] = numeric;
    const value = octal ? Number.parseInt(octal, 8) : Number.parseInt((hex ?? short ?? long) as string, 16);
    if (value > (isBytes ? 255 : 0x10ffff) || (isBytes && (short || long))) return undefined;
    emit(value);
    at += text.length;
  }
  return Uint8Array.from(bytes);
}
