// Official models by short names. Sizes and sums are those of josStorer/RWKV-Runner's manifest.json (commit 64269f0, 2026-05-08), which has
// them for every official model of its time; the sum of rwkv7-g1k-1.5b is from a training recipe that pins the file. Names of files and
// repositories are those of BlinkDL's repositories on the hub as other public code names them (to October 2026). A licence is that of the
// repository's card, where the card was seen. What was not found is left out.
//
// A name without a date stands for the newest file of its series; it is changed here when there is a newer one.

import type { ChatFormatName } from "../chat/formats.js";

/** An official model. */
export interface KnownModel {
  /** The short name. */
  readonly name: string;
  /** Its repository on the hub, as owner/name. */
  readonly repository: string;
  readonly file: string;
  /** Bytes of the file, exactly; absent where only a rounded figure is known. */
  readonly size?: number;
  /** SHA-256 of the file. */
  readonly sha256?: string;
  /** Billions of parameters, as the model is named. */
  readonly parameters: string;
  /** The tokenizer, which is in the package. */
  readonly tokenizer: "world";
  /** How its conversations are written. */
  readonly format: ChatFormatName;
  /** An SPDX identifier. */
  readonly licence?: string;
}

const g1 = { repository: "BlinkDL/rwkv7-g1", tokenizer: "world", format: "g1" } as const;
const world7 = {
  repository: "BlinkDL/rwkv-7-world",
  tokenizer: "world",
  format: "world",
  licence: "Apache-2.0",
} as const;
const world6 = { repository: "BlinkDL/rwkv-6-world", tokenizer: "world", format: "world" } as const;

/** All of them, the newest series first. */
export const knownModels: readonly KnownModel[] = [
  {
    ...g1,
    name: "rwkv7-g1-0.1b",
    file: "rwkv7-g1d-0.1b-20260129-ctx8192.pth",
    size: 382_223_725,
    sha256: "e10d7b1930c2644c5c6b194444774d6d82ec8212a78763493149de09aac7d83f",
    parameters: "0.1",
  },
  {
    ...g1,
    name: "rwkv7-g1-0.4b",
    file: "rwkv7-g1d-0.4b-20260210-ctx8192.pth",
    size: 901_776_749,
    sha256: "947cb9b8013224e06b112b72204256bec65096cc935a7767ce63d8e3ddef83bb",
    parameters: "0.4",
  },
  {
    ...g1,
    name: "rwkv7-g1-1.5b",
    file: "rwkv7-g1k-1.5b-20260930-ctx25600.pth",
    sha256: "dfc1fc450641d5e00c5f412b5530a17b2a734ac02bde04d98c57608f5daaf773",
    parameters: "1.5",
  },
  { ...g1, name: "rwkv7-g1-2.9b", file: "rwkv7-g1k-2.9b-20260930-ctx25600.pth", parameters: "2.9" },
  { ...g1, name: "rwkv7-g1-7.2b", file: "rwkv7-g1k-7.2b-20260930-ctx25600.pth", parameters: "7.2" },
  { ...g1, name: "rwkv7-g1-13.3b", file: "rwkv7-g1k-13.3b-20260930-ctx25600.pth", parameters: "13.3" },
  {
    ...world7,
    name: "rwkv7-world-0.1b",
    file: "RWKV-x070-World-0.1B-v2.8-20241210-ctx4096.pth",
    size: 382_195_690,
    sha256: "60c98129b9529963bff2c164b8ab4bd17c19332ae06dc2dcae32aa3a3739295a",
    parameters: "0.1",
  },
  {
    ...world7,
    name: "rwkv7-world-0.4b",
    file: "RWKV-x070-World-0.4B-v2.9-20250107-ctx4096.pth",
    size: 901_794_466,
    sha256: "c08cf602b33e59a5717b8f0cafaf7f04c50c1c67166e477aa2f47c5ca180da4a",
    parameters: "0.4",
  },
  {
    ...world7,
    name: "rwkv7-world-1.5b",
    file: "RWKV-x070-World-1.5B-v3-20250127-ctx4096.pth",
    size: 3_055_062_345,
    sha256: "23e13ff62ac6f80b28910ffc230324939e80ddb00b98f892a5951c0da071e700",
    parameters: "1.5",
  },
  {
    ...world7,
    name: "rwkv7-world-2.9b",
    file: "RWKV-x070-World-2.9B-v3-20250211-ctx4096.pth",
    size: 5_895_796_446,
    sha256: "5d7901b91ef1646115db03d03d171370bca454061ad426a1256fda9e1c428cf8",
    parameters: "2.9",
  },
  {
    ...world6,
    name: "rwkv6-world-1.6b",
    file: "RWKV-x060-World-1B6-v2.1-20240328-ctx4096.pth",
    size: 3_199_845_663,
    sha256: "cda1f0ebe802e2859bfa129546372fd1eac60319111f215f65ced67dd334db36",
    parameters: "1.6",
  },
  {
    ...world6,
    name: "rwkv6-world-3b",
    file: "RWKV-x060-World-3B-v2.1-20240417-ctx4096.pth",
    size: 6_199_859_158,
    sha256: "c7c4e68ea6d561661de0562c8f229e62668f9c2d804346a87ae28d6209cc4738",
    parameters: "3",
  },
  {
    ...world6,
    name: "rwkv6-world-7b",
    file: "RWKV-x060-World-7B-v3-20241112-ctx4096.pth",
    size: 15_271_627_549,
    sha256: "ad2809d8f49d14711dee58541226d9a2c9a46e9cbc0b19279f031721ecf87906",
    parameters: "7",
  },
  {
    ...world6,
    name: "rwkv6-world-14b",
    file: "RWKV-x060-World-14B-v2.1-20240719-ctx4096.pth",
    size: 28_138_429_796,
    sha256: "b65ad980b70833dbfab88c6894784cb0772ae15bd8850f23e7bc10334e785c06",
    parameters: "14",
  },
];
