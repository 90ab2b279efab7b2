// What operations write their part of a shader for one token of each sequence with (channels.ts).

import type { RowNode } from "../../graph/graph.js";
import type { Operands } from "./operands.js";

/** Lanes of a workgroup, and channels of it. */
export const channelsTogether = 64;

/** What an operation of a region writes its code with. */
export interface ChannelWriter {
  readonly operands: Operands;
  /** Channels of all rows. */
  readonly width: number;
  /** A parameter, as an expression. */
  parameter(value: number): string;
  /** WGSL for an input at the lane's channel; 0 behind the last. @param repeat channels that each of its elements stands for */
  valueOf(node: RowNode, repeat?: number): string;
  /** Says by which expression a value is known, and stores it where somebody else needs it. */
  define(node: RowNode, expression: string): void;
  /** Memory of the workgroup, an element a lane. */
  shared(type: string): string;
  /** A name that nobody else has. */
  name(): string;
  line(text: string): void;
}
