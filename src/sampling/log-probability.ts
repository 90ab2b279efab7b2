// Log-probabilities of tokens, from logits.

/** A token and its log-probability, in nats. */
export interface TokenLogProbability {
  readonly token: number;
  readonly logProbability: number;
}

/** The logarithm of the sum of e^logit over all tokens. A logit minus this is a log-probability. */
function logSumOfExponentials(logits: Float32Array): number {
  let max = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < logits.length; i++) max = Math.max(max, logits[i] as number);
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += Math.exp((logits[i] as number) - max);
  return max + Math.log(sum);
}

/** -log softmax(logits)[token], in nats. */
export function negativeLogProbability(logits: Float32Array, token: number): number {
  return logSumOfExponentials(logits) - (logits[token] as number);
}

/**
 * The log-probability of a token and those of the most probable tokens, in nats, the most probable first and equal
 * ones by id.
 *
 * @param count how many of the most probable tokens to return
 */
export function logProbabilities(
  logits: Float32Array,
  token: number,
  count: number,
): { chosen: number; top: TokenLogProbability[] } {
  const total = logSumOfExponentials(logits);
  const top: TokenLogProbability[] = [];
  let least = Number.NEGATIVE_INFINITY; // a logit must be larger than this to be among the most probable
  for (let i = 0; count > 0 && i < logits.length; i++) {
    const logit = logits[i] as number;
    if (top.length === count && logit <= least) continue;
    const entry = { token: i, logProbability: logit - total };
    const at = top.findIndex((other) => other.logProbability < entry.logProbability);
    top.splice(at < 0 ? top.length : at, 0, entry);
    if (top.length > count) top.pop();
    least = (top.at(-1) as TokenLogProbability).logProbability + total;
  }
  return { chosen: (logits[token] as number) - total, top };
}
