import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { type Conversation, chosenPath, type State } from "../state/model.ts";
import { usePage } from "./context.ts";
import { ContinueIcon, SendIcon, StopIcon } from "./icons.tsx";

/**
 * Whether a key press belongs to an input method: Enter then takes a conversion and must not send. Safari reports the
 * press that ends a composition after the composition, with key code 229.
 */
export function isComposing(event: { isComposing: boolean; keyCode: number }): boolean {
  return event.isComposing || event.keyCode === 229;
}

interface Props {
  state: State;
  conversation: Conversation;
  onEditLast: () => void;
  onSettings: () => void;
}

export function Composer({ state, conversation, onEditLast, onSettings }: Props): JSX.Element {
  const { controller, t } = usePage();
  const [text, setText] = useState("");
  const field = useRef<HTMLTextAreaElement>(null);
  const { mode } = conversation;
  const running = state.running !== null;
  const ready = state.connection.status === "ready";
  const begun = chosenPath(conversation).length > 0;
  const schemaMissing = state.options.json === "schema" && state.options.schema.trim() === "";
  const possible = ready && !running && (text.trim() !== "" || (mode === "story" && begun)) && !schemaMissing;

  // The field grows with its text.
  useLayoutEffect(() => {
    const element = field.current;
    if (!element) return;
    element.style.height = "auto";
    element.style.height = `${element.scrollHeight}px`;
  }, [text]);

  useEffect(() => {
    if (matchMedia("(pointer: fine)").matches) field.current?.focus({ preventScroll: true });
  }, [conversation.id, ready]);

  const send = () => {
    if (!possible) return;
    setText("");
    void controller.send(mode === "chat" ? text.trim() : text);
  };

  const onKeyDown = (event: JSX.TargetedKeyboardEvent<HTMLTextAreaElement>) => {
    if (isComposing(event)) return;
    const coarse = matchMedia("(pointer: coarse)").matches;
    if (event.key === "Enter" && !event.shiftKey && (!coarse || event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      send();
    } else if (event.key === "ArrowUp" && text === "" && begun && !running) {
      event.preventDefault();
      onEditLast();
    }
  };

  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      <label class="hidden" for="message">
        {t.composerLabel[mode]}
      </label>
      <div class="field">
        <textarea
          id="message"
          ref={field}
          class={mode}
          rows={1}
          value={text}
          placeholder={t.composerPlaceholder[mode]}
          autocomplete="off"
          enterkeyhint="send"
          onInput={(event) => setText(event.currentTarget.value)}
          onKeyDown={onKeyDown}
          aria-describedby="enter-hint"
        />
        {state.options.json !== "off" && (
          <button type="button" class="chip" onClick={onSettings}>
            {t.jsonChip[state.options.json]}
          </button>
        )}
        {running ? (
          <button type="button" class="round" onClick={() => void controller.stop()} title={t.stop}>
            <StopIcon />
            <span class="hidden">{t.stop}</span>
          </button>
        ) : (
          <button type="submit" class="round primary" disabled={!possible} title={mode === "chat" ? t.send : t.tell}>
            {mode === "story" && text.trim() === "" ? <ContinueIcon /> : <SendIcon />}
            <span class="hidden">{mode === "chat" ? t.send : t.tell}</span>
          </button>
        )}
      </div>
      <p id="enter-hint" class="hint">
        {t.enterHint}
      </p>
    </form>
  );
}
