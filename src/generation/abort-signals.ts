// Puts one listener on each signal, however many calls use it: Node warns of more than ten, and a long-lived signal
// must not keep alive what its users have dropped.

/** The callbacks of each signal. */
const watched = new WeakMap<AbortSignal, Set<() => void>>();
const dropped = new FinalizationRegistry<() => void>((stop) => stop());

/**
 * Calls `aborted` with `owner` when the signal is aborted, unless the owner has been collected by then.
 *
 * @param aborted must not keep a reference to the owner
 * @returns a function that stops listening
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
    const target = reference.deref();
    if (target) aborted(target);
  };
  const stop = () => {
    callbacks.delete(callback);
    dropped.unregister(stop);
  };
  callbacks.add(callback);
  dropped.register(owner, stop, stop);
  return stop;
}
