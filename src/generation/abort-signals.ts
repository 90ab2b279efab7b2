// One listener for each signal, however many calls it is given to: Node warns of more than ten, and a signal that lives long must not
// keep alive what was dropped.

/** What is to be called, by signal. */
const watched = new WeakMap<AbortSignal, Set<() => void>>();
const dropped = new FinalizationRegistry<() => void>((stop) => stop());

/**
 * Calls `aborted` with `owner` when the signal is aborted, unless the owner has been collected by then.
 *
 * @param aborted must not refer to the owner by itself
 * @returns a function that ends this
 */
export function onAbort<T extends object>(signal: AbortSignal, owner: T, aborted: (owner: T) => void): () => void {
  const callbacks = watched.get(signal) ?? new Set();
  if (!watched.has(signal)) {
    watched.set(signal, callbacks);
    signal.addEventListener("abort", () => {
      for (const callback of [...callbacks]) callback();
    });
  }
  const reference = new WeakRef(owner);
  const callback = () => {
    const living = reference.deref();
    if (living) aborted(living);
  };
  const stop = () => {
    callbacks.delete(callback);
    dropped.unregister(stop);
  };
  callbacks.add(callback);
  dropped.register(owner, stop, stop);
  return stop;
}
