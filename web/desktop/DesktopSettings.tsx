/** Settings that only the desktop has: the model's file with its memory, threads, the start, keys, and what is remembered. */
import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { asBackendError } from "../src/backend/errors.ts";
import type { BackendError } from "../src/backend/types.ts";
import { titleOf } from "../src/state/model.ts";
import { usePage } from "../src/ui/context.ts";
import { Problem } from "../src/ui/Problem.tsx";
import type { DesktopBackend } from "./backend.ts";
import type { Beginning, Bridge, Plan, Remembered } from "./bridge.ts";
import type { Companion } from "./memory.ts";
import { TEXTS } from "./texts.ts";

/** Milliseconds between two looks at the sizes. */
const REFRESH = 2000;

interface ProgramProps {
  bridge: Bridge;
  backend: DesktopBackend;
  companion: Companion;
  beginning: Beginning;
}

export function ProgramSection({ bridge, backend, companion, beginning }: ProgramProps): JSX.Element {
  const t = TEXTS[companion.state.preferences.language];
  const [plan, setPlan] = useState<Plan | null>(null);
  const [error, setError] = useState<BackendError | null>(null);
  const [threads, setThreads] = useState(beginning.settings.threads);
  const [autostart, setAutostart] = useState(beginning.autostart);
  const [shortcut, setShortcut] = useState(beginning.settings.shortcut);
  const guarded = async (run: () => Promise<void>) => {
    setError(null);
    try {
      await run();
    } catch (caught) {
      setError(asBackendError(caught));
    }
  };
  const load = (path: string | null) =>
    guarded(async () => {
      setPlan(null);
      await companion.stop();
      companion.flush();
      await bridge.call("set_model", { path });
      beginning.settings.model = path;
      backend.model = path;
      await companion.connect();
    });
  const choose = () => guarded(async () => setPlan(await bridge.call<Plan | null>("choose_model")));
  const name = backend.model === null ? t.builtin : (backend.model.split(/[\\/]/).pop() ?? backend.model);
  return (
    <section class="program" aria-label={t.model}>
      <h3>{t.model}</h3>
      <p class="chosen" title={backend.model ?? undefined}>
        {name}
      </p>
      <p class="actions">
        <button type="button" class="plain choose-model" onClick={() => void choose()}>
          {t.chooseFile}
        </button>
        {backend.model !== null && (
          <button type="button" class="plain" onClick={() => void load(null)}>
            {t.useBuiltin}
          </button>
        )}
      </p>
      {plan && <PlanCard plan={plan} onLoad={() => void load(plan.path)} onCancel={() => setPlan(null)} />}
      {error && <Problem error={error} />}
      <form
        class="setting row"
        onSubmit={(event) => {
          event.preventDefault();
          void guarded(async () => {
            await bridge.call("set_threads", { threads });
            beginning.settings.threads = threads;
            await companion.stop();
            companion.flush();
            await companion.connect();
          });
        }}
      >
        <label for="threads">{t.threads}</label>
        <input
          id="threads"
          type="number"
          min={0}
          max={1024}
          value={threads}
          aria-describedby="threads-help"
          onInput={(event) => setThreads(Math.max(0, Number.parseInt(event.currentTarget.value, 10) || 0))}
        />
        <button type="submit" class="plain" disabled={threads === beginning.settings.threads}>
          {t.apply}
        </button>
        <p id="threads-help" class="note">
          {t.threadsHelp}
        </p>
      </form>
      <form
        class="setting row"
        onSubmit={(event) => {
          event.preventDefault();
          void guarded(async () => {
            await bridge.call("set_shortcut", { shortcut });
            beginning.settings.shortcut = shortcut;
          });
        }}
      >
        <label for="shortcut">{t.shortcut}</label>
        <input
          id="shortcut"
          value={shortcut}
          spellcheck={false}
          aria-describedby="shortcut-help"
          onInput={(event) => setShortcut(event.currentTarget.value)}
        />
        <button type="submit" class="plain" disabled={shortcut === beginning.settings.shortcut}>
          {t.apply}
        </button>
        <p id="shortcut-help" class="note">
          {t.shortcutHelp}
        </p>
      </form>
      <label class="radio">
        <input
          id="autostart"
          type="checkbox"
          checked={autostart}
          onChange={(event) => {
            const on = event.currentTarget.checked;
            void guarded(async () => {
              await bridge.call("set_autostart", { on });
              beginning.autostart = on;
              setAutostart(on);
            });
          }}
        />
        {t.autostart}
      </label>
    </section>
  );
}

/** What a file needs in memory, before anything of it is loaded. */
function PlanCard({ plan, onLoad, onCancel }: { plan: Plan; onLoad: () => void; onCancel: () => void }): JSX.Element {
  const { controller, t: page, format } = usePage();
  const t = TEXTS[controller.state.preferences.language];
  const parts: [string, number][] = [
    [t.planWeights, plan.weights + plan.tables],
    [plan.constant ? t.planConstant : t.planSession(format.number(plan.context ?? 0)), plan.session],
    [t.planTotal, plan.total],
  ];
  const free = plan.available === null ? null : format.bytes(plan.available);
  const total = format.bytes(plan.total);
  const verdict =
    free === null ? t.planUnknown(total) : plan.fits ? t.planFits(total, free) : t.planTooLarge(total, free);
  return (
    <div class={`plan ${plan.fits ? "" : "problem"}`}>
      <h4>{t.planTitle(plan.name)}</h4>
      <p class="note">
        {plan.architecture}, {page.modelFacts(format.count(plan.parameters), format.bytes(plan.file))}
      </p>
      <dl>
        {parts.map(([part, bytes]) => (
          <div key={part}>
            <dt>{part}</dt>
            <dd>{format.bytes(bytes)}</dd>
          </div>
        ))}
      </dl>
      <p>{verdict}</p>
      <p class="actions">
        <button type="button" class={`plain ${plan.fits ? "primary" : ""}`} onClick={onLoad}>
          {plan.fits ? t.load : t.loadAnyway}
        </button>
        <button type="button" class="plain" onClick={onCancel}>
          {page.cancel}
        </button>
      </p>
    </div>
  );
}

export function MemorySection({ bridge, companion }: { bridge: Bridge; companion: Companion }): JSX.Element {
  const { t: page, format } = usePage();
  const { conversations, preferences } = companion.state;
  const t = TEXTS[preferences.language];
  const [states, setStates] = useState<Remembered[]>([]);
  const [asked, setAsked] = useState(false);
  const [saved, setSaved] = useState<string | null>(null);
  const [error, setError] = useState<BackendError | null>(null);
  const refresh = () =>
    bridge.call<Remembered[]>("remembered").then(setStates, (caught) => setError(asBackendError(caught)));
  useEffect(() => {
    void refresh();
    const timer = setInterval(() => void refresh(), REFRESH);
    return () => clearInterval(timer);
  }, []);
  const guarded = async (run: () => Promise<void>) => {
    setError(null);
    setSaved(null);
    try {
      await run();
    } catch (caught) {
      setError(asBackendError(caught));
    }
    await refresh();
  };
  const known = conversations.map((conversation) => ({
    conversation,
    states: states.filter((state) => state.conversation === conversation.id),
  }));
  const some = known.filter(({ states }) => states.length > 0);
  return (
    <section class="memory" aria-label={t.memory}>
      <h3>{t.memory}</h3>
      <p class="note">{t.memoryHelp}</p>
      {some.length === 0 && <p class="idle">{t.memoryNone}</p>}
      <ul>
        {some.map(({ conversation, states }) => (
          <li key={conversation.id}>
            <span>{titleOf(conversation) || page.untitled[conversation.mode]}</span>
            {states.map((state) => (
              <span key={state.model} class="note">
                {t.memoryOf(format.number(state.tokens), format.bytes(state.bytes), state.model)}
              </span>
            ))}
          </li>
        ))}
      </ul>
      <p class="actions">
        <button
          type="button"
          class="plain export"
          onClick={() =>
            void guarded(async () => {
              const { id } = companion.conversation;
              const session = companion.bindings().find((binding) => binding.conversation === id)?.session ?? null;
              const conversation = JSON.stringify(companion.conversation);
              setSaved(await bridge.call<string | null>("export", { conversation, session }));
            })
          }
        >
          {t.export}
        </button>
        <button type="button" class="plain forget" onClick={() => setAsked(true)}>
          {t.forget}
        </button>
      </p>
      {saved !== null && <p role="status">{t.exported(saved)}</p>}
      {asked && (
        <div class="problem">
          <p>{t.forgetConfirm}</p>
          <p class="actions">
            <button
              type="button"
              class="plain primary forget-yes"
              onClick={() =>
                void guarded(async () => {
                  setAsked(false);
                  await companion.removeAll();
                })
              }
            >
              {t.forgetYes}
            </button>
            <button type="button" class="plain" onClick={() => setAsked(false)}>
              {page.cancel}
            </button>
          </p>
        </div>
      )}
      {error && <Problem error={error} />}
    </section>
  );
}
