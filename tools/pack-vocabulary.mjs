// Packs RWKV's World vocabulary for the package: node tools/pack-vocabulary.mjs rwkv_vocab_v20230424.txt (of BlinkDL/ChatRWKV,
// Apache-2.0). src/tokenizers/packaged-vocabulary.ts says how, and reads it.

import { readFileSync, writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { worldTokenizer } from "../dist/tokenizers/world.js";

const file = process.argv[2];
const { tokens } = worldTokenizer(file, readFileSync(file, "utf8"));
const [shared, own, bytes] = [[], [], []];
let before = new Uint8Array(0);
for (const token of tokens.slice(1)) {
  let same = 0;
  while (same < before.length && same < token.length && before[same] === token[same]) same++;
  shared.push(same);
  own.push(token.length - same);
  bytes.push(...token.subarray(same));
  before = token;
}
const packed = gzipSync(Uint8Array.from([...shared, ...own, ...bytes]), { level: 9, memLevel: 9 });
writeFileSync(new URL("../embedded/world-vocabulary.bin", import.meta.url), packed);
console.log(`${tokens.length - 1} tokens, ${packed.length} bytes`);
