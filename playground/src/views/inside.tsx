// What each token does in the network: the lab's explanation of a text, anew as it is typed.

import { useEffect, useState } from "preact/hooks";
import type { Explanation, LayerExplanation } from "rwkv/lab";
import { callWorker } from "../engines/worker-client.js";
import { facts } from "../model-state.js";
import { Scrolled } from "../parts/scrolled.js";
import { TokenMap } from "../parts/token-map.js";
import { percentText, texts, visible } from "../texts/texts.js";

/** Milliseconds after the last key. */
const pause = 250;
const mostParameters = 64e6;

export function Inside() {
  const t = texts.value.inside;
  const [typed, setTyped] = useState<string | undefined>(undefined);
  const [explanation, setExplanation] = useState<Explanation | undefined>(undefined);
  const [error, setError] = useState<string | undefined>(undefined);
  const [isComputing, setComputing] = useState(false);
  const known = facts.value;
  const isTooLarge = known !== undefined && known.parameters > mostParameters;
  const text = typed ?? t.example;
  const isReady = known?.tokenizer !== undefined && !isTooLarge;
  useEffect(() => {
    setExplanation(undefined);
  }, [known]);
  useEffect(() => {
    if (!isReady || text === "") return;
    let isCurrent = true;
    const timer = setTimeout(
      async () => {
        setComputing(true);
        try {
          const found = await callWorker("explain", text);
          if (isCurrent) {
            setExplanation(found);
            setError(undefined);
          }
        } catch (reason) {
          const { message } = reason as Error;
          if (isCurrent) setError(/tokens, found/.test(message) ? t.tooMany : message);
        } finally {
          if (isCurrent) setComputing(false);
        }
      },
      explanation ? pause : 0,
    );
    return () => {
      isCurrent = false;
      clearTimeout(timer);
    };
  }, [text, isReady, known]);
  return (
    <div class="inside">
      <h1>{t.title}</h1>
      <p class="lead">{t.lead}</p>
      {!known && <p class="notice">{t.local}</p>}
      {isTooLarge && <p class="notice">{t.tooLarge}</p>}
      <label class="field">
        <span>{t.prompt}</span>
        <textarea rows={2} value={text} onInput={(event) => setTyped(event.currentTarget.value)} />
      </label>
      <p class="note" role="status">
        {isComputing && !explanation ? `${t.computing}…` : " "}
      </p>
      {error !== undefined && (
        <p class="error" role="alert">
          {error}
        </p>
      )}
      {explanation && isReady && <Explained explanation={explanation} />}
    </div>
  );
}

function Explained({ explanation: { tokens, layers } }: { readonly explanation: Explanation }) {
  const t = texts.value.inside;
  const names = tokens.map(({ text }) => text);
  return (
    <div data-testid="explanation">
      <h2>{t.weights}</h2>
      <p class="note">{t.weightsAbout}</p>
      <div class="maps">
        {layers.map(({ layer, weights, reach }) => (
          <TokenMap
            key={layer}
            title={`${t.layer(layer + 1)}: ${t.reach((reach.at(-1) ?? 0).toFixed(1))}`}
            rows={weights}
            names={names}
          />
        ))}
      </div>
      <h2>{t.strips}</h2>
      <p class="note">{t.stripsAbout}</p>
      <Strips layers={layers} names={names} />
      <h2>{t.halfLives}</h2>
      <p class="note">{t.halfLivesAbout}</p>
      <HalfLives layers={layers} />
      <h2>{t.predictions}</h2>
      <p class="note">{t.predictionsAbout}</p>
      <Predictions tokens={names} layers={layers} />
    </div>
  );
}

type Layers = readonly LayerExplanation[];

function Strips({ layers, names }: { readonly layers: Layers; readonly names: readonly string[] }) {
  const t = texts.value.inside;
  return (
    <Scrolled label={t.strips}>
      <table class="strips">
        <thead>
          <tr>
            <td />
            {names.map((name, i) => (
              <th key={i} scope="col">
                <span>{visible(name)}</span>
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {layers.flatMap(({ layer, receptance, key, value }) =>
            (
              [
                ["r", receptance],
                ["k", key],
                ["v", value],
              ] as const
            ).map(([name, values]) => {
              const [least, most] = [Math.min(...values), Math.max(...values)];
              return (
                <tr key={`${layer}${name}`}>
                  <th scope="row">
                    {name}
                    <sub>{layer + 1}</sub>
                  </th>
                  {values.map((one, i) => (
                    <td key={i} title={one.toFixed(3)}>
                      <span style={{ opacity: most > least ? 0.05 + (0.95 * (one - least)) / (most - least) : 0.05 }} />
                    </td>
                  ))}
                </tr>
              );
            }),
          )}
        </tbody>
      </table>
    </Scrolled>
  );
}

/** Half-lives are drawn from this many tokens to that many, by powers of ten. */
const [shortest, longest] = [0.1, 10_000];

function HalfLives({ layers }: { readonly layers: Layers }) {
  const t = texts.value.inside;
  const x = (tokens: number) =>
    (Math.log10(Math.min(longest, Math.max(shortest, tokens)) / shortest) / Math.log10(longest / shortest)) * 600 + 60;
  const height = layers.length * 34 + 24;
  return (
    <svg viewBox={`0 0 680 ${height}`} class="plot" role="img" aria-label={t.halfLives}>
      {[0.1, 1, 10, 100, 1000, 10_000].map((tokens) => (
        <g key={tokens}>
          <line x1={x(tokens)} x2={x(tokens)} y1={0} y2={height - 20} class="grid" />
          <text x={x(tokens)} y={height - 4} text-anchor="middle">
            {tokens}
          </text>
        </g>
      ))}
      {layers.map(({ layer, half_lives: all }, i) => (
        <g key={layer}>
          <text x={0} y={i * 34 + 22}>
            {t.layer(layer + 1)}
          </text>
          <path d={all.map((one) => `M${x(one).toFixed(1)} ${i * 34 + 6}v24`).join("")} class="tick" />
        </g>
      ))}
    </svg>
  );
}

function Predictions({ tokens, layers }: { readonly tokens: readonly string[]; readonly layers: Layers }) {
  const t = texts.value.inside;
  return (
    <Scrolled label={t.predictions}>
      <table class="figures-table">
        <thead>
          <tr>
            <th scope="col">{t.after}</th>
            {layers.map(({ layer }) => (
              <th key={layer} scope="col">
                {t.layer(layer + 1)}
              </th>
            ))}
            <th scope="col">{t.followed}</th>
          </tr>
        </thead>
        <tbody>
          {tokens.map((token, i) => (
            <tr key={i}>
              <th scope="row">
                <code>{visible(token)}</code>
              </th>
              {layers.map(({ layer, predictions }) => {
                const prediction = predictions[i];
                const isRight = prediction?.text === tokens[i + 1];
                return (
                  <td key={layer} class={isRight ? "is-right" : undefined}>
                    <code>{visible(prediction?.text ?? "")}</code>{" "}
                    <small>{percentText(prediction?.probability ?? 0)}</small>
                  </td>
                );
              })}
              <td>
                <code>{visible(tokens[i + 1] ?? "")}</code>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </Scrolled>
  );
}
