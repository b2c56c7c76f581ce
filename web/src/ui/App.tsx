import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useMemo, useReducer, useRef, useState } from "preact/hooks";
import { formatFor, LANGUAGES } from "../i18n/format.ts";
import type { Controller } from "../state/controller.ts";
import { type Conversation, chosenPath, type State, type TextNode } from "../state/model.ts";
import { Composer } from "./Composer.tsx";
import { PageContext, usePage } from "./context.ts";
import { Dialog } from "./Dialog.tsx";
import { GaugeLine, Gauges } from "./Gauges.tsx";
import { History } from "./History.tsx";
import { DownIcon, Mark, MenuIcon, SettingsIcon } from "./icons.tsx";
import { KeyDialog } from "./KeyDialog.tsx";
import { Problem } from "./Problem.tsx";
import { Settings } from "./Settings.tsx";
import { Story } from "./Story.tsx";
import { Turn } from "./Turn.tsx";

type Sheet = "history" | "settings" | "gauges" | null;

/** Pixels from the end at which the page follows the text. */
const FOLLOW = 80;

interface AppProps {
  controller: Controller;
  /** A choice of models, where there is one; it stands in the settings. */
  models?: JSX.Element;
  /** Something else than texts, where a home has it. */
  other?: OtherView;
}

/** A view that takes the place of the texts while it is there, as that of an extractor. */
export interface OtherView {
  /** The view with its name; `null` while texts are shown. */
  current(): { name: string; view: JSX.Element } | null;
  /** Calls `listener` when that changes; returns how to end it. */
  subscribe(listener: () => void): () => void;
}

export function App({ controller, models, other }: AppProps): JSX.Element {
  const [state, setState] = useState(controller.state);
  useEffect(() => {
    // It may have changed before this.
    setState(controller.state);
    return controller.subscribe(() => setState(controller.state));
  }, [controller]);
  const [, changed] = useReducer((n: number) => n + 1, 0);
  useEffect(() => other?.subscribe(() => changed(0)), [other]);
  const { language, theme } = state.preferences;
  const page = useMemo(
    () => ({ controller, t: LANGUAGES[language], format: formatFor(language) }),
    [controller, language],
  );
  useLayoutEffect(() => {
    document.documentElement.lang = language;
    document.documentElement.dataset.theme = theme;
  }, [language, theme]);
  return (
    <PageContext.Provider value={page}>
      <Whole state={state} models={models} other={other?.current() ?? null} />
    </PageContext.Provider>
  );
}

interface WholeProps {
  state: State;
  models: JSX.Element | undefined;
  other: ReturnType<OtherView["current"]>;
}

function Whole({ state, models, other }: WholeProps): JSX.Element {
  const { controller, t } = usePage();
  const [sheet, setSheet] = useState<Sheet>(null);
  const [editing, setEditing] = useState<string | null>(null);
  const conversation = controller.conversation;
  const path = chosenPath(conversation);
  const { connection } = state;
  const needsKey = connection.status === "key";
  const hasOther = other !== null;

  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (event.isComposing) return;
      if (event.key === "Escape" && controller.state.running) {
        event.preventDefault();
        void controller.stop();
      } else if (event.altKey && event.code === "KeyN" && !hasOther) {
        event.preventDefault();
        controller.begin(controller.conversation.mode);
      } else if (event.altKey && event.code === "Comma") {
        event.preventDefault();
        setSheet("settings");
      }
    };
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  }, [controller, hasOther]);

  const editLast = () => {
    const last = path.findLast((node) => node.role === "user") ?? path.at(-1);
    if (last) setEditing(last.id);
  };

  return (
    <>
      <a class="skip" href="#text">
        {t.skip}
      </a>
      <header class="bar">
        {!hasOther && (
          <button type="button" class="quiet menu" onClick={() => setSheet("history")} title={t.conversations}>
            <MenuIcon />
            <span class="hidden">{t.conversations}</span>
          </button>
        )}
        <h1>
          <Mark />
          <span>{t.product}</span>
        </h1>
        <p class="model-name">{other?.name ?? (connection.status === "ready" ? connection.info.name : "")}</p>
        <button
          type="button"
          class="plain other-language"
          lang={state.preferences.language === "en" ? "ja" : "en"}
          onClick={() => {
            const language = state.preferences.language === "en" ? "ja" : "en";
            controller.dispatch({ type: "preferences", preferences: { language } });
          }}
        >
          {t.otherLanguage}
        </button>
        <button type="button" class="quiet" onClick={() => setSheet("settings")} title={t.settings}>
          <SettingsIcon />
          <span class="hidden">{t.settings}</span>
        </button>
      </header>
      {other ? (
        <main id="text" class="alone" tabIndex={-1}>
          {connection.status === "failed" && (
            <Problem error={connection.error} onRetry={() => void controller.connect()} />
          )}
          {other.view}
        </main>
      ) : (
        <div class="body">
          <aside class="left">
            <History state={state} />
          </aside>
          <main id="text" tabIndex={-1}>
            <Scroller key={conversation.id} follow={state.running !== null} content={path}>
              <Text state={state} conversation={conversation} path={path} editing={editing} onEdit={setEditing} />
            </Scroller>
            <div class="dock">
              <button type="button" class="strip" onClick={() => setSheet("gauges")} title={t.gauges}>
                <GaugeLine state={state} conversation={conversation} />
              </button>
              <Composer
                key={conversation.id}
                state={state}
                conversation={conversation}
                onEditLast={editLast}
                onSettings={() => setSheet("settings")}
              />
            </div>
          </main>
          {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reachable by keyboard */}
          <aside class="right" aria-label={t.gauges} tabIndex={0}>
            <Gauges state={state} conversation={conversation} />
          </aside>
        </div>
      )}
      <Announcer state={state} />
      {sheet === "history" && (
        <Dialog title={t.conversations} kind="left" onClose={() => setSheet(null)}>
          <History state={state} onChosen={() => setSheet(null)} />
        </Dialog>
      )}
      {sheet === "gauges" && (
        <Dialog title={t.gauges} kind="right" onClose={() => setSheet(null)}>
          <Gauges state={state} conversation={conversation} />
        </Dialog>
      )}
      {sheet === "settings" && (
        <Settings state={state} conversation={conversation} models={models} onClose={() => setSheet(null)} />
      )}
      {needsKey && <KeyDialog refused={connection.refused} />}
    </>
  );
}

interface TextProps {
  state: State;
  conversation: Conversation;
  path: TextNode[];
  editing: string | null;
  onEdit: (node: string | null) => void;
}

/** The texts of a conversation, or its first sight. */
export function Text({ state, conversation, path, editing, onEdit }: TextProps): JSX.Element {
  const { controller, t, format } = usePage();
  const { connection } = state;
  const busy = state.running !== null;
  const reading = state.running?.conversation === conversation.id ? state.gauges.reading : null;
  const trouble = connection.status === "failed" && (
    <Problem error={connection.error} onRetry={() => void controller.connect()} />
  );
  if (path.length === 0) {
    return (
      <>
        {trouble}
        <Welcome state={state} conversation={conversation} />
      </>
    );
  }
  return (
    <>
      {trouble}
      {conversation.mode === "story" ? (
        <Story conversation={conversation} path={path} busy={busy} editing={editing} onEdit={onEdit} />
      ) : (
        path.map((node) => (
          <Turn
            key={node.id}
            conversation={conversation}
            node={node}
            busy={busy}
            editing={editing === node.id}
            onEdit={onEdit}
          />
        ))
      )}
      {reading && <p class="facts">{t.status.reading(format.number(reading.read), format.number(reading.total))}</p>}
    </>
  );
}

/** The first sight: what this is, and some beginnings. */
function Welcome({ state, conversation }: { state: State; conversation: Conversation }): JSX.Element {
  const { controller, t, format } = usePage();
  const { connection } = state;
  const { mode } = conversation;
  const info = connection.status === "ready" ? connection.info : null;
  const silent = mode === "chat" && info !== null && !info.chat;
  return (
    <div class="welcome">
      <h2>{t.welcome[mode]}</h2>
      <p>{mode === "chat" ? t.welcomeChat : t.welcomeStory}</p>
      {info && (
        <p class="facts">{t.modelFacts(format.count(info.parameters), t.layers(format.number(info.mixers.length)))}</p>
      )}
      {connection.status === "connecting" && <p class="facts">{t.connecting}</p>}
      {silent ? (
        <div class="problem">
          <p>
            {t.chatImpossible} {controller.home === "server" ? t.chatImpossibleHelp : t.local.chatImpossibleHelp}
          </p>
          <button type="button" class="plain" onClick={() => controller.begin("story")}>
            {t.chatImpossibleAction}
          </button>
        </div>
      ) : (
        info && (
          <ul class="examples" aria-label={t.exampleLabel}>
            {t.examples[mode].map((example) => (
              <li key={example}>
                <button type="button" onClick={() => void controller.send(example)}>
                  {example}
                </button>
              </li>
            ))}
          </ul>
        )
      )}
    </div>
  );
}

/** Scrolls with the text as long as the reader is at its end. */
export function Scroller({
  children,
  follow,
  content,
}: {
  children: JSX.Element;
  follow: boolean;
  content: TextNode[];
}): JSX.Element {
  const { t } = usePage();
  const element = useRef<HTMLDivElement>(null);
  const atEnd = useRef(true);
  const [away, setAway] = useState(false);
  useLayoutEffect(() => {
    const scroller = element.current;
    if (scroller && atEnd.current) scroller.scrollTop = scroller.scrollHeight;
  }, [content, follow]);
  const toEnd = () => element.current?.scrollTo({ top: element.current.scrollHeight, behavior: "smooth" });
  return (
    <div class="scroll-frame">
      <div
        class="scroll"
        ref={element}
        onScroll={(event) => {
          const { scrollTop, scrollHeight, clientHeight } = event.currentTarget;
          atEnd.current = scrollHeight - scrollTop - clientHeight < FOLLOW;
          setAway(!atEnd.current);
        }}
      >
        <div class="measure">{children}</div>
      </div>
      {away && (
        <button type="button" class="round to-end" onClick={toEnd} title={t.toNewest}>
          <DownIcon />
          <span class="hidden">{t.toNewest}</span>
        </button>
      )}
    </div>
  );
}

/** Tells screen readers when a text begins and when it is complete, not each word of it. */
export function Announcer({ state }: { state: State }): JSX.Element {
  const { t, format } = usePage();
  const [said, setSaid] = useState("");
  const before = useRef<State["running"]>(null);
  useEffect(() => {
    const was = before.current;
    before.current = state.running;
    if (state.running && !was) setSaid(t.status.writing);
    if (state.running || !was) return;
    const node = state.conversations.find((c) => c.id === was.conversation)?.nodes[was.node];
    if (node?.status === "stopped") setSaid(t.status.stopped);
    else if (node?.status === "cut") setSaid(t.status.cut);
    else if (node?.status === "failed") setSaid(t.status.failed);
    else setSaid(t.status.done(format.number(node?.result?.newTokens ?? 0)));
  }, [state.running, state.conversations, t, format]);
  return (
    <p class="hidden" role="status">
      {said}
    </p>
  );
}
