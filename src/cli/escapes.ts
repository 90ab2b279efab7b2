// Escape sequences in arguments, as llama.cpp's --escape reads them: a shell passes '\n' on as two characters.

const simple: Readonly<Record<string, string>> = { n: "\n", r: "\r", t: "\t", "'": "'", '"': '"', "\\": "\\" };

/** Replaces \n \r \t \' \" \\ and \xHH (a character up to U+00FF); any other backslash stays. */
export function readEscapes(text: string): string {
  return text.replace(/\\(?:x([\da-fA-F]{2})|([nrt'"\\]))/g, (_, hex?: string, letter = "") =>
    hex === undefined ? (simple[letter] as string) : String.fromCharCode(Number.parseInt(hex, 16)),
  );
}
