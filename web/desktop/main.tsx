/** Home 3: the window of the desktop program, with the library in its process. */
import { render } from "preact";
import "../src/style/page.css";
import { Root } from "./Bubble.tsx";
import { DesktopBackend } from "./backend.ts";
import { type Beginning, bridge, type Notice } from "./bridge.ts";
import "./companion.css";
import { Companion } from "./memory.ts";

const beginning = await bridge.call<Beginning>("begin");

/** Notices from before the page is there wait for it. */
const waiting: Notice[] = [...beginning.notices];
let listener: ((notice: Notice) => void) | null = null;
const tell = (notice: Notice) => {
  if (listener) listener(notice);
  else waiting.push(notice);
};

const backend = new DesktopBackend(bridge, beginning.settings.model);
const companion = Companion.of(bridge, backend, beginning.texts, tell);
const { language } = beginning.settings;
if (beginning.texts === null && language !== null) {
  companion.dispatch({ type: "preferences", preferences: { language } });
}

const root = document.getElementById("app");
if (root) {
  const notices = (to: (notice: Notice) => void) => {
    listener = to;
    for (const notice of waiting.splice(0)) to(notice);
  };
  render(
    <Root bridge={bridge} backend={backend} companion={companion} beginning={beginning} notices={notices} />,
    root,
  );
}
addEventListener("pagehide", () => companion.leave(true));
await companion.connect();
