// How probable a token is by its logits.

/** -log softmax(logits)[token], in nats. */
export function negativeLogProbability(logits: Float32Array, token: number): number {
  const max = logits.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const sum = logits.reduce((total, logit) => total + Math.exp(logit - max), 0);
  return max + Math.log(sum) - (logits[token] as number);
}
