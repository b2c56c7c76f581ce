import type { JSX } from "preact";
import type { BackendError } from "../backend/types.ts";
import { usePage } from "./context.ts";

/** What went wrong and what to do, then the library's own words. */
export function Problem({ error, onRetry }: { error: BackendError; onRetry?: (() => void) | undefined }): JSX.Element {
  const { controller, t } = usePage();
  const local = controller.home === "server" ? undefined : t.local.errors[error.code];
  const [what, remedy] = local ?? t.errors[error.code] ?? t.errors.internal;
  return (
    <div class="problem" role="alert">
      <p>
        <strong>{what}</strong> {remedy}
      </p>
      {onRetry && (
        <button type="button" class="plain" onClick={onRetry}>
          {t.retry}
        </button>
      )}
      <details>
        <summary>{t.details}</summary>
        <p lang="en">{error.message}</p>
      </details>
    </div>
  );
}
