/** The page on its own: the model computes in this browser, without a server. */
import { render } from "preact";
import { start } from "../src/start.tsx";
import { Extract } from "../src/ui/Extract.tsx";
import { SiteBackend } from "./backend.ts";
import { Models, openFile, Progress } from "./Models.tsx";
import "./site.css";

const backend = new SiteBackend();
const controller = start(backend, {
  models: (controller) => <Models backend={backend} controller={controller} />,
  other: (controller) => ({
    current() {
      const { extractor } = backend;
      if (extractor === null) return null;
      const { language } = controller.state.preferences;
      const close = () => backend.closeExtractor();
      return {
        name: extractor.name,
        view: <Extract key={extractor.name} extractor={extractor} language={language} onClose={close} />,
      };
    },
    subscribe: (listener) => backend.onExtractor(listener),
  }),
});
const corner = document.body.appendChild(document.createElement("div"));
render(<Progress backend={backend} controller={controller} />, corner);

const hasFile = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
addEventListener("dragover", (event) => {
  if (!hasFile(event)) return;
  event.preventDefault();
  document.body.classList.add("dropping");
});
addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) document.body.classList.remove("dropping");
});
addEventListener("drop", (event) => {
  document.body.classList.remove("dropping");
  const file = event.dataTransfer?.files[0];
  if (!file) return;
  event.preventDefault();
  void openFile({ backend, controller }, file);
});

// The page without a network, from the second visit on.
if (import.meta.env.PROD && "serviceWorker" in navigator) {
  navigator.serviceWorker.register(new URL("./sw.js", document.baseURI)).catch((error: unknown) => {
    console.warn("no service worker:", error);
  });
}
