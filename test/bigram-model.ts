// Writes an RWKV-4 model over bytes whose next letter hangs on the last one alone, as it is told: for tests of what is done with
// a certain text. Its mixing matrices are zero, so that a layer adds nothing.

import { type WritableTensor, writeSafetensors } from "rwkv";

const width = 256;
const hidden = 8;

/** @param next by letter, the letter that follows; a letter without one is followed by itself */
export async function writeBigramModel(path: string, next: Readonly<Record<string, string>>): Promise<void> {
  const filled = (name: string, shape: number[], value: (i: number) => number): WritableTensor => {
    const values = Float32Array.from({ length: shape.reduce((a, b) => a * b) }, (_, i) => value(i));
    return { name, dtype: "f32", shape, bytes: () => [new Uint8Array(values.buffer)] };
  };
  const vector = (name: string, value: number, length = width) => filled(name, [length], () => value);
  const zeros = (name: string, rows: number, columns: number) => filled(`${name}.weight`, [rows, columns], () => 0);
  const norm = (name: string) => [vector(`${name}.weight`, 1), vector(`${name}.bias`, 0)];
  const follows = (letter: number) => (next[String.fromCharCode(letter)] ?? String.fromCharCode(letter)).charCodeAt(0);
  await writeSafetensors(path, [
    filled("emb.weight", [width, width], (i) => (i % width === Math.floor(i / width) ? 1 : 0)),
    ...["blocks.0.ln0", "blocks.0.ln1", "blocks.0.ln2", "ln_out"].flatMap(norm),
    ...["time_decay", "time_first"].map((name) => vector(`blocks.0.att.${name}`, 0)),
    ...["k", "v", "r"].map((letter) => vector(`blocks.0.att.time_mix_${letter}`, 0.5)),
    ...["key", "value", "receptance", "output"].map((name) => zeros(`blocks.0.att.${name}`, width, width)),
    ...["k", "r"].map((letter) => vector(`blocks.0.ffn.time_mix_${letter}`, 0.5)),
    zeros("blocks.0.ffn.key", hidden, width),
    zeros("blocks.0.ffn.receptance", width, width),
    zeros("blocks.0.ffn.value", width, hidden),
    filled("head.weight", [width, width], (i) => (Math.floor(i / width) === follows(i % width) ? 1 : 0)),
  ]);
}
