/**
 * The one interface between the page and whatever computes: a server over HTTP, WebAssembly in a worker, or the desktop
 * program. It stands in the package, which has to be whole without the page.
 */
export type * from "../../../bindings/wasm/js/src/backend.ts";
