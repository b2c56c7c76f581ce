import type { ErrorCode, Mixer } from "../backend/types.ts";

type ByMode = Record<"chat" | "story", string>;

/** Every text of the page. Both languages have all of them: the compiler and a test compare. */
export interface Strings {
  otherLanguage: string;
  skip: string;
  product: string;

  story: string;
  newChat: string;
  newStory: string;
  conversations: string;
  untitled: ByMode;
  deleteConversation: (title: string) => string;
  close: string;
  cancel: string;
  settings: string;
  theme: string;
  themes: Record<"system" | "light" | "dark", string>;
  language: string;
  gauges: string;

  welcome: ByMode;
  welcomeStory: string;
  welcomeChat: string;
  modelFacts: (parameters: string, layers: string) => string;
  examples: Record<"chat" | "story", string[]>;
  exampleLabel: string;

  composerLabel: ByMode;
  composerPlaceholder: ByMode;
  send: string;
  tell: string;
  stop: string;
  enterHint: string;
  chatImpossible: string;
  chatImpossibleAction: string;
  chatImpossibleHelp: string;

  you: string;
  model: string;
  copy: string;
  copied: string;
  edit: string;
  editLabel: string;
  editHint: string;
  save: string;
  saveAndAnswer: string;
  regenerate: string;
  retell: string;
  retry: string;
  branch: (index: string, count: string) => string;
  previousBranch: string;
  nextBranch: string;
  part: Record<"user" | "assistant", string>;
  toNewest: string;
  code: string;
  table: string;

  status: {
    writing: string;
    reading: (read: string, total: string) => string;
    done: (tokens: string) => string;
    stopped: string;
    cut: string;
    failed: string;
  };
  stoppedNote: string;
  cutNote: string;

  speed: string;
  tokensPerSecond: string;
  tokens: (n: string) => string;
  promptSpeed: (rate: string) => string;
  firstToken: (time: string) => string;
  cached: (n: string) => string;
  speedIdle: string;

  memory: string;
  memoryGrows: (perToken: string) => string;
  memoryFlat: (bytes: string) => string;
  memoryMixed: (constant: string, perToken: string) => string;
  memoryChart: (bytes: string, tokens: string) => string;
  legendKv: string;
  legendState: string;
  legendAttention: string;
  legendPlan: string;
  weights: (bytes: string) => string;

  innerLoss: string;
  innerLossText: string;
  innerLossChart: (share: string) => string;
  ofTheBeginning: string;
  innerLossIdle: string;
  legendLayers: string;
  legendMean: string;

  modelTitle: string;
  layers: (n: string) => string;
  layersChart: (attention: string, constant: string) => string;
  mixers: Record<Mixer, string>;
  context: string;
  noLimit: string;
  parameters: string;
  architecture: string;
  device: string;
  version: string;

  instruction: ByMode;
  instructionHelp: ByMode;
  sampling: string;
  samplingHelp: string;
  temperature: string;
  temperatureHelp: string;
  topP: string;
  topPHelp: string;
  topK: string;
  topKHelp: string;
  minP: string;
  minPHelp: string;
  presence: string;
  presenceHelp: string;
  frequency: string;
  frequencyHelp: string;
  seed: string;
  seedHelp: string;
  maxTokens: string;
  maxTokensHelp: string;
  stopTexts: string;
  stopTextsHelp: string;
  reset: string;

  json: string;
  jsonHelp: string;
  jsonModes: Record<"off" | "json" | "schema", string>;
  schema: string;
  schemaExample: string;
  schemaFault: Record<"empty" | "not-json" | "not-object", string>;
  schemaFine: string;
  jsonChip: Record<"json" | "schema", string>;
  marks: {
    waiting: string;
    open: string;
    valid: string;
    schema: string;
    unchecked: (keywords: string) => string;
    cut: string;
    broken: (at: string) => string;
    mismatch: (at: string, keyword: string) => string;
  };

  data: string;
  dataHelp: string;
  export: string;
  import: string;
  importFailed: string;
  deleteAll: string;
  deleteAllConfirm: string;

  keyTitle: string;
  keyText: string;
  keyLabel: string;
  keyRefused: string;
  keySubmit: string;
  keyForget: string;

  connecting: string;
  /** What happened, and what to do. */
  errors: Record<ErrorCode, [string, string]>;
  /** What else to do where no server computes. */
  local: { chatImpossibleHelp: string; errors: Partial<Record<ErrorCode, [string, string]>> };
  details: string;

  shortcuts: string;
  shortcutList: [string, string][];
}
