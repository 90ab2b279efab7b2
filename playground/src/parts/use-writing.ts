// A text that an engine writes for a view: its tokens as they come, how it ended, and a way to stop it.

import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { engine } from "../model-state.js";
import type { CompleteRequest, Ending, WrittenToken } from "../protocol.js";

export interface Writing {
  readonly tokens: readonly WrittenToken[];
  readonly isRunning: boolean;
  readonly ending: Ending | undefined;
  readonly error: string | undefined;
  /** Writes behind what is kept of the tokens before. Another text that is in progress is stopped first. */
  write(request: CompleteRequest, kept?: readonly WrittenToken[], how?: { readonly isUnasked: boolean }): void;
  stop(): void;
  /** Shows tokens that were written before. */
  show(tokens: readonly WrittenToken[]): void;
}

export function useWriting(): Writing {
  const [tokens, setTokens] = useState<readonly WrittenToken[]>([]);
  const [isRunning, setRunning] = useState(false);
  const [ending, setEnding] = useState<Ending | undefined>(undefined);
  const [error, setError] = useState<string | undefined>(undefined);
  const running = useRef<AbortController | undefined>(undefined);
  const stop = useCallback(() => running.current?.abort(), []);
  useEffect(() => stop, [stop]);
  const write = useCallback(
    (request: CompleteRequest, kept: readonly WrittenToken[] = [], how = { isUnasked: false }) => {
      const own = engine.peek();
      if (!own) return;
      running.current?.abort();
      const controller = new AbortController();
      running.current = controller;
      const isCurrent = () => running.current === controller;
      const all = [...kept];
      let frame = 0;
      const show = () => {
        frame = 0;
        if (isCurrent()) setTokens([...all]);
      };
      setTokens(kept);
      setEnding(undefined);
      setError(undefined);
      setRunning(true);
      const onPiece = (token: WrittenToken) => {
        all.push(token);
        frame ||= requestAnimationFrame(show);
      };
      own
        .complete(request, { signal: controller.signal, onPiece, ...how })
        .then(
          (end) => isCurrent() && setEnding(end),
          (reason: Error) => isCurrent() && !controller.signal.aborted && setError(reason.message),
        )
        .finally(() => {
          cancelAnimationFrame(frame);
          show();
          if (isCurrent()) setRunning(false);
        });
    },
    [],
  );
  return { tokens, isRunning, ending, error, write, stop, show: setTokens };
}
