// The budget of the page: at most 150 KB compressed, all files together.
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

const LIMIT = 150 * 1000;
const folder = new URL("../../crates/bitnet-server/page/", import.meta.url).pathname;

function files(at) {
  return readdirSync(at).flatMap((name) => {
    const path = join(at, name);
    return statSync(path).isDirectory() ? files(path) : [path];
  });
}

let total = 0;
for (const path of files(folder)) {
  const bytes = readFileSync(path);
  const packed = gzipSync(bytes, { level: 9 }).length;
  total += packed;
  console.log(`${path.slice(folder.length).padEnd(24)} ${bytes.length} bytes, ${packed} compressed`);
}
console.log(`together ${total} bytes compressed, of at most ${LIMIT}`);
if (total > LIMIT) {
  console.error("the page is too large");
  process.exit(1);
}
