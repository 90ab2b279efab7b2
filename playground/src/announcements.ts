// What readers of a screen are told of models that come, without being asked: how far they are in quarters, and that they are there. Why one
// did not come is an alert where it is shown.

import { signal } from "@preact/signals";
import { texts } from "./texts/texts.js";

export const announcement = signal("");

export function announce(text: string): void {
  announcement.value = text;
}

/** Announces each quarter of something once. @param text what is going on */
export function quarterly(text: () => string): (share: number) => void {
  let told = -1;
  return (share) => {
    const quarter = Math.floor(share * 4);
    if (quarter <= told || quarter >= 4) return;
    told = quarter;
    announce(texts.value.model.soFar(text(), 25 * quarter));
  };
}
