/** Home 1: the page of `bitnet serve`. The server that sent it answers its requests, also below another path. */
import { ServerBackend } from "./backend/server.ts";
import { start } from "./start.tsx";
import { serverKey } from "./state/storage.ts";

start(new ServerBackend(new URL("./", document.baseURI).href, serverKey.get));
