import type { ComponentChildren, JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { usePage } from "./context.ts";
import { CloseIcon } from "./icons.tsx";

interface Props {
  title: string;
  /** Where it appears: a sheet at a side, or a card. */
  kind: "left" | "right" | "card";
  onClose: (() => void) | null;
  children: ComponentChildren;
}

/** A modal dialog of the browser: it holds the focus, Escape closes it, and the rest of the page is inert. */
export function Dialog({ title, kind, onClose, children }: Props): JSX.Element {
  const { t } = usePage();
  const element = useRef<HTMLDialogElement>(null);
  const gone = useRef(false);
  useEffect(() => {
    const dialog = element.current;
    dialog?.showModal();
    return () => {
      gone.current = true;
      dialog?.close();
    };
  }, []);
  // A browser closes a dialog at the second Escape, whatever the page says to the first.
  const closed = () => {
    if (gone.current) return;
    if (onClose) onClose();
    else element.current?.showModal();
  };
  return (
    <dialog
      ref={element}
      class={`sheet ${kind}`}
      aria-labelledby="dialog-title"
      onCancel={(event) => {
        event.preventDefault();
        onClose?.();
      }}
      onClose={closed}
      // The backdrop belongs to the dialog; its content lies in the inner element.
      onClick={(event) => {
        if (event.target === element.current) onClose?.();
      }}
      onKeyDown={(event) => event.stopPropagation()}
    >
      <div class="inner">
        <header>
          <h2 id="dialog-title">{title}</h2>
          {onClose && (
            <button type="button" class="quiet" onClick={onClose} title={t.close}>
              <CloseIcon />
              <span class="hidden">{t.close}</span>
            </button>
          )}
        </header>
        {children}
      </div>
    </dialog>
  );
}
