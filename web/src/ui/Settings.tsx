import type { ComponentChildren, JSX } from "preact";
import { useRef, useState } from "preact/hooks";
import { schemaFault } from "../json/mark.ts";
import type { Conversation, Options, State } from "../state/model.ts";
import { serverKey } from "../state/storage.ts";
import { usePage } from "./context.ts";
import { Dialog } from "./Dialog.tsx";

const EXAMPLE = `{
  "type": "object",
  "properties": {
    "name": { "type": "string", "maxLength": 40 },
    "age": { "type": "integer", "minimum": 0, "maximum": 120 },
    "likes": { "type": "array", "items": { "type": "string", "maxLength": 20 }, "minItems": 1, "maxItems": 3 }
  },
  "required": ["name", "age", "likes"],
  "additionalProperties": false
}`;

interface Props {
  state: State;
  conversation: Conversation;
  models: JSX.Element | undefined;
  /** Instead of what can be done with the texts that the browser keeps. */
  data?: JSX.Element;
  onClose: () => void;
}

export function Settings({ state, conversation, models, data, onClose }: Props): JSX.Element {
  const { controller, t } = usePage();
  const { options, preferences } = state;
  const set = (change: Partial<Options>) => controller.dispatch({ type: "options", options: change });
  const info = state.connection.status === "ready" ? state.connection.info : null;
  const recommended = info && {
    temperature: info.sampling.temperature,
    topP: info.sampling.topP,
    topK: info.sampling.topK,
    minP: info.sampling.minP,
  };
  return (
    <Dialog title={t.settings} kind="right" onClose={onClose}>
      {models}
      <section>
        <Field id="instruction" label={t.instruction[conversation.mode]} help={t.instructionHelp[conversation.mode]}>
          <textarea
            id="instruction"
            rows={3}
            value={conversation.system}
            aria-describedby="instruction-help"
            onInput={(e) => controller.dispatch({ type: "system", id: conversation.id, system: e.currentTarget.value })}
          />
        </Field>
      </section>
      {info?.constrain !== false && <JsonSettings options={options} set={set} />}
      <section>
        <h3>{t.sampling}</h3>
        <p class="note">{t.samplingHelp}</p>
        <Slider
          id="temperature"
          label={t.temperature}
          help={t.temperatureHelp}
          value={options.temperature}
          max={2}
          step={0.05}
          onValue={(temperature) => set({ temperature })}
        />
        <Slider
          id="top-p"
          label={t.topP}
          help={t.topPHelp}
          value={options.topP}
          max={1}
          step={0.01}
          onValue={(topP) => set({ topP })}
        />
        <Slider
          id="top-k"
          label={t.topK}
          help={t.topKHelp}
          value={options.topK}
          max={200}
          step={1}
          onValue={(topK) => set({ topK })}
        />
        <Slider
          id="min-p"
          label={t.minP}
          help={t.minPHelp}
          value={options.minP}
          max={1}
          step={0.01}
          onValue={(minP) => set({ minP })}
        />
        <Slider
          id="presence"
          label={t.presence}
          help={t.presenceHelp}
          value={options.presencePenalty}
          min={-2}
          max={2}
          step={0.1}
          onValue={(presencePenalty) => set({ presencePenalty })}
        />
        <Slider
          id="frequency"
          label={t.frequency}
          help={t.frequencyHelp}
          value={options.frequencyPenalty}
          min={-2}
          max={2}
          step={0.1}
          onValue={(frequencyPenalty) => set({ frequencyPenalty })}
        />
        {recommended && (
          <button
            type="button"
            class="plain"
            onClick={() => set({ ...recommended, presencePenalty: 0, frequencyPenalty: 0 })}
          >
            {t.reset}
          </button>
        )}
      </section>
      <section class="pair">
        <Field id="max-tokens" label={t.maxTokens} help={t.maxTokensHelp}>
          <input
            id="max-tokens"
            type="number"
            inputmode="numeric"
            min={1}
            max={info?.maxTokens}
            value={options.maxTokens}
            aria-describedby="max-tokens-help"
            onChange={(e) => set({ maxTokens: whole(e.currentTarget.value, 1) ?? options.maxTokens })}
          />
        </Field>
        <Field id="seed" label={t.seed} help={t.seedHelp}>
          <input
            id="seed"
            type="number"
            inputmode="numeric"
            min={0}
            value={options.seed ?? ""}
            aria-describedby="seed-help"
            onChange={(e) => set({ seed: whole(e.currentTarget.value, 0) })}
          />
        </Field>
      </section>
      <section>
        <Field id="stop" label={t.stopTexts} help={t.stopTextsHelp}>
          <textarea
            id="stop"
            rows={2}
            value={options.stop}
            aria-describedby="stop-help"
            onInput={(e) => set({ stop: e.currentTarget.value })}
          />
        </Field>
      </section>
      <section class="pair">
        <Field id="theme" label={t.theme}>
          <select
            id="theme"
            value={preferences.theme}
            onChange={(e) => {
              const theme = e.currentTarget.value as State["preferences"]["theme"];
              controller.dispatch({ type: "preferences", preferences: { theme } });
            }}
          >
            {(["system", "light", "dark"] as const).map((theme) => (
              <option key={theme} value={theme}>
                {t.themes[theme]}
              </option>
            ))}
          </select>
        </Field>
        <Field id="language" label={t.language}>
          <select
            id="language"
            value={preferences.language}
            onChange={(e) => {
              const language = e.currentTarget.value as State["preferences"]["language"];
              controller.dispatch({ type: "preferences", preferences: { language } });
            }}
          >
            <option value="en" lang="en">
              English
            </option>
            <option value="ja" lang="ja">
              日本語
            </option>
          </select>
        </Field>
      </section>
      {data ?? <Data onClose={onClose} />}
      <section>
        <h3>{t.shortcuts}</h3>
        <dl class="keys">
          {t.shortcutList.map(([key, effect]) => (
            <div key={key}>
              <dt>
                <kbd>{key}</kbd>
              </dt>
              <dd>{effect}</dd>
            </div>
          ))}
        </dl>
      </section>
    </Dialog>
  );
}

function JsonSettings({ options, set }: { options: Options; set: (change: Partial<Options>) => void }): JSX.Element {
  const { t } = usePage();
  const fault = schemaFault(options.schema);
  return (
    <section>
      <fieldset>
        <legend>{t.json}</legend>
        <p class="note">{t.jsonHelp}</p>
        {(["off", "json", "schema"] as const).map((mode) => (
          <label key={mode} class="radio">
            <input
              type="radio"
              name="json"
              value={mode}
              checked={options.json === mode}
              onChange={() => set({ json: mode })}
            />
            {t.jsonModes[mode]}
          </label>
        ))}
      </fieldset>
      {options.json === "schema" && (
        <>
          <label for="schema">{t.schema}</label>
          <textarea
            id="schema"
            class="mono"
            rows={8}
            spellcheck={false}
            value={options.schema}
            aria-describedby="schema-state"
            aria-invalid={fault !== null}
            onInput={(e) => set({ schema: e.currentTarget.value })}
          />
          <p id="schema-state" class={`json-mark ${fault === null ? "valid" : "open"}`} role="status">
            <span aria-hidden="true">{fault === null ? "●" : "◐"}</span>{" "}
            {fault === null ? t.schemaFine : t.schemaFault[fault]}
          </p>
          {fault === "empty" && (
            <button type="button" class="plain" onClick={() => set({ schema: EXAMPLE })}>
              {t.schemaExample}
            </button>
          )}
        </>
      )}
    </section>
  );
}

function Data({ onClose }: { onClose: () => void }): JSX.Element {
  const { controller, t } = usePage();
  const chooser = useRef<HTMLInputElement>(null);
  const [failed, setFailed] = useState(false);
  const save = async () => {
    const url = URL.createObjectURL(new Blob([await controller.export()], { type: "application/json" }));
    const link = document.createElement("a");
    link.href = url;
    link.download = "conversation.bitnet.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  };
  const open = async (file: File | undefined) => {
    if (!file) return;
    const good = await controller.import(await file.text());
    setFailed(!good);
    if (good) onClose();
  };
  return (
    <section>
      <h3>{t.data}</h3>
      <p class="note">{t.dataHelp}</p>
      <p class="actions">
        <button type="button" class="plain" onClick={() => void save()}>
          {t.export}
        </button>
        <button type="button" class="plain" onClick={() => chooser.current?.click()}>
          {t.import}
        </button>
        <button
          type="button"
          class="plain"
          onClick={() => {
            if (confirm(t.deleteAllConfirm)) void controller.removeAll();
          }}
        >
          {t.deleteAll}
        </button>
        {serverKey.get() !== null && (
          <button type="button" class="plain" onClick={() => void controller.useKey("")}>
            {t.keyForget}
          </button>
        )}
      </p>
      <input
        ref={chooser}
        type="file"
        accept=".json,application/json"
        class="hidden"
        tabIndex={-1}
        aria-label={t.import}
        onChange={(e) => void open(e.currentTarget.files?.[0])}
      />
      {failed && (
        <p class="problem" role="alert">
          {t.importFailed}
        </p>
      )}
    </section>
  );
}

function Field({
  id,
  label,
  help,
  children,
}: {
  id: string;
  label: string;
  help?: string;
  children: ComponentChildren;
}): JSX.Element {
  return (
    <div class="setting">
      <label for={id}>{label}</label>
      {children}
      {help && (
        <p id={`${id}-help`} class="note">
          {help}
        </p>
      )}
    </div>
  );
}

interface SliderProps {
  id: string;
  label: string;
  help: string;
  value: number;
  min?: number;
  max: number;
  step: number;
  onValue: (value: number) => void;
}

function Slider({ id, label, help, value, min = 0, max, step, onValue }: SliderProps): JSX.Element {
  return (
    <div class="setting slider">
      <label for={id}>{label}</label>
      <output for={id}>{value}</output>
      <input
        id={id}
        type="range"
        min={min}
        max={max}
        step={step}
        value={value}
        aria-describedby={`${id}-help`}
        onInput={(e) => onValue(Number(e.currentTarget.value))}
      />
      <p id={`${id}-help`} class="note">
        {help}
      </p>
    </div>
  );
}

/** A whole number of at least `min`, or `null`. */
function whole(text: string, min: number): number | null {
  const n = Number.parseInt(text, 10);
  return Number.isSafeInteger(n) && n >= min ? n : null;
}
