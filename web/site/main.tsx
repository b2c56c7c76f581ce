/** The page on its own: the model computes in this browser, without a server. */
import { render } from "preact";
import { Controller } from "../src/state/controller.ts";
import { initialState } from "../src/state/storage.ts";
import "../src/style/page.css";
import { App } from "../src/ui/App.tsx";
import { SiteBackend } from "./backend.ts";
import { Models, openFile, Progress } from "./Models.tsx";
import "./site.css";

const backend = new SiteBackend();
const controller = new Controller(backend, initialState());
const root = document.getElementById("app");
if (root) render(<App controller={controller} models={<Models backend={backend} controller={controller} />} />, root);
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

addEventListener("pagehide", () => controller.flush());
void controller.connect();

// The page without a network, from the second visit on.
if (import.meta.env.PROD && "serviceWorker" in navigator) {
  navigator.serviceWorker.register(new URL("./sw.js", document.baseURI)).catch((error: unknown) => {
    console.warn("no service worker:", error);
  });
}
