import { render } from "preact";
import { ServerBackend } from "./backend/server.ts";
import { Controller } from "./state/controller.ts";
import { initialState, serverKey } from "./state/storage.ts";
import "./style/page.css";
import { App } from "./ui/App.tsx";

// The server that sent the page answers its requests, also below another path.
const backend = new ServerBackend(new URL("./", document.baseURI).href, serverKey.get);
const controller = new Controller(backend, initialState());
const root = document.getElementById("app");
if (root) render(<App controller={controller} />, root);
addEventListener("pagehide", () => controller.leave(true));
addEventListener("pageshow", () => controller.leave(false));
void controller.connect();
