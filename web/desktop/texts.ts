/** Words of the companion, and those of the page that are others here. */
import type { Language } from "../src/i18n/format.ts";
import type { Strings } from "../src/i18n/strings.ts";
import type { Notice } from "./bridge.ts";

export interface Texts {
  /** In place of the page's. */
  page: (page: Strings) => Strings;
  wake: string;
  hide: string;
  newText: string;
  bubble: string;
  model: string;
  builtin: string;
  chooseFile: string;
  useBuiltin: string;
  planTitle: (name: string) => string;
  planWeights: string;
  planSession: (tokens: string) => string;
  planConstant: string;
  planTotal: string;
  planFits: (total: string, free: string) => string;
  planTooLarge: (total: string, free: string) => string;
  planUnknown: (total: string) => string;
  load: string;
  loadAnyway: string;
  threads: string;
  threadsHelp: string;
  apply: string;
  autostart: string;
  shortcut: string;
  shortcutHelp: string;
  memory: string;
  memoryHelp: string;
  memoryNone: string;
  memoryOf: (tokens: string, bytes: string, model: string) => string;
  export: string;
  exported: (path: string) => string;
  forget: string;
  forgetConfirm: string;
  forgetYes: string;
  notices: Record<Notice["kind"], [string, string]>;
  dismiss: string;
}

const en: Texts = {
  page: (page) => ({
    ...page,
    chatImpossibleHelp: "To chat, choose a model with a chat template in the settings.",
    welcomeChat: "I answer here, word by word, computed on this machine. I remember what we talked about.",
    welcomeStory: "Write the first words. I go on from there, and I remember where we were.",
    dataHelp: "They are stored on this computer only.",
    deleteAllConfirm: "Forget every conversation? This cannot be undone.",
    errors: {
      ...page.errors,
      "context-full": [
        "The text is longer than the model’s context.",
        "Begin a new conversation, or choose a model with a state of constant size.",
      ],
      "no-chat-template": ["This model cannot chat.", "Begin a story, or choose another model in the settings."],
      "constraint-slow": ["The schema took too long to prepare.", "Make it smaller."],
      request: ["The request was refused.", "Change the setting that the detail names."],
      "out-of-memory": ["There is not enough memory.", "Close other programs, or choose a smaller model."],
      session: ["This memory belongs to another model.", "Load that model; or go on, and the text is read again."],
      interrupted: ["It broke off.", "What came so far is kept. Try again."],
      closing: ["The program is about to end.", "Start it again."],
    },
  }),
  wake: "Open the bubble. Drag to move.",
  hide: "Close the bubble",
  newText: "Begin something new",
  bubble: "Conversation",
  model: "Model",
  builtin: "Stories in English (built in)",
  chooseFile: "Choose a GGUF file …",
  useBuiltin: "Use the built-in model",
  planTitle: (name) => `Memory of ${name}`,
  planWeights: "Weights and tables",
  planSession: (tokens) => `A text of ${tokens} tokens`,
  planConstant: "A text of any length",
  planTotal: "In all",
  planFits: (total, free) => `${total} of ${free} that are free: it fits.`,
  planTooLarge: (total, free) => `It needs ${total}, and ${free} are free. The computer would become very slow.`,
  planUnknown: (total) => `It needs ${total}.`,
  load: "Load",
  loadAnyway: "Load anyway",
  threads: "Threads",
  threadsHelp: "How many cores to compute with. 0 takes all that the machine has.",
  apply: "Apply",
  autostart: "Start with the computer",
  shortcut: "Keys from anywhere",
  shortcutHelp: "Open and close the bubble. Empty: none. Not available under Wayland.",
  memory: "Memory",
  memoryHelp:
    "Texts and the model’s state are kept on this computer, also when the program is killed. A state of constant size stays as small as it is; that of attention grows with the text.",
  memoryNone: "Nothing yet.",
  memoryOf: (tokens, bytes, model) => `${tokens} tokens, ${bytes} (${model})`,
  export: "Export this conversation …",
  exported: (path) => `Saved: ${path}`,
  forget: "Forget everything …",
  forgetConfirm: "Forget all texts and states? This cannot be undone.",
  forgetYes: "Forget",
  notices: {
    texts: ["The remembered texts were damaged.", "I start afresh; the damaged file was set aside."],
    state: ["The remembered state could not be used.", "The text is here, and I read it again."],
    settings: ["The settings were damaged.", "I use the defaults; the damaged file was set aside."],
    save: ["I cannot remember this.", "Free some space, or see whether the folder can be written to."],
    model: ["The chosen model could not be loaded.", "I use the built-in one. Choose another in the settings."],
    shortcut: ["The keys cannot be used.", "Another program may have them. Choose others in the settings."],
    memory: ["Nothing will be remembered.", "The folder cannot be used; see the detail."],
  },
  dismiss: "Understood",
};

const ja: Texts = {
  page: (page) => ({
    ...page,
    chatImpossibleHelp: "会話をするには、設定でチャットテンプレートのあるモデルを選んでください。",
    welcomeChat: "このコンピューターの中で計算しながら、一語ずつ答えます。話したことは覚えています。",
    welcomeStory: "書き出しを書いてください。続きを書きます。どこまで進んだかも覚えています。",
    dataHelp: "このコンピューターにだけ保存されます。",
    deleteAllConfirm: "すべての会話を忘れますか？ 元に戻せません。",
    errors: {
      ...page.errors,
      "context-full": [
        "文章がモデルの文脈より長くなりました。",
        "新しく始めるか、状態の大きさが一定のモデルを選んでください。",
      ],
      "no-chat-template": ["このモデルは会話ができません。", "物語を始めるか、設定で別のモデルを選んでください。"],
      "constraint-slow": ["スキーマの準備に時間がかかりすぎました。", "小さくしてください。"],
      request: ["この指定では実行できません。", "詳細にある設定を変えてください。"],
      "out-of-memory": ["メモリが足りません。", "ほかのプログラムを閉じるか、小さいモデルを選んでください。"],
      session: ["この記憶は別のモデルのものです。", "そのモデルを読み込むか、このまま続けると文章を読み直します。"],
      interrupted: ["途中で切れました。", "ここまでの文章は残っています。もう一度お試しください。"],
      closing: ["プログラムが終了するところです。", "もう一度起動してください。"],
    },
  }),
  wake: "吹き出しを開く。ドラッグで移動",
  hide: "吹き出しを閉じる",
  newText: "新しく始める",
  bubble: "会話",
  model: "モデル",
  builtin: "英語の物語（内蔵）",
  chooseFile: "GGUF ファイルを選ぶ…",
  useBuiltin: "内蔵のモデルを使う",
  planTitle: (name) => `${name} のメモリ`,
  planWeights: "重みと表",
  planSession: (tokens) => `${tokens} トークンの文章`,
  planConstant: "文章（長さによらず）",
  planTotal: "合計",
  planFits: (total, free) => `空き ${free} のうち ${total} を使います。収まります。`,
  planTooLarge: (total, free) => `${total} が必要ですが、空きは ${free} です。コンピューターがとても遅くなります。`,
  planUnknown: (total) => `${total} が必要です。`,
  load: "読み込む",
  loadAnyway: "それでも読み込む",
  threads: "スレッド数",
  threadsHelp: "計算に使うコアの数。0 ならすべて使います。",
  apply: "適用",
  autostart: "コンピューターの起動時に始める",
  shortcut: "どこからでも使えるキー",
  shortcutHelp: "吹き出しを開閉します。空欄なら使いません。Wayland では使えません。",
  memory: "記憶",
  memoryHelp:
    "文章とモデルの状態はこのコンピューターに保存され、プログラムが強制終了されても残ります。一定の大きさの状態は小さいままで、アテンションの状態は文章とともに大きくなります。",
  memoryNone: "まだありません。",
  memoryOf: (tokens, bytes, model) => `${tokens} トークン、${bytes}（${model}）`,
  export: "この会話を書き出す…",
  exported: (path) => `保存しました：${path}`,
  forget: "すべて忘れる…",
  forgetConfirm: "すべての文章と状態を忘れますか？ 元に戻せません。",
  forgetYes: "忘れる",
  notices: {
    texts: ["記憶していた文章が壊れていました。", "新しく始めます。壊れたファイルは別の名前で残しました。"],
    state: ["記憶していた状態が使えませんでした。", "文章は残っているので、読み直します。"],
    settings: ["設定が壊れていました。", "既定の設定を使います。壊れたファイルは別の名前で残しました。"],
    save: ["記憶できません。", "空き容量を増やすか、フォルダーに書き込めるか確かめてください。"],
    model: ["選ばれたモデルを読み込めませんでした。", "内蔵のモデルを使います。設定で別のモデルを選んでください。"],
    shortcut: [
      "このキーは使えません。",
      "ほかのプログラムが使っているかもしれません。設定で別のキーを選んでください。",
    ],
    memory: ["何も記憶されません。", "フォルダーが使えません。詳細をご覧ください。"],
  },
  dismiss: "わかりました",
};

export const TEXTS: Record<Language, Texts> = { en, ja };
