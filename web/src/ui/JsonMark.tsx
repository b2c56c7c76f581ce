import type { JSX } from "preact";
import { type Mark, markOf } from "../json/mark.ts";
import type { TextNode } from "../state/model.ts";
import { usePage } from "./context.ts";

const SIGNS: Record<Mark["mark"], string> = {
  waiting: "○",
  open: "◐",
  valid: "●",
  cut: "◌",
  broken: "✕",
  mismatch: "✕",
};

/** The live mark of an answer that has to be JSON. */
export function JsonMark({ node }: { node: TextNode }): JSX.Element | null {
  const { t, format } = usePage();
  if (!node.json) return null;
  const mark = markOf(node.text, node.status !== "streaming", node.json.schema);
  const words = () => {
    switch (mark.mark) {
      case "valid":
        if (mark.unchecked.length > 0) return t.marks.unchecked(mark.unchecked.join(", "));
        return mark.schema ? t.marks.schema : t.marks.valid;
      case "broken":
        return t.marks.broken(format.number(mark.at + 1));
      case "mismatch":
        return t.marks.mismatch(mark.at, mark.keyword);
      default:
        return t.marks[mark.mark];
    }
  };
  return (
    <p class={`json-mark ${mark.mark}`}>
      <span aria-hidden="true">{SIGNS[mark.mark]}</span> {words()}
    </p>
  );
}
