// A text of tokens, each tinted by its probability, with what else it could have been. One stop of the keyboard: arrows move within.

import { memo } from "preact/compat";
import { useEffect, useRef, useState } from "preact/hooks";
import type { WrittenToken } from "../protocol.js";
import { percentText, texts, visible } from "../texts/texts.js";

interface TokenTextProps {
  readonly prompt: string;
  readonly tokens: readonly WrittenToken[];
  readonly isWriting: boolean;
  readonly onChoose: (at: number, id: number, text: string, probability: number) => void;
}

export function TokenText({ prompt, tokens, isWriting, onChoose }: TokenTextProps) {
  const t = texts.value.complete;
  /** The token that is pointed at, and whether it stays so. */
  const [pointed, setPointed] = useState<{ readonly at: number; readonly isHeld: boolean } | undefined>(undefined);
  const text = useRef<HTMLParagraphElement>(null);
  const token = pointed && tokens[pointed.at];
  useEffect(() => {
    if (tokens.length === 0) setPointed(undefined);
  }, [tokens.length]);
  const focusOn = (at: number) => {
    const place = Math.max(0, Math.min(tokens.length - 1, at));
    setPointed({ at: place, isHeld: true });
    (text.current?.querySelector(`[data-at="${place}"]`) as HTMLElement | null)?.focus();
  };
  const atOf = (event: Event) => {
    const found = (event.target as HTMLElement).closest?.("[data-at]");
    return found ? Number(found.getAttribute("data-at")) : undefined;
  };
  return (
    <div class="token-text">
      <p
        ref={text}
        class={`story ${isWriting ? "is-writing" : ""}`}
        data-testid="tokens"
        onPointerOver={(event) => {
          const at = atOf(event);
          if (at !== undefined && !pointed?.isHeld) setPointed({ at, isHeld: false });
        }}
        onFocusIn={(event) => {
          const at = atOf(event);
          if (at !== undefined && !pointed?.isHeld) setPointed({ at, isHeld: false });
        }}
        onClick={(event) => {
          const at = atOf(event);
          if (at !== undefined) setPointed(pointed?.at === at && pointed.isHeld ? undefined : { at, isHeld: true });
        }}
        onKeyDown={(event) => {
          const at = atOf(event);
          if (at === undefined) return;
          const moves: Readonly<Record<string, number>> = {
            ArrowRight: at + 1,
            ArrowLeft: at - 1,
            Home: 0,
            End: tokens.length - 1,
          };
          const to = moves[event.key];
          if (to !== undefined) {
            event.preventDefault();
            focusOn(to);
          } else if (event.key === "Escape") setPointed(undefined);
          else if (event.key === "Enter" || event.key === "ArrowDown") {
            event.preventDefault();
            setPointed({ at, isHeld: true });
            requestAnimationFrame(() => document.querySelector<HTMLElement>(".alternatives button")?.focus());
          }
        }}
      >
        <span class="prompt">{prompt}</span>
        {tokens.map((one, at) => (
          <TokenSpan key={at} at={at} token={one} isPointed={pointed?.at === at} isStop={at === (pointed?.at ?? 0)} />
        ))}
      </p>
      {token && (
        <section
          class="alternatives"
          aria-label={t.alternatives}
          onKeyDown={(event) => {
            if (event.key === "Escape") focusOn(pointed.at);
          }}
        >
          <p class="note">
            {t.instead} <code>{visible(token.text)}</code>
            {Number.isFinite(token.probability) && ` · ${t.probability} ${percentText(token.probability)}`}
          </p>
          <ul>
            {token.others.map((other) => (
              <li key={other.id < 0 ? other.text : other.id}>
                <button
                  type="button"
                  class={other.text === token.text ? "is-chosen" : ""}
                  onClick={() => {
                    onChoose(pointed.at, other.id, other.text, other.probability);
                    setPointed(undefined);
                  }}
                >
                  <code>{visible(other.text)}</code>
                  <meter min={0} max={1} value={other.probability} aria-hidden="true" />
                  <span>{percentText(other.probability)}</span>
                </button>
              </li>
            ))}
          </ul>
        </section>
      )}
    </div>
  );
}

interface TokenSpanProps {
  readonly at: number;
  readonly token: WrittenToken;
  readonly isPointed: boolean;
  /** Whether the keyboard comes to this one. */
  readonly isStop: boolean;
}

const TokenSpan = memo(({ at, token, isPointed, isStop }: TokenSpanProps) => (
  // biome-ignore lint/a11y/useSemanticElements: a button would not flow from line to line as text does
  <span
    data-at={at}
    role="button"
    tabIndex={isStop ? 0 : -1}
    aria-pressed={isPointed}
    aria-label={token.text.trim() === "" ? visible(token.text) || "·" : undefined}
    class={`token sure-${sureness(token.probability)} ${isPointed ? "is-pointed" : ""} ${/^\s*\n/.test(token.text) ? "is-break" : ""}`}
  >
    {token.text}
  </span>
));

/** From 0, surprising, to 4, sure. */
function sureness(probability: number): number {
  if (!Number.isFinite(probability)) return 4;
  return [0.02, 0.1, 0.3, 0.7].filter((bound) => probability >= bound).length;
}
