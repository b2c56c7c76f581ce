// Keeps the files of the page, so that it opens without a network. Models and modules are in caches of their own, which the
// worker of the package fills. The build puts the names of the files and their version here.

const VERSION = "__VERSION__";
const FILES = ["__FILES__"];
const CACHE = `bitnet-page-${VERSION}`;

self.addEventListener("install", (event) => {
  const fetchAll = async () => {
    const cache = await caches.open(CACHE);
    await cache.addAll(FILES.map((file) => new Request(file, { cache: "reload" })));
    await self.skipWaiting();
  };
  event.waitUntil(fetchAll());
});

self.addEventListener("activate", (event) => {
  const tidy = async () => {
    const old = (await caches.keys()).filter((name) => name.startsWith("bitnet-page-") && name !== CACHE);
    await Promise.all(old.map((name) => caches.delete(name)));
    await self.clients.claim();
  };
  event.waitUntil(tidy());
});

const known = new Set(FILES.map((file) => new URL(file, self.registration.scope).href));

/** The newest page if there is a network, else the stored one. */
async function page(request) {
  try {
    const response = await fetch(request);
    if (response.ok) return response;
  } catch {
    // No network.
  }
  const cache = await caches.open(CACHE);
  return (await cache.match(new URL("./", self.registration.scope).href)) ?? Response.error();
}

async function file(request) {
  const cache = await caches.open(CACHE);
  return (await cache.match(request.url)) ?? fetch(request);
}

self.addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method !== "GET") return;
  if (request.mode === "navigate") event.respondWith(page(request));
  else if (known.has(request.url)) event.respondWith(file(request));
});
