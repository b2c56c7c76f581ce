import type { BackendError, ErrorCode } from "./types.ts";

/** Whether a caught value is an error of a backend; it may have crossed a worker, so its class says nothing. */
export function isBackendError(value: unknown): value is BackendError {
  if (typeof value !== "object" || value === null) return false;
  // A `DOMException` has a code, too, and it is a number.
  return "code" in value && typeof value.code === "string" && "message" in value;
}

/** Any caught value as an error of a backend. */
export function asBackendError(value: unknown): BackendError {
  if (isBackendError(value)) return value;
  return { code: "internal", message: value instanceof Error ? value.message : String(value) };
}

/** The `error` object of the server's answers. */
export interface ServerError {
  message?: string;
  type?: string;
  param?: string | null;
  code?: string | null;
}

const CODES: Record<string, ErrorCode> = {
  invalid_api_key: "key",
  host_not_allowed: "host",
  rate_limit_exceeded: "busy",
  context_length_exceeded: "context-full",
  no_chat_template: "no-chat-template",
  constraint_too_slow: "constraint-slow",
  constraint_too_large: "constraint",
  server_shutdown: "closing",
  engine_failed: "internal",
};

const STATUSES: Record<number, ErrorCode> = { 401: "key", 403: "host", 429: "busy", 503: "closing" };

const CONSTRAINTS = ["response_format", "grammar", "regex"];

/** What the server said, as an error of a backend. `status` is missing for an error within a stream. */
export function fromServer(error: ServerError, status?: number, retryAfter?: string | null): BackendError {
  const param = error.param ?? undefined;
  const named = CODES[error.code ?? ""];
  const constrained = param !== undefined && CONSTRAINTS.some((field) => param.startsWith(field));
  const byStatus = status === undefined ? undefined : STATUSES[status];
  const code: ErrorCode =
    named ?? byStatus ?? (constrained ? "constraint" : error.type === "server_error" ? "internal" : "request");
  const seconds = Number(retryAfter);
  return {
    code,
    message: error.message ?? `status ${status ?? "unknown"}`,
    ...(param === undefined ? {} : { param }),
    ...(code === "busy" && retryAfter ? { retryAfterMs: Number.isFinite(seconds) ? seconds * 1000 : 1000 } : {}),
  };
}
