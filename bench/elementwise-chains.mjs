// What a chain of elementwise functions costs beside one function alone, and beside as many passes over memory as it has
// functions:
//   node bench/elementwise-chains.mjs [threads] [backend]
// Needs the build in dist/.

import { encodeProgram } from "../dist/backends/kernel/program.js";
import { SingleRecord } from "../dist/backends/kernel/single-record.js";
import { createNativeMachine } from "../dist/backends/native/native.js";
import { createWasmMachine } from "../dist/backends/wasm/wasm.js";

const [threads = "2", backend = "native"] = process.argv.slice(2);
const machine = await (backend === "native" ? createNativeMachine : createWasmMachine)(Number(threads));
const record = new SingleRecord(machine);

/** A chain over x, y and a vector, as the small operations of a layer are; every other function takes a second operand. */
function chain(length, names) {
  const [x, y, vector, constant, out, slot] = [0, 1, 2, 3, 4, 5];
  const instructions = Array.from({ length }, (_, i) => ({
    function: names[i % names.length],
    a: i === 0 ? x : slot,
    b: [y, vector, constant][i % 3],
    result: i === length - 1 ? out : slot,
  }));
  const full = { oneRow: false, repeat: 1 };
  return {
    inputs: [full, full, { oneRow: true, repeat: 1 }],
    constants: [0.5],
    outputCount: 1,
    slotCount: 1,
    instructions,
  };
}

/** Milliseconds of the fastest of several runs. */
async function time(rows, width, program, runs = 40) {
  const blocks = blocksOf(rows, width);
  const fields = {
    kernel: "elementwise",
    barrierAfter: "always",
    rows,
    width,
    attributes: [{ count: 0 }],
    addresses: blocks.map(({ address }) => address),
    program: encodeProgram(program, machine),
  };
  let best = Number.POSITIVE_INFINITY;
  for (let i = 0; i < runs; i++) {
    const started = performance.now();
    await record.run(fields);
    best = Math.min(best, performance.now() - started);
  }
  return best;
}

const placed = new Map();
function blocksOf(rows, width) {
  const key = `${rows} x ${width}`;
  let blocks = placed.get(key);
  if (!blocks) {
    blocks = [rows * width, rows * width, width, rows * width].map((length) => machine.allocate(4 * length));
    for (const { bytes } of blocks) new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4).fill(0.25);
    placed.set(key, blocks);
  }
  return blocks;
}

const cheap = ["add", "multiply", "subtract", "multiply", "maximum"];
const dear = ["sigmoid", "add", "tanh", "multiply", "exp", "multiply", "subtract"];
console.log(`${backend}, ${threads} threads; milliseconds of the fastest run`);
console.log("rows x width      one   20 cheap   ratio   20 with exponentials");
for (const [rows, width] of [
  [2048, 768],
  [1024, 4096],
  [128, 768],
  [8192, 64],
]) {
  const one = await time(rows, width, chain(1, cheap));
  const many = await time(rows, width, chain(20, cheap));
  const exponentials = await time(rows, width, chain(20, dear));
  const cells = [one.toFixed(3), many.toFixed(3), (many / one).toFixed(2), exponentials.toFixed(3)];
  console.log(
    `${`${rows} x ${width}`.padEnd(13)} ${cells[0].padStart(7)} ${cells[1].padStart(10)} ${cells[2].padStart(7)} ` +
      `${cells[3].padStart(22)}`,
  );
}
await machine.dispose();
