/** Ternary language models and extractors in a browser, in a worker. */

export type * from "./backend.js";
export { createBackend, WorkerBackend } from "./client.js";
export type { BackendOptions } from "./client.js";
export type { Extraction, ExtractorTask, LoadOptions } from "./engine.js";
export type { Failure } from "./failure.js";
export { Extractor, Model } from "./model.js";
export type { GenerateOptions, Generation, ModelOptions, Weights } from "./model.js";
export type { Source } from "./source.js";
