// The memory of a pass (its tokens, sequences, selected rows and their targets), and running it.

import type { Block, KernelMachine } from "./kernel-machine.js";
import { bytesOfClaim, passSize, segmentSize, writeSegment } from "./record.js";
import { runPass } from "./run-pass.js";

/** Records in a machine's memory, one after another. */
export interface RecordList {
  readonly address: number;
  readonly count: number;
  /** Counters with which the threads of a pass claim work. */
  readonly claims: Block;
  /** Where each record begins, in bytes from the first one's address, and where the last one ends. */
  readonly offsets: readonly number[];
}

/** Consecutive rows of one sequence, and the addresses of its state before and after them. */
export interface PlacedSegment {
  readonly tokens: ArrayLike<number>;
  readonly state: number;
  readonly nextState: number;
}

/** What a pass is run on. */
export interface PassContents {
  readonly segments: readonly PlacedSegment[];
  /** Numbers of the rows whose logits are wanted. */
  readonly selected: readonly number[];
  /** A token id for each selected row; in training. */
  readonly targets?: readonly number[];
  /** The seed of dropout. */
  readonly seed?: number;
  /** Where other processes have a part of the step: all of its targets, by default those of the pass. */
  readonly targetCount?: number;
  /** And the rows of the step that come before those of the pass. */
  readonly firstRow?: number;
}

/** Places records in a machine's memory. They are encoded aside first, since encoding may allocate, and memory may move then. */
export function placeRecords(machine: KernelMachine, records: readonly Uint8Array[]): RecordList {
  const size = records.reduce((sum, record) => sum + record.length, 0);
  const claims = machine.allocate((size / bytesOfClaim) * 4);
  const { address, bytes } = machine.allocate(size);
  const offsets = [0];
  for (const record of records) {
    const at = offsets.at(-1) as number;
    bytes.set(record, at);
    offsets.push(at + record.length);
  }
  return { address, count: records.length, claims, offsets };
}

/** A part of a list, from the record `begin` to before `end`, which lies where it does in the list. */
export function partOfRecords({ address, claims, offsets }: RecordList, begin: number, end: number): RecordList {
  const [from, to] = [offsets[begin] as number, offsets[end] as number];
  const [firstClaim, lastClaim] = [from, to].map((offset) => (offset / bytesOfClaim) * 4) as [number, number];
  return {
    address: address + from,
    count: end - begin,
    claims: {
      address: claims.address + firstClaim,
      get bytes() {
        return claims.bytes.subarray(firstClaim, lastClaim);
      },
    },
    offsets: offsets.slice(begin, end + 1).map((offset) => offset - from),
  };
}

/** Memory for the largest pass, which is reused for each. */
export class PassMemory {
  readonly #machine: KernelMachine;
  readonly #pass: Block;
  readonly #tokens: Block;
  readonly #selected: Block;
  readonly #targets: Block;
  readonly #segments: Block;
  readonly #maxSegments: number;

  /** @param maxTokens most rows of a pass, over all of its sequences */
  constructor(machine: KernelMachine, maxTokens: number, maxSegments: number) {
    this.#machine = machine;
    this.#maxSegments = maxSegments;
    this.#pass = machine.allocate(passSize);
    this.#tokens = machine.allocate(maxTokens * 4);
    this.#selected = machine.allocate(maxTokens * 4);
    this.#targets = machine.allocate(maxTokens * 4);
    this.#segments = machine.allocate(maxSegments * segmentSize);
  }

  /** @throws RangeError for more sequences than there is room for; RwkvError and BackendError as `runPass` */
  async run(records: RecordList, contents: PassContents): Promise<void> {
    const { segments, selected, targets = [], seed = 0, targetCount = selected.length, firstRow = 0 } = contents;
    if (segments.length > this.#maxSegments) {
      throw new RangeError(`a pass of ${segments.length} sequences, expected at most ${this.#maxSegments}`);
    }
    const { buffer, byteOffset, byteLength } = this.#segments.bytes;
    const table = new DataView(buffer, byteOffset, byteLength);
    const ids = integersIn(this.#tokens);
    let tokenCount = 0;
    segments.forEach(({ tokens, state, nextState }, i) => {
      writeSegment(tokenCount, tokens.length, state, nextState, table, i);
      ids.set(tokens, tokenCount);
      tokenCount += tokens.length;
    });
    integersIn(this.#selected).set(selected);
    integersIn(this.#targets).set(targets);
    integersIn(records.claims).fill(0);
    await runPass(this.#machine, this.#pass, {
      records: records.address,
      recordCount: records.count,
      tokens: this.#tokens.address,
      tokenCount,
      selected: this.#selected.address,
      selectedCount: selected.length,
      segments: this.#segments.address,
      segmentCount: segments.length,
      threads: this.#machine.threads,
      targets: this.#targets.address,
      seed,
      claims: records.claims.address,
      targetCount,
      firstRow,
    });
  }
}

/** A new view each time: a machine's memory may move. */
function integersIn({ bytes }: Block): Int32Array {
  return new Int32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
}

/** The same for floats. */
export function floatsIn({ bytes }: Pick<Block, "bytes">): Float32Array {
  return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
}
