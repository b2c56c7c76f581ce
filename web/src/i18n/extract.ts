import type { Language } from "./format.ts";

/** The texts of the view of extractors, which the page of the server does not have. */
export interface ExtractStrings {
  title: string;
  about: string;
  label: string;
  placeholder: string;
  task: string;
  back: string;
  examplesLabel: string;
  intent: string;
  outOfScope: string;
  closest: string;
  noSlots: string;
  marked: string;
  slots: string;
  slot: string;
  words: string;
  alternatives: string;
  time: (milliseconds: string) => string;
  cut: string;
  knows: (intents: string, slots: string) => string;
  /** Said to screen readers when typing pauses. */
  said: (intent: string, confidence: string, slots: string) => string;
}

export const EXTRACT: Record<Language, ExtractStrings> = {
  en: {
    title: "What is meant?",
    about:
      "Type a sentence. A small encoder names its intent and marks the slots while you type; nothing is generated.",
    label: "Sentence",
    placeholder: "Type a sentence",
    task: "Task",
    back: "Back to the texts",
    examplesLabel: "Some sentences",
    intent: "Intent",
    outOfScope: "Out of scope",
    closest: "None of the intents applies; the closest one is this.",
    noSlots: "No slots in this text.",
    marked: "The text with its slots",
    slots: "Slots",
    slot: "Slot",
    words: "Words",
    alternatives: "Likeliest intents",
    time: (milliseconds) => `${milliseconds} ms per call, computed in this browser`,
    cut: "Only the first 256 words were read.",
    knows: (intents, slots) => `${intents} intents, ${slots} slots`,
    said: (intent, confidence, slots) => `${intent}, ${confidence}. ${slots}`,
  },
  ja: {
    title: "どういう意味ですか？",
    about:
      "文を入力してください。小さなエンコーダーが入力中に意図を判定し、スロットに印を付けます。文章は生成しません。",
    label: "文",
    placeholder: "文を入力",
    task: "タスク",
    back: "テキストに戻る",
    examplesLabel: "文の例",
    intent: "意図",
    outOfScope: "範囲外",
    closest: "当てはまる意図はありません。最も近いものはこれです。",
    noSlots: "この文にスロットはありません。",
    marked: "スロットの印を付けた文",
    slots: "スロット",
    slot: "スロット",
    words: "語句",
    alternatives: "可能性の高い意図",
    time: (milliseconds) => `1 回 ${milliseconds} ミリ秒（このブラウザーで計算）`,
    cut: "最初の 256 語だけを読みました。",
    knows: (intents, slots) => `意図 ${intents} 種類、スロット ${slots} 種類`,
    said: (intent, confidence, slots) => `意図は${intent}、確率${confidence}。${slots}`,
  },
};

/** Sentences for the tasks of the extractors that come with the program; others have none. */
export const EXAMPLES: Record<string, string[]> = {
  snips: [
    "play some jazz by miles davis",
    "book a table for four at 7 pm in paris",
    "what is the wether in tokyo tomorrow",
    "why do cats purr",
  ],
  clinc150: [
    "what is teh exchange rate betwen dollars and yen",
    "how do i change my oil",
    "set a timer for ten minutes",
    "how many legs does a spider have in minecraft",
  ],
  "topic-ja": ["青空文庫って知ってる?", "夏目漱石について教えて", "富士山つてどんな山?", "今日は天気がいい"],
};
