// How fast the loaded model is on this machine.

import { useEffect, useRef, useState } from "preact/hooks";
import { backends, findGpu, gpu } from "../backends.js";
import { busyWith } from "../busy.js";
import { callWorker } from "../engines/worker-client.js";
import { computeWith, facts } from "../model-state.js";
import { BackendSelect } from "../parts/backend-select.js";
import { CopyButton } from "../parts/copy-button.js";
import { Scrolled } from "../parts/scrolled.js";
import type { Backend, BenchResult, ModelFacts, Progress } from "../protocol.js";
import { byteText, countText, speedText, texts } from "../texts/texts.js";

export function Bench() {
  const t = texts.value;
  const [share, setShare] = useState<number | undefined>(undefined);
  const [result, setResult] = useState<BenchResult | undefined>(undefined);
  const [error, setError] = useState<string | undefined>(undefined);
  const [wanted, setWanted] = useState<Backend | undefined>(undefined);
  const running = useRef<AbortController | undefined>(undefined);
  useEffect(() => {
    void findGpu();
    return () => running.current?.abort();
  }, []);
  const known = facts.value;
  const measure = async () => {
    const controller = new AbortController();
    running.current = controller;
    setShare(0);
    setError(undefined);
    try {
      const { signal } = controller;
      const onPiece = ({ done, total }: Progress) => setShare(done / total);
      setResult(await busyWith(callWorker("bench", null, { signal, onPiece })));
    } catch (reason) {
      if (!controller.signal.aborted) setError((reason as Error).message);
    } finally {
      setShare(undefined);
    }
  };
  return (
    <div class="bench">
      <h1>{t.bench.title}</h1>
      <p class="lead">{t.bench.lead}</p>
      {!known && <p class="notice">{t.bench.local}</p>}
      {known && (
        <BackendSelect
          value={wanted ?? (known.backend === "webgpu" ? "webgpu" : "wasm")}
          isDisabled={share !== undefined}
          onChange={(backend) => {
            setWanted(backend);
            setResult(undefined);
            void computeWith(backend);
          }}
        />
      )}
      {backends.value.length < 2 && <p class="note">{t.bench.noGpu}</p>}
      <div class="row">
        {share === undefined ? (
          <button type="button" class="primary" disabled={!known} onClick={measure}>
            {t.bench.start}
          </button>
        ) : (
          <>
            <button type="button" onClick={() => running.current?.abort()}>
              {t.stop}
            </button>
            <label class="wide">
              <span class="hidden">{t.bench.measuring}</span>
              <progress max={1} value={share} />
            </label>
          </>
        )}
        {result && known && share === undefined && <CopyButton text={asText(result, known)} label={t.bench.copy} />}
      </div>
      {error !== undefined && (
        <p class="error" role="alert">
          {error}
        </p>
      )}
      {result && known && <Results result={result} />}
    </div>
  );
}

function Results({ result }: { readonly result: BenchResult }) {
  const t = texts.value.bench;
  const { decode } = result;
  return (
    <div class="card" data-testid="bench">
      <Scrolled label={t.title}>
        <table class="figures-table">
          <thead>
            <tr>
              <td />
              <th scope="col">{t.speed}</th>
              <th scope="col">
                {t.median}, {t.perToken}
              </th>
              <th scope="col">{t.p90}</th>
              <th scope="col">{t.p99}</th>
            </tr>
          </thead>
          <tbody>
            <tr>
              <th scope="row">{t.decode}</th>
              <td>{speedText(result.decodeTokensPerSecond)}</td>
              <td>{decode.p50.toFixed(2)}</td>
              <td>{decode.p90.toFixed(2)}</td>
              <td>{decode.p99.toFixed(2)}</td>
            </tr>
            <tr>
              <th scope="row">{t.generate}</th>
              <td>{speedText(result.generateTokensPerSecond)}</td>
              <td colSpan={3} />
            </tr>
            <tr>
              <th scope="row">{t.prompt(result.promptTokens)}</th>
              <td>{speedText(result.promptTokensPerSecond)}</td>
              <td>{(1000 / result.promptTokensPerSecond).toFixed(2)}</td>
              <td>{(1000 / result.promptTokensPerSecondP90).toFixed(2)}</td>
              <td />
            </tr>
          </tbody>
        </table>
      </Scrolled>
    </div>
  );
}

/** For reports, in English. */
function asText(result: BenchResult, known: ModelFacts): string {
  const { decode } = result;
  return [
    `RWKV playground, ${new Date().toISOString().slice(0, 10)}`,
    `model: ${known.name}, RWKV-${known.version}, ${known.layers} layers x ${known.width}, ${countText(known.parameters)} weights, ${known.dtype} (${byteText(known.weightBytes)})`,
    `backend: ${known.strategy ?? known.backend}${known.backend === "webgpu" ? ` on ${gpu.value}` : ""}, ${known.threads} threads of ${navigator.hardwareConcurrency}; isolated: ${globalThis.crossOriginIsolated}`,
    `browser: ${navigator.userAgent}`,
    `decode: ${speedText(result.decodeTokensPerSecond)} tokens/s; ms a token: ${decode.p50.toFixed(2)} median, ${decode.p90.toFixed(2)} p90, ${decode.p99.toFixed(2)} p99`,
    `generate: ${speedText(result.generateTokensPerSecond)} tokens/s`,
    `prompt of ${result.promptTokens} tokens: ${speedText(result.promptTokensPerSecond)} tokens/s median, ${speedText(result.promptTokensPerSecondP90)} in 9 of 10 rounds`,
  ].join("\n");
}
