import type { JSX } from "preact";
import { CopyButton } from "./CopyButton.tsx";
import { usePage } from "./context.ts";

/** Code as it stands, with a way to copy it. */
export function CodeBlock({ language, text, wrap }: { language: string; text: string; wrap?: boolean }): JSX.Element {
  const { t } = usePage();
  return (
    <figure class={wrap ? "code wrap" : "code"}>
      <figcaption>
        <span>{language || t.code}</span>
        <CopyButton text={text} />
      </figcaption>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reachable by keyboard */}
      <pre tabIndex={0}>
        <code>{text}</code>
      </pre>
    </figure>
  );
}
