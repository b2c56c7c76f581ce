import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { usePage } from "./context.ts";
import { CopyIcon, DoneIcon } from "./icons.tsx";

export function CopyButton({ text }: { text: string }): JSX.Element {
  const { t } = usePage();
  const [copied, setCopied] = useState(false);
  useEffect(() => {
    if (!copied) return;
    const timer = setTimeout(() => setCopied(false), 1600);
    return () => clearTimeout(timer);
  }, [copied]);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setCopied(true);
    } catch {
      // Over plain HTTP from another machine the browser has no clipboard; the text can be selected.
    }
  };
  return (
    <button type="button" class="quiet" onClick={copy} title={t.copy}>
      {copied ? <DoneIcon /> : <CopyIcon />}
      <span class="hidden">{copied ? t.copied : t.copy}</span>
    </button>
  );
}
