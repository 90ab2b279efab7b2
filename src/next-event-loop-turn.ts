// Runs a callback in the next turn of the event loop, after everything that is ready now has run, promises included.

/** Schedules `callback`; timers are not used, because pages make them wait for 4 ms and more. */
export const inNextTurn: (callback: () => void) => void =
  typeof setImmediate === "function" ? (callback) => void setImmediate(callback) : viaMessages();

function viaMessages(): (callback: () => void) => void {
  const callbacks: (() => void)[] = [];
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = () => callbacks.shift()?.();
  return (callback) => {
    callbacks.push(callback);
    port2.postMessage(undefined);
  };
}
