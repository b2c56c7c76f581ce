/** The choice of a model: that of the package, those that are stored, a file. */
import type { LoadProgress } from "bitnet-wasm";
import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { Controller } from "../src/state/controller.ts";
import { choiceOf, nameOf, type SiteBackend } from "./backend.ts";

const TEXTS = {
  en: {
    title: "Model",
    builtin: "Stories in English (built in)",
    utterances: "Intent and slots of a sentence",
    extractors: { en: "English: music, weather, tables, 150 more", ja: "Japanese: questions about a topic" },
    stored: "Kept in this browser",
    unkept: "Not kept: there is no room for it",
    open: "Open a GGUF file",
    remove: "Remove from this browser",
    hint: "Or drop a file anywhere on this page. It stays on this computer.",
    fetch: "Loading",
    verify: "Checking",
    prepare: "Preparing",
  },
  ja: {
    title: "モデル",
    builtin: "英語の物語（内蔵）",
    utterances: "文の意図とスロット",
    extractors: { en: "英語：音楽、天気、予約など", ja: "日本語：話題についての質問" },
    stored: "このブラウザーに保存済み",
    unkept: "未保存：空き容量が足りません",
    open: "GGUF ファイルを開く",
    remove: "このブラウザーから削除",
    hint: "ファイルをこのページにドロップすることもできます。ファイルはこのコンピューターの外に出ません。",
    fetch: "読み込み中",
    verify: "確認中",
    prepare: "準備中",
  },
};

interface Props {
  backend: SiteBackend;
  controller: Controller;
}

/** Loads a file that the reader chose or dropped, and keeps it. */
export async function openFile({ backend, controller }: Props, file: File): Promise<void> {
  backend.choose({ kind: "file", file });
  await controller.connect();
}

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(1);
}

export function Models({ backend, controller }: Props): JSX.Element {
  const t = TEXTS[controller.state.preferences.language];
  const [stored, setStored] = useState<{ name: string; bytes: number }[]>([]);
  const refresh = () =>
    backend.worker.storedModels().then(setStored, () => {
      // A browser without a private file system keeps nothing.
    });
  useEffect(() => void refresh(), []);
  const choose = async (name: string) => {
    backend.choose(choiceOf(name));
    await controller.connect();
    await refresh();
  };
  const chosen = nameOf(backend.chosen) ?? "";
  // The chosen file is named at once: the list comes from the worker, which may still be loading that very file.
  const kept: { name: string; bytes?: number }[] =
    backend.chosen.kind === "stored" && !stored.some(({ name }) => name === chosen)
      ? [...stored, { name: chosen }]
      : stored;
  return (
    <section class="models" aria-label={t.title}>
      <label>
        {t.title}
        <select value={chosen} onChange={(event) => void choose(event.currentTarget.value)}>
          <option value="">{t.builtin}</option>
          <optgroup label={t.utterances}>
            {(["en", "ja"] as const).map((language) => (
              <option key={language} value={`/${language}`}>
                {t.extractors[language]}
              </option>
            ))}
          </optgroup>
          {kept.length > 0 && (
            <optgroup label={t.stored}>
              {kept.map(({ name, bytes }) => (
                <option key={name} value={name}>
                  {bytes === undefined ? name : `${name} (${megabytes(bytes)} MB)`}
                </option>
              ))}
            </optgroup>
          )}
          {backend.chosen.kind === "file" && (
            <optgroup label={t.unkept}>
              <option value={chosen}>{chosen}</option>
            </optgroup>
          )}
        </select>
      </label>
      <label>
        {t.open}
        <input
          type="file"
          accept=".gguf"
          onChange={async (event) => {
            const file = event.currentTarget.files?.[0];
            if (file) await openFile({ backend, controller }, file);
            await refresh();
          }}
        />
      </label>
      <p class="note">{t.hint}</p>
      {backend.chosen.kind === "stored" && (
        <button
          type="button"
          class="plain"
          onClick={async () => {
            await backend.worker.removeStored(chosen);
            if (backend.extractor === null) return choose("");
            backend.closeExtractor();
            await refresh();
          }}
        >
          {t.remove}
        </button>
      )}
    </section>
  );
}

/** How far loading is, over the page, while it takes. */
export function Progress({ backend, controller }: Props): JSX.Element | null {
  const [progress, setProgress] = useState<LoadProgress | null>(null);
  useEffect(() => backend.onProgress(setProgress), [backend]);
  if (progress === null) return null;
  const t = TEXTS[controller.state.preferences.language];
  const { phase, done, total } = progress;
  return (
    <div class="loading" role="status">
      <span>
        {t[phase]} {phase === "fetch" && total !== null ? `${megabytes(done)} / ${megabytes(total)} MB` : ""}
      </span>
      <progress aria-label={t[phase]} {...(phase === "fetch" && total !== null ? { max: total, value: done } : {})} />
    </div>
  );
}
