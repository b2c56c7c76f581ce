import type { JSX } from "preact";
import type { Conversation, TextNode } from "../state/model.ts";
import { usePage } from "./context.ts";
import { BackIcon, NextIcon } from "./icons.tsx";

/** The way to the other branches at a place, if there are any. */
export function Branches({
  conversation,
  node,
  disabled,
}: {
  conversation: Conversation;
  node: TextNode;
  disabled: boolean;
}): JSX.Element | null {
  const { controller, t, format } = usePage();
  const parent = node.parent === null ? undefined : conversation.nodes[node.parent];
  const count = parent?.children.length ?? 0;
  if (!parent || count < 2) return null;
  const index = parent.children.indexOf(node.id);
  const go = (to: number) => controller.choose(parent.id, to);
  return (
    <span class="branches" role="group" aria-label={t.branch(format.number(index + 1), format.number(count))}>
      <button
        type="button"
        class="quiet"
        title={t.previousBranch}
        disabled={disabled || index === 0}
        onClick={() => go(index - 1)}
      >
        <BackIcon />
        <span class="hidden">{t.previousBranch}</span>
      </button>
      <span class="figures" aria-hidden="true">
        {index + 1}/{count}
      </span>
      <button
        type="button"
        class="quiet"
        title={t.nextBranch}
        disabled={disabled || index === count - 1}
        onClick={() => go(index + 1)}
      >
        <NextIcon />
        <span class="hidden">{t.nextBranch}</span>
      </button>
    </span>
  );
}
