/** Any static server: the files of the site, below a path of its own. */
import { createReadStream, existsSync, statSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join, normalize } from "node:path";

const SITE = new URL("../../../target/site", import.meta.url).pathname;
const TYPES: Record<string, string> = {
  ".css": "text/css",
  ".html": "text/html",
  ".js": "text/javascript",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
};

export interface Served {
  url: string;
  stop(): void;
}

export async function serveSite(): Promise<Served> {
  if (!existsSync(`${SITE}/index.html`)) throw new Error("target/site is missing: cargo xtask web");
  const server = createServer((request, response) => {
    const path = new URL(request.url ?? "/", "http://x").pathname.replace(/^\/somewhere/, "");
    const file = join(SITE, normalize(path).replace(/\/$/, "/index.html"));
    if (!statSync(file, { throwIfNoEntry: false })?.isFile()) return void response.writeHead(404).end();
    response.writeHead(200, { "content-type": TYPES[extname(file)] ?? "application/octet-stream" });
    createReadStream(file).pipe(response);
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/somewhere/`;
  const stop = () => {
    server.closeAllConnections();
    server.close();
  };
  return { url, stop };
}
