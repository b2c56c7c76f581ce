/** The root of the companion: its character, and the bubble with the page's own components. */
import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { formatFor, LANGUAGES } from "../src/i18n/format.ts";
import { chosenPath, type State } from "../src/state/model.ts";
import { Announcer, Scroller, Text } from "../src/ui/App.tsx";
import { Composer } from "../src/ui/Composer.tsx";
import { PageContext, usePage } from "../src/ui/context.ts";
import { Dialog } from "../src/ui/Dialog.tsx";
import { GaugeLine } from "../src/ui/Gauges.tsx";
import { History } from "../src/ui/History.tsx";
import { CloseIcon, MenuIcon, PlusIcon, SettingsIcon } from "../src/ui/icons.tsx";
import { Settings } from "../src/ui/Settings.tsx";
import type { DesktopBackend } from "./backend.ts";
import type { Beginning, Bridge, Notice, Wish } from "./bridge.ts";
import { Character } from "./Character.tsx";
import { MemorySection, ProgramSection } from "./DesktopSettings.tsx";
import type { Companion } from "./memory.ts";
import { moodOf } from "./mood.ts";
import { TEXTS } from "./texts.ts";

/** Pixels that a pointer moves before it is a drag and not a click. */
const DRAG = 4;
/** Pixels of a window with the character alone, at most; milliseconds in which it grows. */
const NARROW = 200;
const GROWS_WITHIN = 500;
/** Milliseconds between two looks at the clock, for moods that pass. */
const TICK = 1000;

interface Props {
  bridge: Bridge;
  backend: DesktopBackend;
  companion: Companion;
  beginning: Beginning;
  /** Calls with every notice, those so far included. */
  notices: (listener: (notice: Notice) => void) => void;
}

export function Root(props: Props): JSX.Element {
  const { companion, bridge } = props;
  const [state, setState] = useState(companion.state);
  useEffect(() => {
    // It may have changed before: a small model is loaded sooner than a hidden window draws.
    setState(companion.state);
    return companion.subscribe(() => setState(companion.state));
  }, [companion]);
  const { language, theme } = state.preferences;
  const page = useMemo(
    () => ({
      controller: companion,
      t: TEXTS[language].page(LANGUAGES[language]),
      format: formatFor(language),
    }),
    [companion, language],
  );
  useLayoutEffect(() => {
    document.documentElement.lang = language;
    document.documentElement.dataset.theme = theme;
  }, [language, theme]);
  useEffect(() => void bridge.call("set_language", { language }), [bridge, language]);
  return (
    <PageContext.Provider value={page}>
      <Whole {...props} state={state} />
    </PageContext.Provider>
  );
}

function Whole({ bridge, backend, companion, beginning, notices, state }: Props & { state: State }): JSX.Element {
  const [open, setOpen] = useState(false);
  const [sheet, setSheet] = useState<"settings" | "history" | null>(null);
  const [told, setTold] = useState<Notice[]>([]);
  const mood = useMood(state, open);
  const wanted = useRef(false);
  const show = (to: boolean) => {
    wanted.current = to;
    if (!to) {
      setSheet(null);
      setOpen(false);
    }
    const sized = to ? larger() : Promise.resolve();
    void bridge.call("show_bubble", { open: to });
    // The bubble is laid out in the window that it will have.
    void sized.then(() => setOpen(wanted.current));
  };
  const wished = useRef((_: Wish) => {});
  wished.current = (wish) => {
    if (wish.kind === "toggle") show(!open);
    if (wish.kind === "show") show(true);
    if (wish.kind === "notice") setTold((before) => [...before, wish.notice]);
    if (wish.kind === "leave") void companion.leaveForGood().then(() => bridge.call("quit"));
    if (wish.kind === "settings") {
      show(true);
      setSheet("settings");
    }
  };
  useEffect(() => {
    void bridge.call("listen", { wishes: bridge.channel<Wish>((wish) => wished.current(wish)) });
    notices((notice) => setTold((before) => [...before, notice]));
  }, [bridge, notices]);
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (event.isComposing) return;
      if (event.altKey && event.code === "KeyN") companion.begin(companion.conversation.mode);
      else if (event.altKey && event.code === "Comma") setSheet("settings");
      else if (event.key === "Escape" && companion.state.running) void companion.stop();
      else if (event.key === "Escape" && open && sheet === null) show(false);
      else return;
      event.preventDefault();
    };
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  });
  const { conversation } = companion;
  return (
    <>
      {open && (
        <Bubble
          state={state}
          companion={companion}
          told={told}
          onTold={(notice) => setTold((before) => before.filter((other) => other !== notice))}
          onHide={() => show(false)}
          onSheet={setSheet}
        />
      )}
      <Figure bridge={bridge} mood={mood} open={open} news={told.length > 0} onClick={() => show(!open)} />
      <Announcer state={state} />
      {sheet === "history" && <HistorySheet state={state} onClose={() => setSheet(null)} />}
      {sheet === "settings" && (
        <Settings
          state={state}
          conversation={conversation}
          onClose={() => setSheet(null)}
          models={<ProgramSection bridge={bridge} backend={backend} companion={companion} beginning={beginning} />}
          data={<MemorySection bridge={bridge} companion={companion} />}
        />
      )}
    </>
  );
}

/** Resolves when the window has grown, or soon if it does not. */
function larger(): Promise<void> {
  if (innerWidth > NARROW) return Promise.resolve();
  return new Promise((done) => {
    const timer = setTimeout(done, GROWS_WITHIN);
    const look = () => {
      if (innerWidth <= NARROW) return;
      clearTimeout(timer);
      removeEventListener("resize", look);
      done();
    };
    addEventListener("resize", look);
  });
}

function useMood(state: State, open: boolean) {
  const happened = useRef(performance.now());
  const [, tick] = useState(0);
  useLayoutEffect(() => {
    happened.current = performance.now();
  }, [state, open]);
  useEffect(() => {
    const timer = setInterval(() => tick((n) => n + 1), TICK);
    return () => clearInterval(timer);
  }, []);
  return moodOf({ state, open, idle: performance.now() - happened.current });
}

interface FigureProps {
  bridge: Bridge;
  mood: ReturnType<typeof moodOf>;
  open: boolean;
  news: boolean;
  onClick: () => void;
}

/** The character: a button to click, to drag, and with a menu. */
function Figure({ bridge, mood, open, news, onClick }: FigureProps): JSX.Element {
  const { controller } = usePage();
  const t = TEXTS[controller.state.preferences.language];
  const from = useRef<{ x: number; y: number } | null>(null);
  const dragged = useRef(false);
  return (
    <button
      type="button"
      class="figure-button"
      title={open ? t.hide : t.wake}
      aria-expanded={open}
      data-mood={mood}
      // Not events of pointers: the window manager takes the release of a drag, and the next press is none of a pointer then.
      onMouseDown={(event) => {
        dragged.current = false;
        if (event.button === 0) from.current = { x: event.screenX, y: event.screenY };
      }}
      onMouseMove={(event) => {
        const start = from.current;
        if (!start || (event.buttons & 1) === 0) return;
        if (Math.hypot(event.screenX - start.x, event.screenY - start.y) < DRAG) return;
        from.current = null;
        dragged.current = true;
        void bridge.call("drag");
      }}
      onMouseUp={() => {
        from.current = null;
      }}
      onClick={() => {
        if (!dragged.current) onClick();
        dragged.current = false;
      }}
      onContextMenu={(event) => {
        event.preventDefault();
        void bridge.call("menu");
      }}
    >
      <Character mood={mood} />
      {news && <span class="news" aria-hidden="true" />}
      <span class="hidden">{open ? t.hide : t.wake}</span>
    </button>
  );
}

interface BubbleProps {
  state: State;
  companion: Companion;
  told: Notice[];
  onTold: (notice: Notice) => void;
  onHide: () => void;
  onSheet: (sheet: "settings" | "history") => void;
}

function Bubble({ state, companion, told, onTold, onHide, onSheet }: BubbleProps): JSX.Element {
  const { t } = usePage();
  const own = TEXTS[state.preferences.language];
  const [editing, setEditing] = useState<string | null>(null);
  const { conversation } = companion;
  const path = chosenPath(conversation);
  const { connection } = state;
  const editLast = () => {
    const last = path.findLast((node) => node.role === "user") ?? path.at(-1);
    if (last) setEditing(last.id);
  };
  return (
    <section class="bubble" aria-label={own.bubble}>
      <header class="bar">
        <button type="button" class="quiet" onClick={() => onSheet("history")} title={t.conversations}>
          <MenuIcon />
          <span class="hidden">{t.conversations}</span>
        </button>
        <p class="model-name">{connection.status === "ready" ? connection.info.name : t.connecting}</p>
        <button
          type="button"
          class="quiet"
          onClick={() => companion.begin(conversation.mode)}
          disabled={state.running !== null}
          title={own.newText}
        >
          <PlusIcon />
          <span class="hidden">{own.newText}</span>
        </button>
        <button type="button" class="quiet" onClick={() => onSheet("settings")} title={t.settings}>
          <SettingsIcon />
          <span class="hidden">{t.settings}</span>
        </button>
        <button type="button" class="quiet" onClick={onHide} title={own.hide}>
          <CloseIcon />
          <span class="hidden">{own.hide}</span>
        </button>
      </header>
      <main id="text" tabIndex={-1}>
        {told.map((notice) => (
          <Told key={notice.message} notice={notice} language={state.preferences.language} onTold={onTold} />
        ))}
        <Scroller key={conversation.id} follow={state.running !== null} content={path}>
          <Text state={state} conversation={conversation} path={path} editing={editing} onEdit={setEditing} />
        </Scroller>
        <div class="dock">
          {path.some((node) => node.result) && (
            <p class="memory-line">
              <GaugeLine state={state} conversation={conversation} />
            </p>
          )}
          <Composer
            key={conversation.id}
            state={state}
            conversation={conversation}
            onEditLast={editLast}
            onSettings={() => onSheet("settings")}
          />
        </div>
      </main>
    </section>
  );
}

interface ToldProps {
  notice: Notice;
  language: "en" | "ja";
  onTold: (notice: Notice) => void;
}

function Told({ notice, language, onTold }: ToldProps): JSX.Element {
  const { t } = usePage();
  const own = TEXTS[language];
  const [happened, remedy] = own.notices[notice.kind];
  return (
    <div class="problem told" role="alert">
      <p>
        <strong>{happened}</strong> {remedy}
      </p>
      <button type="button" class="plain" onClick={() => onTold(notice)}>
        {own.dismiss}
      </button>
      <details>
        <summary>{t.details}</summary>
        <p lang="en">{notice.message}</p>
      </details>
    </div>
  );
}

function HistorySheet({ state, onClose }: { state: State; onClose: () => void }): JSX.Element {
  const { t } = usePage();
  return (
    <Dialog title={t.conversations} kind="left" onClose={onClose}>
      <History state={state} onChosen={onClose} />
    </Dialog>
  );
}
