import type { JSX } from "preact";
import type { LossPoint, MemoryPoint, ModelInfo } from "../backend/types.ts";
import { usePage } from "./context.ts";

const WIDTH = 280;
const HEIGHT = 132;
const LEFT = 4;
const TOP = 18;
const BOTTOM = 20;

type Point = [number, number];

/** The next of 1, 2, 4, 5, 10, … that is at least `n`. */
export function niceAbove(n: number): number {
  if (n <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(n));
  const step = [1, 2, 4, 5, 10].find((s) => s * power >= n) ?? 10;
  return step * power;
}

/** Scales of a chart from 0 to `x` and from 0 to `y`. */
function scales(x: number, y: number): (point: Point) => string {
  const [w, h] = [WIDTH - LEFT * 2, HEIGHT - TOP - BOTTOM];
  return ([px, py]) => `${(LEFT + (px / x) * w).toFixed(1)} ${(TOP + h - (py / y) * h).toFixed(1)}`;
}

function line(points: Point[], at: (point: Point) => string): string {
  return points.map((point, i) => `${i === 0 ? "M" : "L"}${at(point)}`).join("");
}

function area(points: Point[], at: (point: Point) => string): string {
  const [first, last] = [points[0], points.at(-1)];
  if (!first || !last) return "";
  return `${line(points, at)}L${at([last[0], 0])}L${at([first[0], 0])}Z`;
}

/** Steps: bytes are taken when a page of keys and values is needed, not bit by bit. */
function steps(points: Point[]): Point[] {
  const out: Point[] = [];
  for (const [x, y] of points) {
    const last = out.at(-1);
    if (last && last[1] !== y) out.push([x, last[1]]);
    out.push([x, y]);
  }
  return out;
}

/** The bytes of the session over its tokens: keys and values that grow, a state that does not. */
export function MemoryChart({ points, info }: { points: MemoryPoint[]; info: ModelInfo }): JSX.Element {
  const { t, format } = usePage();
  const { constant, perToken, perTokenAsAttention } = info.memory;
  const last = points.at(-1);
  const tokens = last?.tokens ?? 0;
  const wanted = niceAbove(Math.max(256, tokens * 1.1));
  // Where the context ends soon, the picture ends with it.
  const right = info.context !== null && info.context < 4 * wanted ? info.context : wanted;
  const compared = constant > 0 && perToken === 0 ? perTokenAsAttention : null;
  const now = last ? last.kv + last.state : constant;
  const top = Math.max(now, constant + perToken * right, (compared ?? 0) * right) * 1.04 || 1;
  const at = scales(right, top);
  const kv = steps(points.map((p): Point => [p.tokens, p.kv + p.state]));
  const state = last?.state ?? constant;
  const label = t.memoryChart(format.bytes(now), format.number(tokens));
  const first = kv[0];
  return (
    <figure class="chart">
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={label}>
        <path class="axis" d={`M${at([0, 0])}L${at([right, 0])}`} />
        {compared !== null && <path class="ghost" d={`M${at([0, 0])}L${at([right, compared * right])}`} />}
        {perToken > 0 && <path class="ghost" d={`M${at([0, constant])}L${at([right, constant + perToken * right])}`} />}
        {state > 0 && (
          <path
            class="flat"
            d={area(
              [
                [0, state],
                [right, state],
              ],
              at,
            )}
          />
        )}
        {state > 0 && (
          <path
            class="flat-edge"
            d={line(
              [
                [0, state],
                [right, state],
              ],
              at,
            )}
          />
        )}
        {perToken > 0 && first && <path class="grown" d={area([[0, first[1]], ...kv], at)} />}
        {perToken > 0 && first && <path class="grown-edge" d={line([[0, first[1]], ...kv], at)} />}
        {last && (
          <circle class="now" r="3.5" cx={at([tokens, now]).split(" ")[0]} cy={at([tokens, now]).split(" ")[1]} />
        )}
        <text class="tick" x={LEFT} y={11}>
          {format.bytes(top / 1.04)}
        </text>
        <text class="tick" x={LEFT} y={HEIGHT - 4}>
          0
        </text>
        <text class="tick end" x={WIDTH - LEFT} y={HEIGHT - 4}>
          {t.tokens(format.number(right))}
        </text>
      </svg>
      <figcaption>
        <ul class="legend">
          {perToken > 0 && <li class="grown">{t.legendKv}</li>}
          {constant > 0 && <li class="flat">{t.legendState}</li>}
          {perToken > 0 && <li class="ghost">{t.legendPlan}</li>}
          {compared !== null && <li class="ghost">{t.legendAttention}</li>}
        </ul>
      </figcaption>
    </figure>
  );
}

/** Curves of inner losses: each layer as a share of its own beginning, since layers differ in size, and their mean. */
export function lossCurves(points: LossPoint[]): { layers: Point[][]; mean: Point[] } {
  const count = points[0]?.layers.length ?? 0;
  const layers = Array.from({ length: count }, (_, l) => {
    const curve = smooth(points.map((p): Point => [p.at, p.layers[l] ?? 0]));
    const first = curve[0]?.[1] || 1;
    return curve.map(([x, y]): Point => [x, y / first]);
  });
  const mean = points.map((p, i): Point => {
    const sum = layers.reduce((total, curve) => total + (curve[i]?.[1] ?? 0), 0);
    return [p.at, sum / Math.max(1, count)];
  });
  return { layers, mean };
}

/** How the state learns while it reads. */
export function LossChart({ points }: { points: LossPoint[] }): JSX.Element {
  const { t, format } = usePage();
  const { layers, mean } = lossCurves(points);
  const right = Math.max(1, points.at(-1)?.at ?? 1);
  const top = Math.max(1.15, ...[...layers, mean].flat().map((p) => p[1])) * 1.02;
  const at = scales(right, top);
  const share = format.percent(mean.at(-1)?.[1] ?? 1);
  return (
    <figure class="chart">
      <p class="figure">
        <span class="value">{share}</span> <span class="unit">{t.ofTheBeginning}</span>
      </p>
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={t.innerLossChart(share)}>
        <path class="axis" d={`M${at([0, 0])}L${at([right, 0])}`} />
        <path class="ghost" d={`M${at([0, 1])}L${at([right, 1])}`} />
        {layers.map((curve, l) => (
          <path key={l} class="layer" d={line(curve, at)} />
        ))}
        <path class="mean" d={line(mean, at)} />
        <text class="tick end" x={WIDTH - LEFT} y={Number(at([right, 1]).split(" ")[1]) - 4}>
          {format.percent(1)}
        </text>
        <text class="tick" x={LEFT} y={HEIGHT - 4}>
          0
        </text>
        <text class="tick end" x={WIDTH - LEFT} y={HEIGHT - 4}>
          {t.tokens(format.number(right))}
        </text>
      </svg>
      <figcaption>
        <ul class="legend">
          <li class="mean">{t.legendMean}</li>
          <li class="layer">{t.legendLayers}</li>
        </ul>
      </figcaption>
    </figure>
  );
}

/** A running mean, so that single mini-batches do not hide the way. */
function smooth(points: Point[]): Point[] {
  const span = Math.max(1, Math.round(points.length / 24));
  return points.map(([x], i) => {
    const part = points.slice(Math.max(0, i - span), i + span + 1);
    return [x, part.reduce((sum, p) => sum + p[1], 0) / part.length];
  });
}

/** The last moments of the speed. */
export function Sparkline({ values }: { values: number[] }): JSX.Element | null {
  if (values.length < 2) return null;
  const top = Math.max(...values) * 1.1 || 1;
  const step = 120 / Math.max(24, values.length - 1);
  const points = values.map((v, i) => `${(i * step).toFixed(1)} ${(28 - (v / top) * 26).toFixed(1)}`);
  return (
    <svg class="sparkline" viewBox="0 0 120 30" aria-hidden="true">
      <path d={`M${points.join("L")}`} />
    </svg>
  );
}

/** One bar per layer: hollow where memory grows, filled where it stays. */
export function LayerPicture({ info }: { info: ModelInfo }): JSX.Element {
  const { t, format } = usePage();
  const attention = info.mixers.filter((m) => m === "attention").length;
  const label = t.layersChart(format.number(attention), format.number(info.mixers.length - attention));
  const width = Math.min(14, (WIDTH - 3 * (info.mixers.length - 1)) / info.mixers.length);
  return (
    <svg class="layers" viewBox={`0 0 ${WIDTH} 22`} role="img" aria-label={label}>
      {info.mixers.map((mixer, i) => (
        <rect
          key={i}
          class={mixer === "attention" ? "attention" : "constant"}
          x={(i * (width + 3) + 0.75).toFixed(2)}
          y="1"
          width={Math.max(1, width - 1.5).toFixed(2)}
          height="20"
          rx="1.5"
        >
          <title>{`${i + 1}: ${t.mixers[mixer]}`}</title>
        </rect>
      ))}
    </svg>
  );
}
