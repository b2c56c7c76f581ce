import type { JSX } from "preact";
import type { Mood } from "./mood.ts";

/** Its mouth is one of the three weights: minus, zero, plus. */
const MOUTHS: Record<Mood, string> = {
  calm: "M60 92h16",
  listening: "M60 91q8 5 16 0",
  reading: "M63 92h10",
  speaking: "M68 86a6 6 0 1 0 .1 0z",
  glad: "M56 89q12 13 24 0",
  worried: "M59 95q9-8 18 0",
  asleep: "M68 90a3.4 3.4 0 1 0 .1 0z",
};

/** The character: a round creature with a sprout. It blinks, and looks as it feels. */
export function Character({ mood }: { mood: Mood }): JSX.Element {
  return (
    <svg class={`character ${mood}`} viewBox="0 0 136 148" aria-hidden="true" focusable="false">
      <g class="body">
        <g class="sprout">
          <path class="stem" d="M68 38q-1-12 4-19" />
          <path class="plus" d="M72 3v17M63.5 11.5h17" />
        </g>
        <path class="foot" d="M46 132q-9 6-14 3 2-8 12-10zM90 132q9 6 14 3-2-8-12-10z" />
        <path class="skin" d="M68 36c30 0 45 22 45 50 0 30-17 49-45 49S23 116 23 86c0-28 15-50 45-50z" />
        <path class="belly" d="M68 99c17 0 27 8 27 19 0 9-11 15-27 15s-27-6-27-15c0-11 10-19 27-19z" />
        <path class="arm left" d="M25 92q-12 5-13 15" />
        <path class="arm right" d="M111 92q12 5 13 15" />
        <ellipse class="cheek" cx="40" cy="88" rx="7" ry="4.5" />
        <ellipse class="cheek" cx="96" cy="88" rx="7" ry="4.5" />
        <g class="eyes">
          <g class="open">
            <ellipse class="white" cx="50" cy="71" rx="10" ry="12" />
            <ellipse class="white" cx="86" cy="71" rx="10" ry="12" />
            <g class="pupils">
              <ellipse class="pupil" cx="51" cy="72" rx="5.5" ry="7" />
              <ellipse class="pupil" cx="85" cy="72" rx="5.5" ry="7" />
              <circle class="spark" cx="53" cy="69" r="2" />
              <circle class="spark" cx="87" cy="69" r="2" />
            </g>
          </g>
          <path class="shut" d="M41 73q9 6 18 0M77 73q9 6 18 0" />
          <path class="smiling" d="M41 75q9-11 18 0M77 75q9-11 18 0" />
        </g>
        <path class="brows" d="M40 56l14-5M96 56l-14-5" />
        <path class="mouth" d={MOUTHS[mood]} />
      </g>
      <g class="dreams">
        <path d="M104 36h9l-9 10h9" />
        <path d="M116 18h7l-7 8h7" />
      </g>
    </svg>
  );
}
