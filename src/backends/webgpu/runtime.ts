// Passes over a model on a device: one command buffer each, which is encoded, submitted, and waited for only where its results are read.

import { BackendError, RwkvError } from "../../errors.js";
import type { TokenChoice } from "../../sampling/choose-token.js";
import { type PassResult, type PassSegment, type Runtime, type RuntimeState, rowsWanted } from "../backend.js";
import { Choices, mostAhead, readChosen } from "./choices.js";
import { bufferUsage, type Device } from "./device.js";
import { type Counts, countsOf, rowsOf, shadersOf, variantFor } from "./pass-counts.js";
import { Pipelines } from "./pipelines.js";
import type { Dispatch, Program } from "./program.js";
import { parameterWindow, passLayout } from "./shader.js";
import { StatePool } from "./state-pool.js";

/** What a runtime is made of. */
export interface RuntimeParts {
  readonly program: Program;
  readonly vectors: Float32Array<ArrayBuffer>;
  readonly arenaSize: number;
  /** The most tokens of a pass. */
  readonly capacity: number;
  /** A state before the first token. */
  readonly initial: Float32Array;
  /** What is given before a pass. */
  readonly given: readonly PlacedRows[];
  /** What a pass gives: logits, or what some layers of a model hand on. */
  readonly logits?: PlacedRows;
  readonly handedOn?: readonly PlacedRows[];
}

/** Where rows are in the arena, in floats, and how long each is. */
export interface PlacedRows {
  readonly offset: number;
  readonly width: number;
}

/** Passes that may be on their way before the oldest is waited for, where nothing of them is read. */
const mostUnread = 2;

export class GpuRuntime implements Runtime {
  readonly threads = 1;
  readonly maxTokens: number;
  readonly #device: Device;
  readonly #program: Program;
  readonly #ends: Pick<RuntimeParts, "given" | "logits" | "handedOn">;
  readonly #pipelines: Pipelines;
  readonly #arena: GPUBuffer;
  readonly #parameters: GPUBuffer;
  readonly #vectors: GPUBuffer;
  readonly #given: GPUBuffer;
  readonly #states: StatePool;
  readonly #choices: Choices | undefined;
  readonly #numbers = new Uint32Array(passLayout.words);
  #weights: readonly GPUBuffer[] = [];
  #groups: GPUBindGroup[] = [];
  #reading: GPUBuffer | undefined;
  #unread = 0;
  #disposed = false;

  /** @throws BackendError when the device has not enough memory */
  static async create(device: Device, parts: RuntimeParts): Promise<GpuRuntime> {
    return device.settle("the values of a pass", () => new GpuRuntime(device, parts));
  }

  private constructor(device: Device, parts: RuntimeParts) {
    const { program, vectors, arenaSize, capacity, initial, logits } = parts;
    this.maxTokens = capacity;
    this.#device = device;
    this.#pipelines = new Pipelines(device);
    this.#program = program;
    this.#ends = parts;
    const { storage, copySource, copyTarget, uniform } = bufferUsage;
    this.#arena = device.buffer("the values of a pass", arenaSize, storage | copySource | copyTarget);
    this.#parameters = device.buffer("the parameters", program.parameters.byteLength, uniform | copyTarget);
    this.#vectors = device.buffer("the vectors", Math.max(16, vectors.byteLength), storage | copyTarget);
    this.#given = device.buffer("the tokens", this.#numbers.byteLength, storage | copyTarget);
    device.gpu.queue.writeBuffer(this.#parameters, 0, program.parameters);
    device.gpu.queue.writeBuffer(this.#vectors, 0, vectors);
    this.#states = new StatePool(device, initial, () => this.#bindAll());
    const [arena, given] = [this.#arena, this.#given];
    this.#choices = logits && new Choices(device, this.#pipelines, { arena, vectors: this.#vectors, given, logits });
  }

  /** Compiles what tokens one by one take; other numbers of rows take shaders that are compiled for the first that need them. */
  async prepare(): Promise<void> {
    const shaders = shadersOf(this.#program.oneTokenEach, { tokens: 1, selected: 1, sequences: 1 });
    await Promise.all([this.#pipelines.make(shaders), this.#choices?.prepare()]);
  }

  /** Gives the runtime its weights. */
  bind(weights: readonly GPUBuffer[]): void {
    this.#weights = weights;
    this.#bindAll();
  }

  get stateLength(): number {
    return this.#states.length;
  }

  createState(values?: Float32Array): RuntimeState {
    this.#check();
    return this.#states.create(values);
  }

  async readState(state: RuntimeState): Promise<Float32Array> {
    this.#check();
    return this.#states.read(state);
  }

  writeState(state: RuntimeState, values: Float32Array): void {
    this.#check();
    this.#states.write(state, values);
  }

  async run(segments: readonly PassSegment[], given: readonly Float32Array[] = []): Promise<PassResult> {
    this.#check();
    const { logits: placedLogits, handedOn = [] } = this.#ends;
    for (const [i, { offset }] of this.#ends.given.entries()) {
      this.#device.gpu.queue.writeBuffer(this.#arena, offset * 4, given[i] as Float32Array<ArrayBuffer>);
    }
    const counts = countsOf(segments);
    if (counts.tokens > this.maxTokens || counts.sequences > this.maxTokens) {
      throw new RwkvError(`a pass cannot be run: it has more than ${this.maxTokens} tokens`);
    }
    const dispatches = this.#dispatchesFor(segments);
    const shaders = shadersOf(dispatches, counts);
    if (!this.#pipelines.has(shaders)) {
      await this.#pipelines.make(shaders);
      this.#check(); // it may have taken its time
    }
    const choices = this.#choices?.write(segments) ?? 0;
    this.#writeNumbers(segments);
    const wantsLogits = segments.some(({ logits, choiceOnly }) => logits !== "none" && !choiceOnly);
    const idBytes = 4 * choices;
    const { parts, size } = behind(idBytes, [
      ...(wantsLogits && placedLogits ? [{ ...placedLogits, rows: counts.selected }] : []),
      ...handedOn.map((placed) => ({ ...placed, rows: counts.tokens })),
    ]);
    const { gpu } = this.#device;
    const encoder = gpu.createCommandEncoder();
    this.#encode(encoder, dispatches, counts);
    const reading = size > 0 ? this.#readingBuffer(size) : undefined;
    // Before tokens are chosen, which changes logits.
    for (const { from, at, size } of reading ? parts : []) {
      encoder.copyBufferToBuffer(this.#arena, from, reading as GPUBuffer, at, size);
    }
    if (reading && choices > 0) this.#choices?.encode(encoder, reading);
    gpu.queue.submit([encoder.finish()]);
    const bytes = reading ? await this.#read(reading, size) : await this.#goOn();
    const tokens = readChosen(new Uint32Array(bytes, 0, choices));
    if (!this.#ends.handedOn) return { logits: new Float32Array(bytes, idBytes), tokens };
    const values = parts.map(({ at, size }) => new Float32Array(bytes, at, size / 4));
    return { logits: new Float32Array(0), tokens, handedOn: values };
  }

  async runAhead(state: RuntimeState, token: number, choices: readonly TokenChoice[]): Promise<readonly number[]> {
    this.#check();
    const own = this.#choices;
    if (choices.length > mostAhead || !own)
      throw new RwkvError(`expected at most ${mostAhead} choices, found ${choices.length}`);
    const counts = { tokens: 1, selected: 1, sequences: 1 };
    own.writeAll(choices.map((choice) => ({ choice, row: 0 })));
    this.#writeNumbers([{ state, tokens: [token], logits: "last" }]);
    const size = 4 * choices.length;
    const reading = this.#readingBuffer(size);
    const encoder = this.#device.gpu.createCommandEncoder();
    for (const index of choices.keys()) {
      this.#encode(encoder, this.#program.oneTokenEach, counts);
      own.encodeNext(encoder, index, reading);
    }
    this.#device.gpu.queue.submit([encoder.finish()]);
    return readChosen(new Uint32Array(await this.#read(reading, size)));
  }

  async dispose(): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    const own = [this.#arena, this.#parameters, this.#vectors, this.#given, this.#reading, this.#states.buffer];
    for (const buffer of [...own, ...this.#weights]) buffer?.destroy();
    this.#choices?.dispose();
    this.#device.release();
  }

  /** @throws BackendError when the model was disposed of, or the device has failed */
  #check(): void {
    if (this.#disposed) throw new BackendError("the model was disposed");
    this.#device.check();
  }

  async #read(reading: GPUBuffer, size: number): Promise<ArrayBuffer> {
    try {
      return await this.#device.read(reading, size);
    } catch (cause) {
      if (this.#disposed) throw new BackendError("the model was disposed while a pass was running", { cause });
      throw cause;
    }
  }

  /** Nothing is read, so the next pass may follow at once, unless many are on their way. */
  async #goOn(): Promise<ArrayBuffer> {
    if (++this.#unread >= mostUnread) {
      this.#unread = 0;
      await this.#device.idle();
    }
    return new ArrayBuffer(0);
  }

  /** Sends the tokens of a pass, its sequences and selected rows. */
  #writeNumbers(segments: readonly PassSegment[]): void {
    const numbers = this.#numbers;
    let row = 0;
    let selected = 0;
    for (const [i, segment] of segments.entries()) {
      const { state, tokens } = segment;
      const count = tokens.length;
      numbers.set([row, count, this.#states.offsetOf(state)], passLayout.segments + 4 * i);
      numbers.set(tokens, passLayout.tokens + row);
      numbers.fill(i, passLayout.sequences + row, passLayout.sequences + row + count);
      row += count;
      for (let j = row - rowsWanted(segment); j < row; j++) numbers[passLayout.selected + selected++] = j;
    }
    numbers[passLayout.tokenCount] = row;
    numbers[passLayout.selectedCount] = selected;
    numbers[passLayout.segmentCount] = segments.length;
    this.#device.gpu.queue.writeBuffer(this.#given, 0, numbers);
  }

  #dispatchesFor(segments: readonly PassSegment[]): readonly Dispatch[] {
    const { dispatches, oneTokenEach } = this.#program;
    return segments.every(({ tokens }) => tokens.length === 1) ? oneTokenEach : dispatches;
  }

  #encode(encoder: GPUCommandEncoder, dispatches: readonly Dispatch[], counts: Counts): void {
    const pass = encoder.beginComputePass();
    let bound: GPUComputePipeline | undefined;
    for (const dispatch of dispatches) {
      const rows = rowsOf(dispatch, counts);
      if (rows === 0) continue;
      const { shader, tiles, rowsPerGroup } = variantFor(dispatch, rows);
      const pipeline = this.#pipelines.of(shader);
      if (pipeline !== bound) pass.setPipeline(pipeline);
      bound = pipeline;
      pass.setBindGroup(0, this.#groups[dispatch.weights ?? 0] as GPUBindGroup, [dispatch.parameters]);
      pass.dispatchWorkgroups(tiles, Math.ceil(rows / rowsPerGroup), dispatch.count);
    }
    pass.end();
  }

  /** Each buffer of weights with all else. */
  #bindAll(): void {
    this.#groups = this.#weights.map((weights) => {
      const buffers = [this.#arena, undefined, this.#vectors, weights, this.#states.buffer, this.#given];
      return this.#device.gpu.createBindGroup({
        layout: this.#pipelines.layout,
        entries: buffers.map((buffer, binding) => ({
          binding,
          resource: buffer ? { buffer } : { buffer: this.#parameters, size: parameterWindow },
        })),
      });
    });
  }

  #readingBuffer(size: number): GPUBuffer {
    if (!this.#reading || this.#reading.size < size) {
      this.#reading?.destroy();
      this.#reading = this.#device.buffer("the logits to be read", size, bufferUsage.mapRead | bufferUsage.copyTarget);
    }
    return this.#reading;
  }
}

/** Rows of the arena that are read, one after another behind other bytes; all in bytes. */
function behind(first: number, placed: readonly (PlacedRows & { readonly rows: number })[]) {
  let size = first;
  const parts = placed.map(({ offset, width, rows }) => {
    const part = { from: offset * 4, at: size, size: rows * width * 4 };
    size += part.size;
    return part;
  });
  return { parts, size };
}
