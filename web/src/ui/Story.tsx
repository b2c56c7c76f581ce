import type { JSX } from "preact";
import type { Conversation, TextNode } from "../state/model.ts";
import { Branches } from "./Branches.tsx";
import { CopyButton } from "./CopyButton.tsx";
import { usePage } from "./context.ts";
import { Editor } from "./Editor.tsx";
import { AgainIcon, EditIcon } from "./icons.tsx";
import { JsonMark } from "./JsonMark.tsx";
import { Problem } from "./Problem.tsx";
import { Facts } from "./Turn.tsx";

interface Props {
  conversation: Conversation;
  path: TextNode[];
  busy: boolean;
  editing: string | null;
  onEdit: (node: string | null) => void;
}

/** A story: one running text of parts by the reader and by the model. */
export function Story({ conversation, path, busy, editing, onEdit }: Props): JSX.Element {
  const { controller, t } = usePage();
  const last = path.at(-1);
  const edited = path.find((node) => node.id === editing);
  const writing = last?.status === "streaming";
  return (
    <article class="manuscript" aria-label={t.story} aria-busy={writing}>
      <p class={`text ${writing ? "writing" : ""}`}>
        {path.map((node) => (
          <Part
            key={node.id}
            conversation={conversation}
            node={node}
            busy={busy}
            last={node === last}
            onEdit={onEdit}
          />
        ))}
      </p>
      {edited && (
        <Editor
          key={edited.id}
          text={edited.text}
          action={edited.role === "user" ? t.saveAndAnswer : t.save}
          onSave={(text) => {
            onEdit(null);
            void controller.edit(edited.id, text);
          }}
          onCancel={() => onEdit(null)}
        />
      )}
      {last?.json && <JsonMark node={last} />}
      {last?.error && (
        <Problem error={last.error} onRetry={busy ? undefined : () => void controller.regenerate(last.id)} />
      )}
      {last && !writing && (
        <footer>
          <Branches conversation={conversation} node={last} disabled={busy} />
          <CopyButton text={path.map((node) => node.text).join("")} />
          <Actions node={last} busy={busy} onEdit={onEdit} />
          <Facts node={last} />
        </footer>
      )}
    </article>
  );
}

function Part({
  conversation,
  node,
  busy,
  last,
  onEdit,
}: {
  conversation: Conversation;
  node: TextNode;
  busy: boolean;
  last: boolean;
  onEdit: (node: string | null) => void;
}): JSX.Element {
  const { t } = usePage();
  return (
    <>
      <span class={`part ${node.role}`}>{node.text}</span>
      {!last && node.status !== "streaming" && (
        <span class="margin" role="group" aria-label={t.part[node.role === "user" ? "user" : "assistant"]}>
          <span class="tools">
            <Branches conversation={conversation} node={node} disabled={busy} />
            <Actions node={node} busy={busy} onEdit={onEdit} />
          </span>
        </span>
      )}
    </>
  );
}

function Actions({
  node,
  busy,
  onEdit,
}: {
  node: TextNode;
  busy: boolean;
  onEdit: (node: string | null) => void;
}): JSX.Element {
  const { controller, t } = usePage();
  return (
    <>
      <button type="button" class="quiet" title={t.edit} disabled={busy} onClick={() => onEdit(node.id)}>
        <EditIcon />
        <span class="hidden">{t.edit}</span>
      </button>
      {node.role === "assistant" && (
        <button
          type="button"
          class="quiet"
          title={t.retell}
          disabled={busy}
          onClick={() => void controller.regenerate(node.id)}
        >
          <AgainIcon />
          <span class="hidden">{t.retell}</span>
        </button>
      )}
    </>
  );
}
