import type { JSX } from "preact";

/** Line drawings of 20 by 20; decoration, the button has the words. */
function Icon({ d }: { d: string }): JSX.Element {
  return (
    <svg class="icon" viewBox="0 0 20 20" aria-hidden="true" focusable="false">
      <path d={d} />
    </svg>
  );
}

export const SendIcon = () => <Icon d="M10 16V4.5M5 9.2 10 4.2l5 5" />;
export const StopIcon = () => <Icon d="M6 6h8v8H6z" />;
export const CopyIcon = () => <Icon d="M7.5 7.5h8v8h-8zM12.5 7.5v-3h-8v8h3" />;
export const DoneIcon = () => <Icon d="m4.5 10.5 3.5 3.5 7.5-8" />;
export const EditIcon = () => <Icon d="M4.5 15.5v-3l8-8 3 3-8 8zM10.5 6.5l3 3" />;
export const AgainIcon = () => <Icon d="M15.5 10a5.5 5.5 0 1 1-1.7-4M14 2.8V6h-3.2" />;
export const BackIcon = () => <Icon d="m12 5-5 5 5 5" />;
export const NextIcon = () => <Icon d="m8 5 5 5-5 5" />;
export const PlusIcon = () => <Icon d="M10 4.5v11M4.5 10h11" />;
export const CloseIcon = () => <Icon d="m5.5 5.5 9 9M14.5 5.5l-9 9" />;
export const MenuIcon = () => <Icon d="M3.5 6h13M3.5 10h13M3.5 14h8" />;
export const SettingsIcon = () => <Icon d="M3.5 6.5h6M13.5 6.5h3M3.5 13.5h3M10.5 13.5h6M11.5 4.5v4M8.5 11.5v4" />;
export const GaugesIcon = () => <Icon d="M3.5 15.5v-4M8 15.5v-8M12.5 15.5v-6M16.5 15.5v-11" />;
export const DeleteIcon = () => <Icon d="M4.5 6h11M8 6V4.5h4V6M6 6l.7 9.5h6.6L14 6" />;
export const DownIcon = () => <Icon d="M10 4.5v11M5 10.8l5 5 5-5" />;
export const ContinueIcon = () => <Icon d="M4 10h11M10.8 5.5l4.7 4.5-4.7 4.5" />;

/** The mark of the project: minus, zero, plus. */
export function Mark(): JSX.Element {
  return (
    <svg class="mark" viewBox="0 0 46 16" aria-hidden="true" focusable="false">
      <path d="M2 8h9M35 8h9M39.5 3.5v9" />
      <circle cx="23" cy="8" r="4.3" />
    </svg>
  );
}
