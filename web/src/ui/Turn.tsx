import { Component, type JSX } from "preact";
import { Markdown } from "../markdown/render.tsx";
import type { Conversation, TextNode } from "../state/model.ts";
import { Branches } from "./Branches.tsx";
import { CodeBlock } from "./CodeBlock.tsx";
import { CopyButton } from "./CopyButton.tsx";
import { usePage } from "./context.ts";
import { Editor } from "./Editor.tsx";
import { AgainIcon, EditIcon } from "./icons.tsx";
import { JsonMark } from "./JsonMark.tsx";
import { Problem } from "./Problem.tsx";

interface Props {
  conversation: Conversation;
  node: TextNode;
  busy: boolean;
  editing: boolean;
  onEdit: (node: string | null) => void;
}

/** One text of a chat. */
export function Turn({ conversation, node, busy, editing, onEdit }: Props): JSX.Element {
  const { controller, t } = usePage();
  const own = node.role === "user";
  const streaming = node.status === "streaming";
  return (
    <article class={`turn ${node.role}`} aria-label={own ? t.you : t.model} aria-busy={streaming}>
      {editing ? (
        <Editor
          text={node.text}
          action={own ? t.saveAndAnswer : t.save}
          onSave={(text) => {
            onEdit(null);
            void controller.edit(node.id, text);
          }}
          onCancel={() => onEdit(null)}
        />
      ) : (
        <Content node={node} />
      )}
      {node.error && (
        <Problem error={node.error} onRetry={busy ? undefined : () => void controller.regenerate(node.id)} />
      )}
      {!streaming && !editing && (
        <footer>
          <Branches conversation={conversation} node={node} disabled={busy} />
          {node.text !== "" && <CopyButton text={node.text} />}
          <button type="button" class="quiet" title={t.edit} disabled={busy} onClick={() => onEdit(node.id)}>
            <EditIcon />
            <span class="hidden">{t.edit}</span>
          </button>
          {!own && (
            <button
              type="button"
              class="quiet"
              title={t.regenerate}
              disabled={busy}
              onClick={() => void controller.regenerate(node.id)}
            >
              <AgainIcon />
              <span class="hidden">{t.regenerate}</span>
            </button>
          )}
          <Facts node={node} />
        </footer>
      )}
    </article>
  );
}

/** The text itself; it is made again only when it has changed, not with every word of another one. */
class Content extends Component<{ node: TextNode }> {
  override shouldComponentUpdate(next: { node: TextNode }): boolean {
    return next.node !== this.props.node;
  }

  override render({ node }: { node: TextNode }): JSX.Element {
    if (node.role === "user") return <p class="said">{node.text}</p>;
    return (
      <div class={`prose ${node.status === "streaming" ? "writing" : ""}`}>
        {node.json ? <CodeBlock language="json" text={node.text} wrap /> : <Markdown source={node.text} />}
        <JsonMark node={node} />
      </div>
    );
  }
}

/** How the text came about, in a line. */
export function Facts({ node }: { node: TextNode }): JSX.Element | null {
  const { t, format } = usePage();
  const { result } = node;
  const facts: string[] = [];
  if (node.status === "stopped") facts.push(t.stoppedNote);
  if (node.status === "cut") facts.push(t.cutNote);
  if (result && result.newTokens > 0) facts.push(t.tokens(format.number(result.newTokens)));
  if (result?.decodePerSecond) facts.push(`${format.rate(result.decodePerSecond)} ${t.tokensPerSecond}`);
  return facts.length > 0 ? <span class="facts">{facts.join(" · ")}</span> : null;
}
