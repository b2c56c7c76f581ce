/** Extractors of utterances, where a home of the page has them: intent, slots, out of scope. */

export interface ExtractorTask {
  name: string;
  intents: string[];
  slots: string[];
}

/** What was found in a text; positions count UTF-16 units, as strings do. */
export interface Extraction {
  intent: string;
  confidence: number;
  outOfScope: boolean;
  slots: { name: string; value: string; start: number; end: number }[];
  /** Whether the text has more words than are read. */
  cut: boolean;
  /** The likeliest intents, `intent` first. */
  alternatives: { intent: string; confidence: number }[];
}

/** An extractor that is open. */
export interface OpenExtractor {
  name: string;
  tasks: ExtractorTask[];
  extract(text: string, task: string): Promise<Extraction>;
  /** Milliseconds of one call with this text, without the way to a worker and back. */
  time(text: string, task: string): Promise<number>;
}
