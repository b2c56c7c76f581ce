import type { JSX } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { isComposing } from "./Composer.tsx";
import { usePage } from "./context.ts";

interface Props {
  text: string;
  action: string;
  onSave: (text: string) => void;
  onCancel: () => void;
}

/** Another wording for a text, which becomes a branch. */
export function Editor({ text, action, onSave, onCancel }: Props): JSX.Element {
  const { t } = usePage();
  const [draft, setDraft] = useState(text);
  const field = useRef<HTMLTextAreaElement>(null);
  useLayoutEffect(() => {
    const element = field.current;
    if (!element) return;
    element.focus();
    element.setSelectionRange(element.value.length, element.value.length);
  }, []);
  useLayoutEffect(() => {
    const element = field.current;
    if (!element) return;
    element.style.height = "auto";
    element.style.height = `${element.scrollHeight + 2}px`;
  }, [draft]);
  const save = () => (draft.trim() === "" || draft === text ? onCancel() : onSave(draft));
  return (
    <form
      class="editor"
      onSubmit={(event) => {
        event.preventDefault();
        save();
      }}
    >
      <textarea
        ref={field}
        value={draft}
        aria-label={t.editLabel}
        onInput={(event) => setDraft(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (isComposing(event)) return;
          if (event.key === "Escape") {
            event.stopPropagation();
            onCancel();
          } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
            event.preventDefault();
            save();
          }
        }}
      />
      <p class="hint">{t.editHint}</p>
      <p class="actions">
        <button type="submit" class="plain primary">
          {action}
        </button>
        <button type="button" class="plain" onClick={onCancel}>
          {t.cancel}
        </button>
      </p>
    </form>
  );
}
