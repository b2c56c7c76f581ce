/** What this host's WebAssembly can do. */

/** A module with a function that makes a vector. */
const SIMD = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];

/** A module with `f(a, b, c)`: the relaxed product and sum of three numbers, in vectors of them. */
const RELAXED = [
  0, 97, 115, 109, 1, 0, 0, 0, 1, 8, 1, 96, 3, 125, 125, 125, 1, 125, 3, 2, 1, 0, 7, 5, 1, 1, 102, 0, 0, 10, 22, 1, 20, 0,
  32, 0, 253, 19, 32, 1, 253, 19, 32, 2, 253, 19, 253, 133, 2, 253, 31, 0, 11,
];

/** Whether vectors work at all. */
export function hasSimd(): boolean {
  return WebAssembly.validate(new Uint8Array(SIMD));
}

/**
 * Whether relaxed vectors work, and round a product and sum once. Hosts may round twice, where the CPU has no instruction
 * for it; results would differ from those of other machines there.
 */
export function hasFusedSimd(): boolean {
  const bytes = new Uint8Array(RELAXED);
  if (!WebAssembly.validate(bytes)) return false;
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(bytes));
  const x = 1 + 2 ** -12;
  return (exports.f as (a: number, b: number, c: number) => number)(x, x, -1 - 2 ** -11) === 2 ** -24;
}
