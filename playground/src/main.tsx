// The page begins: it is drawn, a model is loaded, and when there is time its files are kept for without a network.

import { effect } from "@preact/signals";
import { render } from "preact";
import { App } from "./app.js";
import { openStore } from "./conversation-store.js";
import { begin, model } from "./model-state.js";
import { theme } from "./settings.js";

effect(() => {
  document.documentElement.dataset["theme"] = theme.value;
});
render(<App />, document.getElementById("app") as HTMLElement);
void openStore();
void begin();

// What it keeps has been fetched by then, so it comes from the browser's cache.
if (import.meta.env.PROD && "serviceWorker" in navigator) {
  const stop = effect(() => {
    if (model.value.kind === "loading") return;
    setTimeout(() => {
      stop();
      navigator.serviceWorker.register("./service-worker.js").catch(() => {});
    }, 2000);
  });
}
