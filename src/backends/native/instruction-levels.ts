// The levels of instruction sets that there are native kernels for. All are in one library; it runs the highest that the processor
// has. kernels/levels.c lists the same names, and knows how to ask the processor.

/** A level of instruction sets. */
export interface InstructionLevel {
  readonly name: string;
  /** Compiler options. None where it is the level before it in which some kernels have another way (kernels/tiles.h). */
  readonly flags?: readonly string[];
}

const avx2 = ["-mavx2", "-mfma", "-mf16c"];
const avx512 = [...avx2, "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq"];

const x86: readonly InstructionLevel[] = [
  { name: "sse4", flags: ["-msse4.1"] },
  { name: "avx2", flags: avx2 },
  { name: "avx512", flags: avx512 },
  { name: "avx512vnni", flags: [...avx512, "-mavx512vnni"] },
  { name: "avx512tiles" },
];

const arm: readonly InstructionLevel[] = [
  { name: "neon", flags: [] },
  { name: "dotprod", flags: ["-march=armv8.2-a+dotprod"] },
];

/**
 * The levels of an architecture, by Node's name for it, lowest first; one that asks nothing of the processor where it is another.
 */
export function levelsOf(architecture: string): readonly InstructionLevel[] {
  return architecture === "x64" ? x86 : architecture === "arm64" ? arm : [{ name: "plain", flags: [] }];
}

/** Those of this machine. */
export const instructionLevels: readonly InstructionLevel[] = levelsOf(process.arch);
