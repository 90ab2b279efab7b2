// What the page says, in the language that the user reads.

import { computed, effect } from "@preact/signals";
import { language } from "../settings.js";
import { en, type Texts } from "./en.js";
import { zh } from "./zh.js";

export const texts = computed<Texts>(() => (language.value === "zh" ? zh : en));

effect(() => {
  document.documentElement.lang = language.value === "zh" ? "zh-CN" : "en";
  document.title = texts.value.title;
});

/** "5.4 MB" */
export function byteText(bytes: number): string {
  const [unit, divisor] = bytes >= 1e9 ? ["GB", 1e9] : bytes >= 1e6 ? ["MB", 1e6] : ["kB", 1e3];
  const value = bytes / (divisor as number);
  return `${value.toFixed(value < 10 ? 1 : 0)} ${unit}`;
}

/** "2.7 million" as "2.7 M" */
export function countText(count: number): string {
  const [unit, divisor] =
    count >= 1e9 ? [" B", 1e9] : count >= 1e6 ? [" M", 1e6] : count >= 1e4 ? [" k", 1e3] : ["", 1];
  const value = count / (divisor as number);
  return `${unit === "" ? value : value.toFixed(value < 10 ? 1 : 0)}${unit}`;
}

export function speedText(tokensPerSecond: number): string {
  return tokensPerSecond >= 100 ? tokensPerSecond.toFixed(0) : tokensPerSecond.toFixed(1);
}

export function percentText(share: number): string {
  return `${(share * 100).toFixed(share < 0.0995 ? 1 : 0)} %`;
}

/** A token's text with its blanks seen. */
export function visible(text: string): string {
  return text.replaceAll("\n", "↵").replaceAll("\t", "⇥").replaceAll(" ", "␣");
}
