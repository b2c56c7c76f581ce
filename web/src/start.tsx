import { type JSX, render } from "preact";
import type { Backend } from "./backend/types.ts";
import { Controller } from "./state/controller.ts";
import { initialState } from "./state/storage.ts";
import "./style/page.css";
import { App } from "./ui/App.tsx";

/** Shows the page with a backend; each home of the page calls this with its own, and with a choice of models if it has one. */
export function start(backend: Backend, models?: (controller: Controller) => JSX.Element): Controller {
  const controller = new Controller(backend, initialState());
  const root = document.getElementById("app");
  if (root) render(<App controller={controller} {...(models ? { models: models(controller) } : {})} />, root);
  addEventListener("pagehide", () => controller.leave(true));
  addEventListener("pageshow", () => controller.leave(false));
  void controller.connect();
  return controller;
}
