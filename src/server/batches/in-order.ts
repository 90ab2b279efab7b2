// Work on many things at once, whose results come in the order of the things.

/** How much is in progress. */
export interface InOrderLimits<Thing> {
  /** Things that are worked on at once. */
  readonly atOnce: number;
  /** As how many things one counts; one that counts as more than `atOnce` is worked on alone. By default each is one. */
  readonly weigh?: (thing: Thing) => number;
  /** Things that are worked on, or whose results wait for those before them. */
  readonly ahead: number;
}

/**
 * Works on things as they come.
 *
 * @param work what it fails with is thrown where its result would have been
 */
export async function* inOrder<Thing, Result>(
  things: AsyncIterable<Thing>,
  work: (thing: Thing) => Promise<Result>,
  { atOnce, weigh = () => 1, ahead }: InOrderLimits<Thing>,
): AsyncGenerator<Result, void, void> {
  const source = things[Symbol.asyncIterator]();
  const results: Promise<Result>[] = [];
  /** What was taken and waits until there is place for it. */
  let next: { readonly thing: Thing; readonly weight: number } | undefined;
  let running = 0;
  let isOver = false;
  let filling: Promise<void> | undefined;
  const fill = async () => {
    while (!isOver && running < atOnce && results.length < ahead) {
      if (!next) {
        const { value, done } = await source.next();
        if (done) isOver = true;
        if (isOver) return;
        next = { thing: value as Thing, weight: Math.min(atOnce, weigh(value as Thing)) };
      }
      const { thing, weight } = next;
      if (running + weight > atOnce) return;
      next = undefined;
      running += weight;
      const result = work(thing).finally(() => {
        running -= weight;
        refill();
      });
      result.catch(() => {}); // it is told where it is waited for
      results.push(result);
    }
  };
  let failure: Promise<never> | undefined;
  const refill = () => {
    filling ??= fill()
      .catch((error) => {
        isOver = true;
        failure = Promise.reject(error);
        failure.catch(() => {});
      })
      .finally(() => {
        filling = undefined;
      });
    return filling;
  };
  try {
    for (;;) {
      if (results.length === 0) await refill();
      const first = results[0];
      if (!first) break;
      const result = await first;
      results.shift();
      void refill();
      yield result;
    }
    await failure;
  } finally {
    isOver = true;
    await filling;
    await Promise.allSettled(results);
    await source.return?.();
  }
}
