import { createContext } from "preact";
import { useContext } from "preact/hooks";
import { type Format, formatFor, LANGUAGES } from "../i18n/format.ts";
import type { Strings } from "../i18n/strings.ts";
import type { Controller } from "../state/controller.ts";

/** What every part of the page may need. */
export interface Page {
  controller: Controller;
  t: Strings;
  format: Format;
}

export const PageContext = createContext<Page>({
  // Replaced by the root before anything is shown.
  controller: undefined as unknown as Controller,
  t: LANGUAGES.en,
  format: formatFor("en"),
});

export function usePage(): Page {
  return useContext(PageContext);
}
