import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { usePage } from "./context.ts";
import { Dialog } from "./Dialog.tsx";

/** Asks for the key of the server, once for each tab. */
export function KeyDialog({ refused }: { refused: boolean }): JSX.Element {
  const { controller, t } = usePage();
  const [key, setKey] = useState("");
  return (
    <Dialog title={t.keyTitle} kind="card" onClose={null}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void controller.useKey(key);
        }}
      >
        <p>{t.keyText}</p>
        <div class="setting">
          <label for="key">{t.keyLabel}</label>
          <input
            id="key"
            type="password"
            autocomplete="off"
            spellcheck={false}
            required
            value={key}
            aria-describedby={refused ? "key-refused" : undefined}
            aria-invalid={refused}
            onInput={(e) => setKey(e.currentTarget.value)}
          />
        </div>
        {refused && (
          <p id="key-refused" class="problem" role="alert">
            {t.keyRefused}
          </p>
        )}
        <button type="submit" class="plain primary">
          {t.keySubmit}
        </button>
      </form>
    </Dialog>
  );
}
