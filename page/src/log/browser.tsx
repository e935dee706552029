/** The messages of one stream: found, followed, read one by one. */
import { useSignal } from "@preact/signals";
import { useEffect, useMemo, useState } from "preact/hooks";
import { clock, count, day, millis, moment, plural } from "../format";
import { moving, useKeys } from "../keys";
import { note, query } from "../router";
import { now } from "../store";
import type { Message, StreamState } from "../types";
import { Answered, Empty, Panel, Row, Tag } from "../ui/parts";
import { Finder, type Search } from "./messages";

export function MessagesPanel({ stream }: { stream: StreamState }) {
  const key = query.value.get("key") ?? "";
  const contains = query.value.get("contains") ?? "";
  const from = query.value.get("from") ?? "";
  const finder = useMemo(() => new Finder({ stream: stream.stream, key, contains, from }), [stream.stream, key, contains, from]);
  const live = useSignal(true);
  const [chosen, setChosen] = useState<number | null>(null);
  useEffect(() => {
    void finder.first();
    return finder.follow(() => live.value && !finder.ascending);
  }, [finder]);
  const messages = finder.messages.value;
  const answer = finder.answer.value;
  const at = messages.findIndex((one) => one.offset === chosen);
  useKeys({
    ...moving(at, messages.length, (index) => setChosen(messages[index]?.offset ?? null)),
    "/": () => document.querySelector<HTMLInputElement>("#log-key")?.focus(),
    Escape: () => setChosen(null),
  });
  const picked = messages[at];
  return (
    <div class={`messages ${picked ? "split" : ""}`}>
      <Panel
        title="Messages"
        about={<code>{stream.stream}</code>}
        end={
          <button type="button" class="button tail" aria-pressed={live.value && !finder.ascending} disabled={finder.ascending} title={finder.ascending ? "The live tail goes with the newest messages: clear “from”" : "Show messages as they arrive"} onClick={() => (live.value = !live.value)}>
            <i class={`dot ${live.value && !finder.ascending ? "ok" : ""}`} /> Live tail
          </button>
        }
      >
        <SearchForm key={stream.stream} search={finder.search} />
        <Answered
          waiting={finder.busy.value}
          problem={finder.problem.value ?? undefined}
          empty={!messages.length}
          nothing={
            <Empty title="No such message">
              {answer ? `${plural(answer.scanned, "record")} looked through${answer.complete ? ", all there are." : "."}` : ""}
              {answer && !answer.complete && (
                <>
                  {" "}
                  <button type="button" class="button" onClick={() => void finder.more()}>
                    Look further
                  </button>
                </>
              )}
            </Empty>
          }
        >
          <table class="records">
            <thead>
              <tr>
                <th scope="col" class="n">Offset</th>
                <th scope="col">Appended (UTC)</th>
                <th scope="col">Key</th>
                <th scope="col" class="n">Bytes</th>
                <th scope="col">Record</th>
              </tr>
            </thead>
            <tbody>
              {messages.map((message) => (
                <Row key={message.offset} chosen={message.offset === chosen} choose={() => setChosen(message.offset === chosen ? null : message.offset)}>
                  <td class="n mono">{message.offset}</td>
                  <td title={message.append_ts}>{moment(millis(message.append_ts)).startsWith(day(now.value)) ? clock(millis(message.append_ts), true) : moment(millis(message.append_ts))}</td>
                  <td>{message.key || <span class="faint">–</span>}</td>
                  <td class="n faint">{count(message.size)}</td>
                  <td class="preview mono">{preview(message)}</td>
                </Row>
              ))}
            </tbody>
          </table>
          {answer && answer.next !== null && !(finder.ascending && answer.complete) && (
            <p class="more">
              <button type="button" class="button" disabled={finder.busy.value} onClick={() => void finder.more()}>
                {finder.ascending ? "Later ones" : "Older ones"}
              </button>
            </p>
          )}
        </Answered>
      </Panel>
      {picked && <Whole message={picked} close={() => setChosen(null)} />}
    </div>
  );
}

function SearchForm({ search }: { search: Search }) {
  const [key, setKey] = useState(search.key);
  const [contains, setContains] = useState(search.contains);
  const [from, setFrom] = useState(search.from);
  const field = (id: string, label: string, placeholder: string, value: string, set: (text: string) => void) => (
    <label>
      <span>{label}</span>
      <input id={id} class="field" value={value} placeholder={placeholder} autocomplete="off" spellcheck={false} onInput={(event) => set(event.currentTarget.value)} onKeyDown={(event) => event.key === "Escape" && event.currentTarget.blur()} />
    </label>
  );
  return (
    <form
      class="find"
      role="search"
      onSubmit={(event) => {
        event.preventDefault();
        note({ key: key.trim(), contains, from: from.trim() });
        (document.activeElement as HTMLElement | null)?.blur();
      }}
    >
      {field("log-key", "Key", "BTC-USDT", key, setKey)}
      {field("log-contains", "Contains", "text of the record", contains, setContains)}
      {field("log-from", "From", "offset, time or -15m", from, setFrom)}
      <button type="submit" class="button first">
        Search
      </button>
      {(search.key || search.contains || search.from) && (
        <button
          type="button"
          class="button"
          onClick={() => {
            setKey("");
            setContains("");
            setFrom("");
            note({ key: "", contains: "", from: "" });
          }}
        >
          Clear
        </button>
      )}
    </form>
  );
}

interface FrameRecord {
  kind: string;
  connection: string;
  request: string;
  payload: string;
}

function preview(message: Message): string {
  if (message.kind === "frame") {
    const frame = message.record as FrameRecord;
    return `${frame.kind} ${frame.connection}${frame.request ? ` ${frame.request}` : ""}  ${frame.payload.slice(0, 400)}`;
  }
  return typeof message.record === "string" ? message.record.slice(0, 400) : JSON.stringify(message.record);
}

/** JSON with breaks, where it is JSON. */
function pretty(text: string): string {
  try {
    // Numbers keep their digits: only whitespace is added, by a reviver-free round trip of small integers' text.
    return /\d{16,}/.test(text) ? text.replace(/([{[,])(?=["{[])/g, "$1\n  ") : JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

function Whole({ message, close }: { message: Message; close: () => void }) {
  const frame = message.kind === "frame" ? (message.record as FrameRecord & { recv_ts: string; encoding: string }) : null;
  return (
    <Panel
      title={`Offset ${message.offset}`}
      about={<Tag>{message.kind}</Tag>}
      class="whole"
      end={
        <button type="button" class="button" onClick={close}>
          Close
        </button>
      }
    >
      <dl class="details">
        <dt>Appended</dt>
        <dd class="mono">{message.append_ts}</dd>
        <dt>Key</dt>
        <dd>{message.key || "none"}</dd>
        <dt>Size</dt>
        <dd>{count(message.size)} bytes</dd>
        {frame && (
          <>
            <dt>Received</dt>
            <dd class="mono">{frame.recv_ts}</dd>
            <dt>From</dt>
            <dd>
              {frame.kind}, connection {frame.connection} {frame.request}
            </dd>
          </>
        )}
      </dl>
      {frame ? (
        <pre>{pretty(frame.payload)}</pre>
      ) : typeof message.record === "string" ? (
        <pre>{message.record}</pre>
      ) : (
        <dl class="details fields">
          {Object.entries(message.record as Record<string, unknown>).map(([name, value]) => (
            <>
              <dt>{name}</dt>
              <dd class="mono">
                {typeof value === "string" ? value : JSON.stringify(value)}
                {name.endsWith("_ts") && typeof value === "number" && <span class="faint"> {moment(millis(value))}</span>}
              </dd>
            </>
          ))}
        </dl>
      )}
      {message.cut && <p class="note">The payload is longer than shown.</p>}
    </Panel>
  );
}
