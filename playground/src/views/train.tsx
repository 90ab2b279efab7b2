// A new model learns from a text: the curve of its loss, a text that it writes, and its file.

import { useEffect, useRef, useState } from "preact/hooks";
import { busyWith } from "../busy.js";
import { download } from "../downloads.js";
import { localEngine } from "../engines/engine.js";
import { engine, facts, loadModel } from "../model-state.js";
import { useWriting } from "../parts/use-writing.js";
import type { Trained, TrainPiece } from "../protocol.js";
import { countText, speedText, texts } from "../texts/texts.js";
import { beginTraining, endTraining, training, trainingText } from "../training-state.js";

const leastCharacters = 2000;
const sizes = { small: { layers: 2, width: 128 }, medium: { layers: 4, width: 192 } } as const;

export function Train() {
  const t = texts.value;
  const { pieces, trained, error, isRunning } = training.value;
  const text = trainingText.value;
  const [seconds, setSeconds] = useState(60);
  const [size, setSize] = useState<keyof typeof sizes>("small");
  const [isSampling, setSampling] = useState(false);
  const sampling = useRef<AbortController | undefined>(undefined);
  const file = useRef<HTMLInputElement>(null);
  useEffect(() => () => sampling.current?.abort(), []);
  /** A text to begin with, where nobody has one at hand. */
  const sample = async () => {
    const controller = new AbortController();
    sampling.current = controller;
    setSampling(true);
    try {
      let tale = "Once upon a time";
      const options = {
        temperature: 0.9,
        topP: 0.9,
        topK: 0,
        presencePenalty: 0,
        frequencyPenalty: 0,
        penaltyDecay: 0.996,
      };
      while (tale.length < 12_000 && !controller.signal.aborted) {
        const request = { prompt: tale.slice(-400), kept: [], sampling: options, maxTokens: 400 };
        let more = "";
        await localEngine.complete(request, { signal: controller.signal, onPiece: (token) => (more += token.text) });
        tale += more === "" ? "\n\nOnce upon a time" : more;
        trainingText.value = tale;
      }
    } catch (reason) {
      training.value = { ...training.value, error: (reason as Error).message };
    } finally {
      setSampling(false);
    }
  };
  const isTooShort = text.length < leastCharacters;
  const isLocal = facts.value?.tokenizer !== undefined;
  return (
    <div class="train">
      <h1>{t.train.title}</h1>
      <p class="lead">{t.train.lead}</p>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (!isRunning && !isTooShort) void beginTraining({ text, seconds, ...sizes[size] });
        }}
      >
        <label class="field">
          <span>{t.train.text}</span>
          <textarea
            class="long"
            rows={8}
            placeholder={t.train.placeholder}
            value={text}
            disabled={isRunning || isSampling}
            onInput={(event) => (trainingText.value = event.currentTarget.value)}
          />
        </label>
        <div class="row">
          <span class="note">
            {t.train.characters(text.length.toLocaleString(document.documentElement.lang))}
            {isTooShort && ` · ${t.train.tooShort}`}
          </span>
          <button type="button" class="quiet" disabled={isRunning} onClick={() => file.current?.click()}>
            {t.train.file}
          </button>
          <input
            ref={file}
            class="hidden"
            type="file"
            accept=".txt,.md,text/*"
            tabIndex={-1}
            aria-label={t.train.file}
            onChange={async (event) => (trainingText.value = (await event.currentTarget.files?.[0]?.text()) ?? text)}
          />
          {isSampling ? (
            <button type="button" onClick={() => sampling.current?.abort()}>
              {t.stop}
            </button>
          ) : (
            <button type="button" class="quiet" disabled={isRunning || !isLocal} onClick={() => busyWith(sample())}>
              {t.train.sample}
            </button>
          )}
        </div>
        <div class="row controls-row">
          <label>
            <span>{t.train.seconds}</span>
            <select
              value={seconds}
              disabled={isRunning}
              onChange={(event) => setSeconds(Number(event.currentTarget.value))}
            >
              {[10, 60, 180, 600].map((one) => (
                <option key={one} value={one}>
                  {one < 60 ? `${one} s` : t.train.minutes(one / 60)}
                </option>
              ))}
            </select>
          </label>
          <label>
            <span>{t.train.size}</span>
            <select
              value={size}
              disabled={isRunning}
              onChange={(event) => setSize(event.currentTarget.value as keyof typeof sizes)}
            >
              {Object.keys(sizes).map((name) => (
                <option key={name} value={name}>
                  {t.train.sizes[name as keyof typeof sizes]}
                </option>
              ))}
            </select>
          </label>
          {isRunning ? (
            <button type="button" onClick={endTraining}>
              {t.train.finish}
            </button>
          ) : (
            <button type="submit" class="primary" disabled={isTooShort || isSampling}>
              {t.train.start}
            </button>
          )}
        </div>
      </form>
      {error !== undefined && (
        <p class="error" role="alert">
          {error}
        </p>
      )}
      {isRunning && pieces.length === 0 && <p role="status">{t.train.preparing}…</p>}
      {pieces.length > 0 && <Progress pieces={pieces} seconds={training.value.seconds} isRunning={isRunning} />}
      {trained && <Result trained={trained} />}
    </div>
  );
}

function Progress({
  pieces,
  seconds,
  isRunning,
}: {
  readonly pieces: readonly TrainPiece[];
  readonly seconds: number;
  readonly isRunning: boolean;
}) {
  const t = texts.value.train;
  const last = pieces.at(-1) as TrainPiece;
  const measured = pieces.findLast(({ validation }) => validation !== undefined)?.validation;
  const figures: readonly (readonly [string, string])[] = [
    [t.step, String(last.step)],
    [t.bits, last.bitsPerByte.toFixed(2)],
    ...(measured === undefined ? [] : [[t.heldOut, measured.toFixed(2)] as const]),
    [t.speed, speedText(last.tokensPerSecond)],
  ];
  return (
    <section class="card" aria-label={t.curve} data-testid="curve">
      <Curve pieces={pieces} />
      <dl class="figures-row">
        {figures.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
      {isRunning && (
        <label>
          <span class="note">{t.left(Math.ceil((1 - last.progress) * seconds))}</span>
          <progress max={1} value={last.progress} />
        </label>
      )}
    </section>
  );
}

/** The loss by time: a line through means of neighbouring steps, and dots where the held-out text was measured. */
function Curve({ pieces }: { readonly pieces: readonly TrainPiece[] }) {
  const t = texts.value.train;
  const [width, height, left, bottom] = [640, 220, 34, 18] as const;
  const group = Math.max(1, Math.floor(pieces.length / 160));
  const points: { readonly x: number; readonly y: number }[] = [];
  for (let i = 0; i < pieces.length; i += group) {
    const some = pieces.slice(i, i + group);
    points.push({
      x: some.reduce((sum, { progress }) => sum + progress, 0) / some.length,
      y: some.reduce((sum, { bitsPerByte }) => sum + bitsPerByte, 0) / some.length,
    });
  }
  const most = Math.ceil(Math.max(...points.map(({ y }) => y)));
  const x = (share: number) => left + share * (width - left - 8);
  const y = (bits: number) => 8 + (1 - Math.min(bits, most) / most) * (height - bottom - 8);
  const line = points
    .map((point, i) => `${i === 0 ? "M" : "L"}${x(point.x).toFixed(1)} ${y(point.y).toFixed(1)}`)
    .join("");
  return (
    <svg viewBox={`0 0 ${width} ${height}`} class="plot" role="img" aria-label={t.curve}>
      {Array.from({ length: most + 1 }, (_, bits) => (
        <g key={bits}>
          <line x1={left} x2={width - 8} y1={y(bits)} y2={y(bits)} class="grid" />
          <text x={left - 8} y={y(bits) + 4} text-anchor="end">
            {bits}
          </text>
        </g>
      ))}
      <path d={line} class="line" />
      {pieces.flatMap(({ progress, validation }, i) =>
        validation === undefined ? [] : [<circle key={i} cx={x(progress)} cy={y(validation)} r={4} class="dot-mark" />],
      )}
    </svg>
  );
}

function Result({ trained }: { readonly trained: Trained }) {
  const t = texts.value;
  const writing = useWriting();
  const [isUsed, setUsed] = useState(false);
  const use = async () => {
    const [model, tokenizer] = [
      new File([trained.pth], "trained-here.pth"),
      new File([trained.tokenizer], "tokenizer.json"),
    ];
    await loadModel(
      { source: { kind: "files", model, others: [tokenizer] }, dtype: "stored", backend: "wasm" },
      model.name,
    );
    setUsed(true);
  };
  const write = async () => {
    if (!isUsed || facts.peek()?.name !== "trained-here.pth") await use();
    if (!engine.peek()) return;
    const sampling = {
      temperature: 0.9,
      topP: 0.9,
      topK: 0,
      presencePenalty: 0,
      frequencyPenalty: 0,
      penaltyDecay: 0.996,
    };
    writing.write({ prompt: "", kept: [], sampling, maxTokens: 120 });
  };
  return (
    <section class="card" data-testid="trained">
      <p>
        {t.train.done} {countText(trained.parameters)} {t.model.parameters}, {trained.bitsPerByte.toFixed(2)}{" "}
        {t.train.bits.toLowerCase()}.
      </p>
      <div class="row">
        <button type="button" class="primary" onClick={write}>
          {t.train.write}
        </button>
        <button type="button" onClick={use}>
          {t.train.useIt}
        </button>
        <button type="button" class="quiet" onClick={() => download("model.pth", trained.pth)}>
          {t.train.download}
        </button>
        <button type="button" class="quiet" onClick={() => download("tokenizer.json", trained.tokenizer)}>
          {t.train.downloadTokenizer}
        </button>
      </div>
      {writing.error !== undefined && (
        <p class="error" role="alert">
          {writing.error}
        </p>
      )}
      {writing.tokens.length > 0 && (
        <p class={`story ${writing.isRunning ? "is-writing" : ""}`} data-testid="written">
          {writing.tokens.map((token) => token.text).join("")}
        </p>
      )}
    </section>
  );
}
