// The package as a page uses it, for the test to call.
import * as bitnet from "./index.js";

globalThis.bitnet = bitnet;
