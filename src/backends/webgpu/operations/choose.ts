// Sampling: a workgroup a row of logits. It does what sampling/choose-token.ts does, without sorting: each cut keeps the tokens down to some
// logit, which is found by halving the range of floats as integers in their order. Its sums are of float32, so near the edge of a cut, and
// where the random number falls between two tokens, it may decide otherwise than the plain form.

import { makeShader, type Shader } from "../shader.js";
import { expFunction } from "../wgsl.js";

/** Words of a choice: how its token is to be sampled. They are followed by adjustments, two words each, and masks. */
export const choiceFields = [
  ...["row", "topK", "temperature", "topP", "minP", "uniform"],
  ...["adjustments", "adjustmentCount", "mask", "unused0", "unused1", "unused2"],
] as const;

/** Instead of the place of a mask. */
export const noMask = 0xffffffff;

/** Instead of a token, where logits are not numbers. */
export const notANumber = 0xffffffff;

/** What a token that may not be sampled has for a logit. */
export const bannedLogit = -3e38;

/**
 * The shader for a vocabulary. The choices are where other shaders have weights, and the tokens that it chooses go where others have states.
 * Logits are changed: adjusted, and those of banned tokens made the least there are.
 */
export function chooseShader(isSoftware: boolean): Shader {
  const workgroup = isSoftware ? 16 : 256;
  return makeShader({
    label: "choose",
    fields: ["logits", "vocabulary", "choice"],
    workgroup,
    arena: "u32",
    states: "u32",
    declarations: `${expFunction}
var<workgroup> floats: array<f32, ${workgroup}>;
var<workgroup> counts: array<u32, ${workgroup}>;
var<workgroup> chosen: u32;

fn word(i: u32) -> u32 { return weights[i / 4u][i & 3u]; }

// An integer in the order of floats.
fn keyOf(bits: u32) -> u32 { return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u); }
fn logitOf(key: u32) -> f32 { return bitcast<f32>(select(~key, key & 0x7fffffffu, (key & 0x80000000u) != 0u)); }

fn totalOf(lane: u32, value: f32) -> f32 {
  workgroupBarrier();
  floats[lane] = value;
  for (var step = ${workgroup / 2}u; step > 0u; step >>= 1u) {
    workgroupBarrier();
    if (lane < step) { floats[lane] += floats[lane + step]; }
  }
  return workgroupUniformLoad(&floats[0]);
}
fn countOf(lane: u32, value: u32) -> u32 {
  workgroupBarrier();
  counts[lane] = value;
  for (var step = ${workgroup / 2}u; step > 0u; step >>= 1u) {
    workgroupBarrier();
    if (lane < step) { counts[lane] += counts[lane + step]; }
  }
  return workgroupUniformLoad(&counts[0]);
}
fn largestOf(lane: u32, value: u32) -> u32 {
  workgroupBarrier();
  counts[lane] = value;
  for (var step = ${workgroup / 2}u; step > 0u; step >>= 1u) {
    workgroupBarrier();
    if (lane < step) { counts[lane] = max(counts[lane], counts[lane + step]); }
  }
  return workgroupUniformLoad(&counts[0]);
}

// The sum of e^(logit - most) over the logits from a key on.
fn weightFrom(lane: u32, first: u32, size: u32, most: f32, least: u32) -> f32 {
  var sum = 0.0;
  for (var i = lane; i < size; i += ${workgroup}u) {
    let bits = arena[first + i];
    if (keyOf(bits) >= least) { sum += expOf(bitcast<f32>(bits) - most); }
  }
  return totalOf(lane, sum);
}
fn countFrom(lane: u32, first: u32, size: u32, least: u32) -> u32 {
  var count = 0u;
  for (var i = lane; i < size; i += ${workgroup}u) { count += select(0u, 1u, keyOf(arena[first + i]) >= least); }
  return countOf(lane, count);
}`,
    body: `
  let index = p.choice + row;
  let choice = index * ${choiceFields.length}u;
  let size = p.vocabulary;
  let first = p.logits + word(choice) * size;
  let topK = word(choice + 1u);
  let temperature = bitcast<f32>(word(choice + 2u));
  let topP = bitcast<f32>(word(choice + 3u));
  let minP = bitcast<f32>(word(choice + 4u));
  let uniformNumber = bitcast<f32>(word(choice + 5u));
  let adjustments = word(choice + 6u);
  let mask = word(choice + 8u);
  for (var i = lane; i < word(choice + 7u); i += ${workgroup}u) {
    let at = first + word(adjustments + 2u * i);
    arena[at] = bitcast<u32>(bitcast<f32>(arena[at]) + bitcast<f32>(word(adjustments + 2u * i + 1u)));
  }
  storageBarrier();
  workgroupBarrier();

  // Whether all are numbers, masks, and the largest.
  var largest = 0u;
  var wrong = 0u;
  let banned = bitcast<u32>(f32(${bannedLogit.toExponential()}));
  for (var i = lane; i < size; i += ${workgroup}u) {
    let bits = arena[first + i];
    let isInfinite = (bits & 0x7f800000u) == 0x7f800000u;
    if (isInfinite && bits != 0xff800000u) { wrong = 1u; }
    var kept = bits;
    if (isInfinite) { kept = banned; }
    if (mask != ${noMask}u) {
      if (((word(mask + i / 32u) >> (i & 31u)) & 1u) == 0u) { kept = banned; }
    }
    if (kept != bits) { arena[first + i] = kept; }
    largest = max(largest, keyOf(kept));
  }
  storageBarrier();
  let mostKey = largestOf(lane, largest);
  let most = logitOf(mostKey);
  if (countOf(lane, wrong) > 0u || most < -1e38) {
    if (lane == 0u) { states[index] = ${notANumber}u; }
    return;
  }

  // Cuts: the least key that each keeps. The largest logit is always kept.
  var least = 0u;
  if (temperature == 0.0) { least = mostKey; }
  if (minP > 0.0 && temperature > 0.0) { least = keyOf(bitcast<u32>(most + log(minP))); }
  if (topP < 1.0 && temperature > 0.0) {
    let wanted = topP * weightFrom(lane, first, size, most, 0u);
    var low = 0u;
    var high = mostKey;
    while (low < high) {
      let middle = low + (high - low + 1u) / 2u;
      if (weightFrom(lane, first, size, most, middle) > wanted) { low = middle; } else { high = middle - 1u; }
    }
    least = max(least, low);
  }
  // Of those that are as large as the last of the first k, which are kept in the order of their ids.
  var tied = 0xffffffffu;
  var leastOfK = 0u;
  if (topK > 0u && topK < size && temperature > 0.0) {
    var low = 0u;
    var high = mostKey;
    while (low < high) {
      let middle = low + (high - low + 1u) / 2u;
      if (countFrom(lane, first, size, middle) >= topK) { low = middle; } else { high = middle - 1u; }
    }
    leastOfK = low;
    if (low < mostKey) { tied = topK - countFrom(lane, first, size, low + 1u); } else { tied = topK; }
  }
  least = min(max(least, leastOfK), mostKey);

  // Each lane has consecutive tokens, so that they are taken in the order of their ids.
  let each = (size + ${workgroup - 1}u) / ${workgroup}u;
  let begin = min(lane * each, size);
  let end = min(begin + each, size);
  var ties = 0u;
  for (var i = begin; i < end; i++) { ties += select(0u, 1u, keyOf(arena[first + i]) == leastOfK); }
  workgroupBarrier();
  counts[lane] = ties;
  workgroupBarrier();
  ties = 0u;
  for (var i = 0u; i < lane; i++) { ties += counts[i]; }
  let tiesBefore = ties;
  let divisor = select(1.0, temperature, temperature > 0.0);
  var sum = 0.0;
  for (var i = begin; i < end; i++) {
    let bits = arena[first + i];
    let key = keyOf(bits);
    if (key == leastOfK) { ties++; }
    if (key >= least && !(key == leastOfK && ties > tied)) { sum += expOf((bitcast<f32>(bits) - most) / divisor); }
  }
  let total = totalOf(lane, sum);
  workgroupBarrier();
  floats[lane] = sum;
  if (lane == 0u) { chosen = 0u; }
  workgroupBarrier();
  // The first lane in whose tokens the random share of the total is passed; where rounding keeps it from that, the last with any.
  if (lane == 0u) {
    var passed = 0.0;
    for (var i = 0u; i < ${workgroup}u; i++) {
      if (floats[i] == 0.0) { continue; }
      chosen = i;
      if (temperature == 0.0 || passed + floats[i] > uniformNumber * total) { break; }
      passed += floats[i];
    }
    floats[0] = select(uniformNumber * total - passed, 0.0, temperature == 0.0);
  }
  workgroupBarrier();
  if (lane == chosen) {
    var left = floats[0];
    var token = begin;
    ties = tiesBefore;
    for (var i = begin; i < end; i++) {
      let bits = arena[first + i];
      let key = keyOf(bits);
      if (key == leastOfK) { ties++; }
      if (key < least || (key == leastOfK && ties > tied)) { continue; }
      let weight = expOf((bitcast<f32>(bits) - most) / divisor);
      if (weight == 0.0) { continue; }
      token = i;
      left -= weight;
      if (left < 0.0) { break; }
    }
    states[index] = token;
  }`,
  });
}
