/** What is behind an hour or a gap: the missing ids, and what was done about them. */
import { address, useAsk, type Rows } from "../api";
import { clock, count, day, millis, moment, percent, span } from "../format";
import type { Gap } from "../types";
import { Panel, Ranges, Tag, Venue } from "../ui/parts";
import { HOUR, share, type Cell } from "./grid";

export const TONES: Record<string, "ok" | "warn" | "bad" | undefined> = { open: "bad", unavailable: "warn", healed: "ok" };

export const id = (gap: Gap): string => `${gap.exchange} ${gap.symbol} ${gap.epoch ?? 0} ${gap.first_id}`;

export const took = (gap: Gap): string => (gap.state === "healed" || gap.state === "unavailable" ? span((millis(gap.event_ts) - millis(gap.detected_ts)) / 1000) : "–");

/** The ids that a gap still lacks. */
function missing(gap: Gap): [number, number][] {
  if (gap.state === "unavailable" && gap.missing?.length) return gap.missing;
  return gap.state === "open" || gap.state === "unavailable" ? [[gap.first_id, gap.last_id]] : [];
}

const DONE: Record<Gap["state"], string> = {
  start: "Capture of this symbol began here; nothing is claimed before.",
  open: "The missing trades are being asked for over REST.",
  healed: "All of them were fetched over REST and stored in their place.",
  unavailable: "The exchange does not give these trades any more; they stay named here.",
  epoch: "The exchange restarted its counter here.",
};

export function CellDetails({ cell, close }: { cell: Cell; close: () => void }) {
  // Ids missing before the hour's first trade count in this hour.
  const ids = { first_id: Math.max(0, cell.first - cell.missing), last_id: cell.last };
  const asked = useAsk<Rows<Gap>>(address("/v1/gaps", { exchange: cell.exchange, symbol: cell.symbol, ...ids, limit: 200 }));
  const gaps = (asked.data?.data ?? []).filter((gap) => gap.state !== "start");
  const ranges = gaps.flatMap(missing);
  return (
    <Panel
      title={`${cell.symbol}, ${clock(cell.at).slice(0, 5)}`}
      about={<Venue name={cell.exchange} />}
      class="picked"
      end={
        <button type="button" class="button" onClick={close}>
          Close
        </button>
      }
    >
      <dl class="details">
        <dt>Hour</dt>
        <dd>
          {day(cell.at)} {clock(cell.at).slice(0, 5)}–{clock(cell.at + HOUR).slice(0, 5)} UTC
        </dd>
        <dt>Trades</dt>
        <dd>
          {count(cell.trades)} ({percent(share(cell))})
        </dd>
        <dt>Missing ids</dt>
        <dd>{cell.missing === 0 && !ranges.length ? <span class="up">none</span> : ranges.length ? <Ranges ranges={ranges} /> : count(cell.missing)}</dd>
        <dt>What was done</dt>
        <dd>
          {asked.waiting ? (
            "…"
          ) : gaps.length === 0 ? (
            "No gap was seen in this hour."
          ) : (
            <ul class="done">
              {gaps.map((gap) => (
                <li key={id(gap)}>
                  <Tag tone={TONES[gap.state]}>{gap.state}</Tag> {gap.first_id}–{gap.last_id}, seen {clock(millis(gap.detected_ts))}
                  {took(gap) !== "–" && `, ${gap.state} after ${took(gap)}`}. <span class="muted">{DONE[gap.state]}</span>
                </li>
              ))}
            </ul>
          )}
        </dd>
      </dl>
    </Panel>
  );
}

export function GapDetails({ gap, close }: { gap: Gap; close: () => void }) {
  const lacking = missing(gap);
  return (
    <Panel
      title={`Gap of ${gap.symbol}`}
      about={<Venue name={gap.exchange} />}
      class="picked"
      end={
        <button type="button" class="button" onClick={close}>
          Close
        </button>
      }
    >
      <dl class="details">
        <dt>State</dt>
        <dd>
          <Tag tone={TONES[gap.state]}>{gap.state}</Tag> {gap.reason}
        </dd>
        <dt>Ids</dt>
        <dd>
          {gap.first_id}
          {gap.last_id !== gap.first_id && `–${gap.last_id} (${count(gap.last_id - gap.first_id + 1)})`}
          {gap.epoch ? `, epoch ${gap.epoch}` : ""}
        </dd>
        <dt>Missing ids</dt>
        <dd>{lacking.length ? <Ranges ranges={lacking} /> : <span class="up">none</span>}</dd>
        <dt>Detected</dt>
        <dd>{moment(millis(gap.detected_ts))}</dd>
        <dt>Newest event</dt>
        <dd>
          {moment(millis(gap.event_ts))}
          {took(gap) !== "–" && `, ${took(gap)} later`}
        </dd>
        <dt>What was done</dt>
        <dd>{DONE[gap.state]}</dd>
      </dl>
    </Panel>
  );
}
