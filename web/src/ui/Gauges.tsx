import type { JSX } from "preact";
import type { ModelInfo } from "../backend/types.ts";
import type { Format } from "../i18n/format.ts";
import type { Strings } from "../i18n/strings.ts";
import { type Conversation, chosenPath, type State } from "../state/model.ts";
import { LayerPicture, LossChart, MemoryChart, Sparkline } from "./charts.tsx";
import { usePage } from "./context.ts";

/** Speed, memory, inner loss, model: the inside of the machine. */
export function Gauges({ state, conversation }: { state: State; conversation: Conversation }): JSX.Element | null {
  const { t } = usePage();
  if (state.connection.status !== "ready") return null;
  const { info } = state.connection;
  return (
    <>
      <Speed state={state} conversation={conversation} />
      <Memory state={state} conversation={conversation} info={info} />
      {info.innerLoss && (
        <section class="gauge">
          <h2>{t.innerLoss}</h2>
          {state.gauges.loss.length > 1 && state.gauges.conversation === conversation.id ? (
            <LossChart points={state.gauges.loss} />
          ) : (
            <p class="idle">{t.innerLossIdle}</p>
          )}
          <p class="note">{t.innerLossText}</p>
        </section>
      )}
      <ModelFacts info={info} />
    </>
  );
}

function lastResult(conversation: Conversation) {
  return chosenPath(conversation).findLast((node) => node.result !== undefined)?.result;
}

function Speed({ state, conversation }: { state: State; conversation: Conversation }): JSX.Element {
  const { t, format } = usePage();
  const { gauges, running } = state;
  const result = lastResult(conversation);
  const live = running?.conversation === conversation.id;
  const rate = live ? gauges.rate : (result?.decodePerSecond ?? null);
  const notes: string[] = [];
  if (live && gauges.reading) {
    notes.push(t.status.reading(format.number(gauges.reading.read), format.number(gauges.reading.total)));
  } else if (result && !live) {
    if (result.prefillPerSecond) notes.push(t.promptSpeed(format.rate(result.prefillPerSecond)));
    if (result.firstTokenMs > 0) notes.push(t.firstToken(format.milliseconds(result.firstTokenMs)));
    if (result.cachedTokens > 0) notes.push(t.cached(format.number(result.cachedTokens)));
  }
  return (
    <section class="gauge">
      <h2>{t.speed}</h2>
      {rate === null ? (
        <p class="idle">{live ? notes[0] : t.speedIdle}</p>
      ) : (
        <>
          <p class="figure">
            <span class="value">{format.rate(rate)}</span> <span class="unit">{t.tokensPerSecond}</span>
            {gauges.conversation === conversation.id && <Sparkline values={gauges.rates} />}
          </p>
          {notes.map((note) => (
            <p key={note} class="note">
              {note}
            </p>
          ))}
        </>
      )}
    </section>
  );
}

/** What the picture says, in a sentence. */
function memorySentence(t: Strings, format: Format, info: ModelInfo): string {
  const { constant, perToken } = info.memory;
  if (constant > 0 && perToken > 0) return t.memoryMixed(format.bytes(constant), format.bytes(perToken));
  return constant > 0 ? t.memoryFlat(format.bytes(constant)) : t.memoryGrows(format.bytes(perToken));
}

function Memory({
  state,
  conversation,
  info,
}: {
  state: State;
  conversation: Conversation;
  info: ModelInfo;
}): JSX.Element {
  const { t, format } = usePage();
  const own = state.gauges.conversation === conversation.id && state.gauges.memory.length > 0;
  // Earlier texts of the session, then the one that was computed last, in detail.
  const ends = chosenPath(conversation).flatMap((node) => node.result?.memory ?? []);
  const from = own ? (state.gauges.memory[0]?.tokens ?? 0) : Number.POSITIVE_INFINITY;
  const points = [...ends.filter((point) => point.tokens < from), ...(own ? state.gauges.memory : [])];
  const last = points.at(-1);
  return (
    <section class="gauge">
      <h2>{t.memory}</h2>
      {last && (
        <p class="figure">
          <span class="value">{format.bytes(last.kv + last.state)}</span>{" "}
          <span class="unit">{t.tokens(format.number(last.tokens))}</span>
        </p>
      )}
      <MemoryChart points={points} info={info} />
      <p class="note">{memorySentence(t, format, info)}</p>
    </section>
  );
}

function ModelFacts({ info }: { info: ModelInfo }): JSX.Element {
  const { t, format } = usePage();
  const kinds = [...new Set(info.mixers)].map((m) => t.mixers[m]).join(", ");
  const facts: [string, string][] = [
    [t.parameters, format.count(info.parameters)],
    [t.architecture, info.architecture],
    [t.context, info.context === null ? t.noLimit : t.tokens(format.number(info.context))],
    [t.memory, t.weights(format.bytes(info.memory.weights))],
    [t.device, info.device],
    [t.version, info.version],
  ];
  return (
    <section class="gauge">
      <h2>{t.modelTitle}</h2>
      <p class="name">{info.name}</p>
      <LayerPicture info={info} />
      <p class="note">{`${t.layers(format.number(info.mixers.length))} · ${kinds}`}</p>
      <dl>
        {facts.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
    </section>
  );
}

/** The gauges in a line, for narrow windows. */
export function GaugeLine({ state, conversation }: { state: State; conversation: Conversation }): JSX.Element {
  const { t, format } = usePage();
  const result = lastResult(conversation);
  const rate = state.running ? state.gauges.rate : (result?.decodePerSecond ?? null);
  const own = state.gauges.conversation === conversation.id ? state.gauges.memory.at(-1) : undefined;
  const memory = own ?? result?.memory;
  const facts: string[] = [];
  if (rate) facts.push(`${format.rate(rate)} ${t.tokensPerSecond}`);
  if (memory) facts.push(format.bytes(memory.kv + memory.state), t.tokens(format.number(memory.tokens)));
  return <span class="figures">{facts.length > 0 ? facts.join(" · ") : t.gauges}</span>;
}
