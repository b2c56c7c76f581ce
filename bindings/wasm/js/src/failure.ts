/** Errors as plain data, so that they cross a worker. */

import type { BackendError, ErrorCode } from "./backend.js";

/** A `BackendError`; when memory was short, also the bytes that were needed and those that were left. */
export interface Failure extends BackendError {
  needed?: number;
  available?: number;
}

export function failure(code: ErrorCode, message: string, more: Partial<Failure> = {}): Failure {
  return { code, message, ...more };
}

/** Whether a value is already an error of this kind. */
export function isFailure(value: unknown): value is Failure {
  const of = value as Partial<Failure> | null;
  return typeof of === "object" && of !== null && typeof of.code === "string" && typeof of.message === "string";
}

/** What somebody threw, as a `Failure`. */
export function asFailure(thrown: unknown, code: ErrorCode = "internal"): Failure {
  if (isFailure(thrown) && !(thrown instanceof Error)) return thrown;
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return failure(code, message);
}

/** Refuses a value that is not one of the texts; for what comes from outside. */
export function unknown(what: string, value: unknown): Failure {
  return failure("request", `${what} ${JSON.stringify(value) ?? "undefined"} is not known`);
}
