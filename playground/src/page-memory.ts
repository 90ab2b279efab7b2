// Whether a model's weights fit into a page. WebAssembly takes as many memories as a model needs, so what counts is the device.

import type { SizeChoice } from "./protocol.js";

/** "maybe" where nobody can tell. */
export type Fit = "yes" | "maybe" | "no";

const gib = 2 ** 30;
/** What a page takes for granted where its browser tells nothing: about one memory of WebAssembly. */
const usual = 3.75 * gib;
/** From here on, in GiB, browsers tell the largest number that they tell at all. */
const largestTold = 8;

/** Whether a page of this device has room for so many bytes. */
export function fitOf(bytes: number): Fit {
  // GiB, rounded to a power of two; Chromium alone tells it.
  const { deviceMemory } = navigator as { readonly deviceMemory?: number };
  if (deviceMemory === undefined) return bytes <= usual ? "yes" : "maybe";
  if (bytes <= 0.75 * deviceMemory * gib) return "yes";
  return deviceMemory < largestTold && bytes > 2 * deviceMemory * gib ? "no" : "maybe";
}

/** Of types from the most exact to the smallest the first that fits, else the smallest that may; undefined where none can. */
export function fittingOf(choices: readonly SizeChoice[]): SizeChoice | undefined {
  const withFit = (fit: Fit) => (choice: SizeChoice) => fitOf(choice.bytes) === fit;
  return choices.find(withFit("yes")) ?? choices.findLast(withFit("maybe"));
}
