// GPT-2's table of the characters that stand for bytes in byte-level vocabularies.

/**
 * The character that stands for each byte. Printable characters of Latin-1 stand for their own byte; the other bytes
 * are represented, in order, by U+0100 and the characters after it. Source: https://github.com/openai/gpt-2,
 * src/encoder.py, bytes_to_unicode.
 */
export function byteLevelCharacters(): string[] {
  const characters: string[] = [];
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte !== 173);
    characters.push(String.fromCodePoint(printable ? byte : next++));
  }
  return characters;
}
