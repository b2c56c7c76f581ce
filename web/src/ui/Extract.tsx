import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { asBackendError } from "../backend/errors.ts";
import type { Extraction, OpenExtractor } from "../backend/extractor.ts";
import type { BackendError } from "../backend/types.ts";
import "../style/extract.css";
import { EXAMPLES, EXTRACT, type ExtractStrings } from "../i18n/extract.ts";
import { usePage } from "./context.ts";
import { Problem } from "./Problem.tsx";

/** Milliseconds of rest before a call is timed, and before screen readers are told. */
const TIME_AFTER = 150;
const SAY_AFTER = 900;

interface Props {
  extractor: OpenExtractor;
  language: "en" | "ja";
  onClose: () => void;
}

/** The language of a text, for fonts and for those who hear it. */
function languageOf(text: string): "en" | "ja" {
  return /[\u3040-\u30ff\u3400-\u9fff]/.test(text) ? "ja" : "en";
}

/** A sentence, and what an extractor finds in it while it is typed. */
export function Extract({ extractor, language, onClose }: Props): JSX.Element {
  const { format } = usePage();
  const t = EXTRACT[language];
  const [task, setTask] = useState(extractor.tasks[0]?.name ?? "");
  const [text, setText] = useState("");
  const [found, setFound] = useState<{ text: string; extraction: Extraction } | null>(null);
  const [ms, setMs] = useState<number | null>(null);
  const [error, setError] = useState<BackendError | null>(null);
  const [said, setSaid] = useState("");
  const known = extractor.tasks.find(({ name }) => name === task) ?? extractor.tasks[0];
  const share = (confidence: number) =>
    new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: 1 }).format(confidence);

  useEffect(() => {
    if (text.trim() === "") {
      setFound(null);
      setMs(null);
      setSaid("");
      return;
    }
    let current = true;
    const failed = (thrown: unknown) => current && setError(asBackendError(thrown));
    extractor.extract(text, task).then((extraction) => {
      if (!current) return;
      setFound({ text, extraction });
      setError(null);
    }, failed);
    const time = setTimeout(() => {
      extractor.time(text, task).then((ms) => current && setMs(ms), failed);
    }, TIME_AFTER);
    return () => {
      current = false;
      clearTimeout(time);
    };
  }, [extractor, text, task]);

  useEffect(() => {
    if (!found) return;
    const { intent, confidence, outOfScope, slots } = found.extraction;
    const name = outOfScope ? t.outOfScope : intent;
    const parts = slots.map((slot) => `${slot.name}: ${slot.value}`).join(", ");
    const say = setTimeout(() => setSaid(t.said(name, share(confidence), parts || t.noSlots)), SAY_AFTER);
    return () => clearTimeout(say);
  }, [found]);

  const examples = EXAMPLES[task] ?? [];
  return (
    <div class="extract">
      <header>
        <h2>{t.title}</h2>
        <button type="button" class="plain" onClick={onClose}>
          {t.back}
        </button>
      </header>
      <p class="note">{t.about}</p>
      {extractor.tasks.length > 1 && (
        <label class="task">
          {t.task}
          <select value={task} onChange={(event) => setTask(event.currentTarget.value)}>
            {extractor.tasks.map(({ name }) => (
              <option key={name} value={name}>
                {name}
              </option>
            ))}
          </select>
        </label>
      )}
      <label class="hidden" for="utterance">
        {t.label}
      </label>
      <textarea
        id="utterance"
        rows={2}
        value={text}
        placeholder={t.placeholder}
        lang={text === "" ? language : languageOf(text)}
        spellcheck={false}
        autocomplete="off"
        onInput={(event) => setText(event.currentTarget.value)}
      />
      {known && <p class="facts">{t.knows(format.number(known.intents.length), format.number(known.slots.length))}</p>}
      {error && <Problem error={error} />}
      {found ? (
        <Finding t={t} text={found.text} extraction={found.extraction} ms={ms} language={language} share={share} />
      ) : (
        examples.length > 0 && (
          <ul class="examples" aria-label={t.examplesLabel}>
            {examples.map((example) => (
              <li key={example}>
                <button type="button" lang={languageOf(example)} onClick={() => setText(example)}>
                  {example}
                </button>
              </li>
            ))}
          </ul>
        )
      )}
      <p class="hidden" role="status">
        {said}
      </p>
    </div>
  );
}

interface FindingProps {
  t: ExtractStrings;
  text: string;
  extraction: Extraction;
  ms: number | null;
  language: "en" | "ja";
  share: (confidence: number) => string;
}

function Finding({ t, text, extraction, ms, language, share }: FindingProps): JSX.Element {
  const { intent, confidence, outOfScope, slots, cut, alternatives } = extraction;
  const milliseconds = (value: number) => new Intl.NumberFormat(language, { maximumFractionDigits: 2 }).format(value);
  return (
    <section class="finding" aria-label={t.intent}>
      {outOfScope && (
        <p class="scope">
          <strong>{t.outOfScope}</strong> {t.closest}
        </p>
      )}
      <p class={`intent ${outOfScope ? "outside" : ""}`}>
        <span>{intent}</span> <span class="figures">{share(confidence)}</span>
      </p>
      <p class="marked" role="group" aria-label={t.marked} lang={languageOf(text)}>
        {parts(text, slots).map((part) =>
          part.name === null ? (
            part.text
          ) : (
            <span key={part.start} class="slot">
              <mark>{part.text}</mark>
              <small lang="en">{part.name}</small>
            </span>
          ),
        )}
      </p>
      {slots.length === 0 ? (
        <p class="note">{t.noSlots}</p>
      ) : (
        <table class="slots">
          <caption class="hidden">{t.slots}</caption>
          <thead>
            <tr>
              <th scope="col">{t.slot}</th>
              <th scope="col">{t.words}</th>
            </tr>
          </thead>
          <tbody>
            {slots.map((slot) => (
              <tr key={slot.start}>
                <th scope="row">{slot.name}</th>
                <td lang={languageOf(slot.value)}>{slot.value}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {alternatives.length > 1 && (
        <>
          <h3>{t.alternatives}</h3>
          <ol class="ranked">
            {alternatives.map((other) => (
              <li key={other.intent}>
                <span class="name">{other.intent}</span>
                <span class="share" aria-hidden="true">
                  <svg viewBox="0 0 100 1" preserveAspectRatio="none" role="presentation">
                    <rect width={100 * other.confidence} height="1" />
                  </svg>
                </span>
                <span class="figures">{share(other.confidence)}</span>
              </li>
            ))}
          </ol>
        </>
      )}
      {cut && <p class="note">{t.cut}</p>}
      <p class="facts">{ms === null ? "\u00a0" : t.time(milliseconds(ms))}</p>
    </section>
  );
}

interface Part {
  text: string;
  name: string | null;
  start: number;
}

/** The text in pieces: those that fill a slot, and those between them. */
export function parts(text: string, slots: Extraction["slots"]): Part[] {
  const found: Part[] = [];
  let at = 0;
  for (const { name, start, end } of [...slots].sort((a, b) => a.start - b.start)) {
    if (start < at || end > text.length) continue;
    if (start > at) found.push({ text: text.slice(at, start), name: null, start: at });
    found.push({ text: text.slice(start, end), name, start });
    at = end;
  }
  if (at < text.length) found.push({ text: text.slice(at), name: null, start: at });
  return found;
}
