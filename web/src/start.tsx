import { type JSX, render } from "preact";
import type { Backend } from "./backend/types.ts";
import { Controller } from "./state/controller.ts";
import { initialState } from "./state/storage.ts";
import "./style/page.css";
import { App, type OtherView } from "./ui/App.tsx";

/** What a home of the page adds to it. */
interface Additions {
  /** A choice of models, in the settings. */
  models?: (controller: Controller) => JSX.Element;
  /** A view that may take the place of the texts. */
  other?: (controller: Controller) => OtherView;
}

/** Shows the page with a backend; each home of the page calls this with its own. */
export function start(backend: Backend, { models, other }: Additions = {}): Controller {
  const controller = new Controller(backend, initialState());
  const root = document.getElementById("app");
  const added = {
    ...(models ? { models: models(controller) } : {}),
    ...(other ? { other: other(controller) } : {}),
  };
  if (root) render(<App controller={controller} {...added} />, root);
  addEventListener("pagehide", () => controller.leave(true));
  addEventListener("pageshow", () => controller.leave(false));
  void controller.connect();
  return controller;
}
