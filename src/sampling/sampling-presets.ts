// Sampling options that are recommended for RWKV models, by what they are to write.
//
// The first two are those of the author of RWKV for G1 models (the second with the penalties of the first); the others are those of
// https://rwkv.cn/RWKV-Prompts/RWKV-Parameters. All are made for the order in which RWKV samples: temperature after the cuts.

import type { SamplingOptions } from "./sampling-options.js";

/** What a preset says. */
export type SamplingPreset = Readonly<
  Required<
    Pick<SamplingOptions, "temperature" | "topP" | "topK" | "presencePenalty" | "frequencyPenalty" | "penaltyDecay">
  >
>;

const penalties = { presencePenalty: 1, frequencyPenalty: 0.1, penaltyDecay: 0.988 };
const noPenalties = { presencePenalty: 0, frequencyPenalty: 0, penaltyDecay: 0.996 };

/** Sampling options by name, to be spread into the options of a generation. */
export const samplingPresets = {
  /** Answers of G1 models after a thought. */
  thinking: { temperature: 0.96, topP: 0.76, topK: 32, ...penalties },
  /** Their answers without one. */
  direct: { temperature: 1, topP: 0.28, topK: 32, ...penalties },
  /** Conversations. */
  chat: { temperature: 1, topP: 0.3, topK: 0, presencePenalty: 0.5, frequencyPenalty: 0.5, penaltyDecay: 0.996 },
  /** Stories and other free texts. */
  creative: { temperature: 0.6, topP: 0.8, topK: 0, presencePenalty: 2, frequencyPenalty: 0.2, penaltyDecay: 0.99 },
  /** Facts, translations, and summaries. */
  conservative: { temperature: 0.3, topP: 0.3, topK: 0, ...noPenalties },
  /** Always the most probable token. */
  deterministic: { temperature: 0, topP: 0, topK: 0, ...noPenalties },
} as const satisfies Record<string, SamplingPreset>;

export type SamplingPresetName = keyof typeof samplingPresets;
