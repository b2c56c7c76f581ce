import type { JSX } from "preact";
import { isEmpty, type State, titleOf } from "../state/model.ts";
import { usePage } from "./context.ts";
import { DeleteIcon, PlusIcon } from "./icons.tsx";

/** All conversations, the newest first, and the way to a new one. */
export function History({ state, onChosen }: { state: State; onChosen?: () => void }): JSX.Element {
  const { controller, t } = usePage();
  const chat = state.connection.status !== "ready" || state.connection.info.chat;
  return (
    <nav aria-label={t.conversations} class="history">
      <div class="new">
        {chat && (
          <button
            type="button"
            class="plain"
            onClick={() => {
              controller.begin("chat");
              onChosen?.();
            }}
          >
            <PlusIcon /> {t.newChat}
          </button>
        )}
        <button
          type="button"
          class="plain"
          onClick={() => {
            controller.begin("story");
            onChosen?.();
          }}
        >
          <PlusIcon /> {t.newStory}
        </button>
      </div>
      <ul>
        {state.conversations
          .filter((c) => !isEmpty(c) || c.id === state.current)
          .map((c) => {
            const title = titleOf(c) || t.untitled[c.mode];
            const current = c.id === state.current;
            return (
              <li key={c.id} class={current ? "current" : undefined}>
                <button
                  type="button"
                  class="title"
                  aria-current={current ? "true" : undefined}
                  onClick={() => {
                    controller.dispatch({ type: "select", id: c.id });
                    onChosen?.();
                  }}
                >
                  <span class={c.mode}>{title}</span>
                </button>
                {!isEmpty(c) && (
                  <button
                    type="button"
                    class="quiet"
                    title={t.deleteConversation(title)}
                    onClick={() => void controller.remove(c.id)}
                  >
                    <DeleteIcon />
                    <span class="hidden">{t.deleteConversation(title)}</span>
                  </button>
                )}
              </li>
            );
          })}
      </ul>
    </nav>
  );
}
