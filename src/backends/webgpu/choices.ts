// Sampling on the device: how each token is to be sampled goes there before a pass, and the tokens come back after it.

import type { TokenChoice } from "../../sampling/choose-token.js";
import { choicesOf, type PassSegment } from "../backend.js";
import { bufferUsage, type Device } from "./device.js";
import { bannedLogit, choiceFields, chooseShader, noMask, notANumber } from "./operations/choose.js";
import type { Pipelines } from "./pipelines.js";
import { maxTokens, parameterWindow, passLayout, type Shader } from "./shader.js";
import { floatBits } from "./wgsl.js";

/** What a device has of a model, as far as sampling needs it. */
export interface ChoicesParts {
  readonly arena: GPUBuffer;
  readonly vectors: GPUBuffer;
  readonly given: GPUBuffer;
  readonly logits: { readonly offset: number; readonly width: number };
}

/** The choices of the passes of a model, one pass after the other. */
export class Choices {
  readonly #device: Device;
  readonly #pipelines: Pipelines;
  readonly #parts: ChoicesParts;
  readonly #shader: Shader;
  readonly #parameters: GPUBuffer;
  readonly #chosen: GPUBuffer;
  #table: GPUBuffer | undefined;
  #group: GPUBindGroup | undefined;
  #count = 0;

  constructor(device: Device, pipelines: Pipelines, parts: ChoicesParts) {
    this.#device = device;
    this.#pipelines = pipelines;
    this.#parts = parts;
    this.#shader = chooseShader(device.isSoftware);
    const { uniform, copyTarget, copySource, storage } = bufferUsage;
    const parameters = parametersOf(parts.logits);
    this.#parameters = device.buffer("the parameters of sampling", parameters.byteLength, uniform | copyTarget);
    this.#chosen = device.buffer("the chosen tokens", 4 * maxTokens, storage | copySource);
    device.gpu.queue.writeBuffer(this.#parameters, 0, parameters);
  }

  /** Compiles the shader; before the first pass. @throws BackendError when it is refused */
  prepare(): Promise<void> {
    return this.#pipelines.make([this.#shader]);
  }

  /** Sends the choices of a pass; gives how many there are. */
  write(segments: readonly PassSegment[]): number {
    return this.writeAll(choicesOf(segments));
  }

  /** Sends choices, each with the row of logits that it is made from. */
  writeAll(choices: readonly { choice: TokenChoice; row: number }[]): number {
    this.#count = choices.length;
    if (choices.length === 0) return 0;
    const words = wordsOf(choices, this.#parts.logits.width);
    const { gpu } = this.#device;
    if (!this.#table || !this.#group || this.#table.size < words.byteLength) {
      this.#table?.destroy();
      const size = 2 * words.byteLength;
      this.#table = this.#device.buffer("the choices", size, bufferUsage.storage | bufferUsage.copyTarget);
      const { arena, vectors, given } = this.#parts;
      const buffers = [arena, this.#parameters, vectors, this.#table, this.#chosen, given];
      this.#group = gpu.createBindGroup({
        layout: this.#pipelines.layout,
        entries: buffers.map((buffer, binding) => ({ binding, resource: { buffer, size: sizeOf(buffer, binding) } })),
      });
    }
    gpu.queue.writeBuffer(this.#table, 0, words);
    return choices.length;
  }

  /** Makes all choices of a pass, and copies them to the beginning of a buffer. */
  encode(encoder: GPUCommandEncoder, target: GPUBuffer): void {
    this.#encode(encoder, 0, this.#count);
    encoder.copyBufferToBuffer(this.#chosen, 0, target, 0, 4 * this.#count);
  }

  /** Makes one of them, and puts the token to where the next pass finds it, and to its place in a buffer of all. */
  encodeNext(encoder: GPUCommandEncoder, index: number, target: GPUBuffer): void {
    this.#encode(encoder, index, 1);
    encoder.copyBufferToBuffer(this.#chosen, 4 * index, this.#parts.given, 4 * passLayout.tokens, 4);
    encoder.copyBufferToBuffer(this.#chosen, 4 * index, target, 4 * index, 4);
  }

  #encode(encoder: GPUCommandEncoder, first: number, count: number): void {
    const pass = encoder.beginComputePass();
    pass.setPipeline(this.#pipelines.of(this.#shader));
    pass.setBindGroup(0, this.#group as GPUBindGroup, [first * parameterStep]);
    pass.dispatchWorkgroups(1, count);
    pass.end();
  }

  dispose(): void {
    for (const buffer of [this.#parameters, this.#chosen, this.#table]) buffer?.destroy();
  }
}

/** The tokens that were chosen; -1 where logits are not numbers. */
export function readChosen(words: Uint32Array): number[] {
  return Array.from(words, (token) => (token === notANumber ? -1 : token));
}

const parametersBinding = 1;

/** Choices that can be made one by one, and bytes from the parameters of one to those of the next. */
export const mostAhead = 8;
const parameterStep = 256;

/** The parameters of all choices from the first on, from the second on, and so on. */
function parametersOf({ offset, width }: ChoicesParts["logits"]): Uint32Array<ArrayBuffer> {
  const words = new Uint32Array((mostAhead * parameterStep + parameterWindow) / 4);
  for (let choice = 0; choice < mostAhead; choice++) words.set([offset, width, choice], (choice * parameterStep) / 4);
  return words;
}

function sizeOf(buffer: GPUBuffer, binding: number): number {
  return binding === parametersBinding ? parameterWindow : buffer.size;
}

/** All choices, and behind them their adjustments and masks. */
function wordsOf(
  choices: readonly { choice: TokenChoice; row: number }[],
  vocabulary: number,
): Uint32Array<ArrayBuffer> {
  const maskWords = Math.ceil(vocabulary / 32);
  const length = choices.reduce(
    (sum, { choice }) => sum + 2 * choice.adjustments.tokens.length + (choice.mask ? maskWords : 0),
    choices.length * choiceFields.length,
  );
  const words = new Uint32Array(length);
  let at = choices.length * choiceFields.length;
  for (const [i, { choice, row }] of choices.entries()) {
    const { topK, temperature, topP, minP, uniform, adjustments, mask } = choice;
    const first = at;
    adjustments.tokens.forEach((token, j) => {
      words[at++] = token;
      words[at++] = floatBits(Math.max(adjustments.amounts[j] as number, bannedLogit));
    });
    const maskAt = mask ? at : noMask;
    if (mask) {
      words.set(mask.subarray(0, maskWords), at);
      at += maskWords;
    }
    words.set(
      [
        ...[row, Math.min(topK, 0xffffffff), floatBits(temperature), floatBits(topP), floatBits(minP)],
        ...[floatBits(uniform), first, adjustments.tokens.length, maskAt],
      ],
      i * choiceFields.length,
    );
  }
  return words;
}
