/** Integrity: which trades are there, which are not, what was done about it, and the proofs of closed days. */
import { useEffect, useMemo, useState } from "preact/hooks";
import { address, useAsk, type Rows } from "../api";
import { count, millis, moment, percent, plural } from "../format";
import { moving, useKeys } from "../keys";
import { take, want } from "../live";
import type { Gap, HourRow, Proof } from "../types";
import { Answered, Empty, Panel, Row, Segments, Tag, Venue } from "../ui/parts";
import { CellDetails, GapDetails, id, took, TONES } from "./details";
import { grid, share, type Cell } from "./grid";
import { Heat } from "./heat";

const WINDOWS = ["24h", "48h", "7d"] as const;
type Window = (typeof WINDOWS)[number];
const HOURS: Record<Window, number> = { "24h": 24, "48h": 48, "7d": 168 };
const STATES = ["all", "open", "unavailable", "healed", "start"] as const;
export function Integrity() {
  const [window, setWindow] = useState<Window>("24h");
  const [cell, setCell] = useState<Cell | null>(null);
  const [gap, setGap] = useState<string>("");
  const [state, setState] = useState<(typeof STATES)[number]>("all");
  const [search, setSearch] = useState("");
  const from = (hours: number): string => `-${hours}h`;
  const hours = useAsk<Rows<HourRow>>(address("/v1/completeness", { from: from(HOURS[window]), limit: 20_000 }), 30_000);
  const ledger = useAsk<Rows<Gap>>(address("/v1/gaps", { state: state === "all" ? "" : state, limit: 1000, order: "desc" }), 30_000);
  const proofs = useAsk<Rows<Proof>>(address("/v1/proofs", { limit: 200, order: "desc" }), 60_000);
  const [news, setNews] = useState<Gap[]>([]);
  useEffect(() => {
    const stop = take({ gaps: (gaps) => setNews((old) => [...old, ...gaps.map((gap) => ({ epoch: 0, missing: [], ...gap }))].slice(-500)) });
    want("gaps", { symbols: ["*"] });
    return () => {
      stop();
      want("gaps", null);
    };
  }, []);
  const shape = useMemo(() => grid(hours.data?.data ?? [], HOURS[window], Date.now()), [hours.data, window]);
  const gaps = useMemo(() => latest([...(ledger.data?.data ?? []), ...news]).filter((one) => (state === "all" || one.state === state) && fits(one, search)), [ledger.data, news, state, search]);
  const at = gaps.findIndex((one) => id(one) === gap);
  const showGap = (one: Gap): void => {
    setGap(id(one));
    setCell(null);
  };
  useKeys({
    ...moving(at, gaps.length, (index) => showGap(gaps[index] as Gap)),
    "/": () => document.querySelector<HTMLInputElement>("#gap-search")?.focus(),
    Escape: () => {
      setGap("");
      setCell(null);
    },
  });
  const opened = useAsk<Rows<Gap>>("/v1/gaps?state=open&limit=1000&order=desc", 15_000);
  const open = latest([...(opened.data?.data ?? []), ...news]).filter((one) => one.state === "open").length;
  return (
    <div class="integrity">
      <Panel
        title="Completeness"
        class="completeness"
        about={hours.data && shape.trades > 0 ? <Whole trades={shape.trades} missing={shape.missing} window={window} /> : undefined}
        end={<Segments label="Time" options={WINDOWS} chosen={window} choose={setWindow} />}
      >
        <Answered waiting={hours.waiting} problem={hours.problem} empty={!shape.lines.length} lines={16} nothing={<Empty title="Nothing captured yet">Completeness is known from the first trade on.</Empty>}>
          <Heat
            grid={shape}
            chosen={cell}
            choose={(one) => {
              setCell(one);
              setGap("");
            }}
          />
        </Answered>
      </Panel>
      <div class="aside">
        {cell ? <CellDetails cell={cell} close={() => setCell(null)} /> : at >= 0 ? <GapDetails gap={gaps[at] as Gap} close={() => setGap("")} /> : null}
        <Proofs proofs={proofs.data?.data ?? []} asked={proofs} />
      </div>
      <Panel
        title="Gap ledger"
        class="ledger"
        about={opened.data ? (open ? <Tag tone="bad">{plural(open, "gap")} open</Tag> : <Tag tone="ok">none open</Tag>) : undefined}
        end={
          <>
            <Segments label="State" options={STATES} chosen={state} choose={setState} />
            <input id="gap-search" class="field" type="search" placeholder="Symbol, venue or id" aria-label="Filter the gap ledger" value={search} onInput={(event) => setSearch(event.currentTarget.value)} onKeyDown={(event) => event.key === "Escape" && event.currentTarget.blur()} />
          </>
        }
      >
        <Answered waiting={ledger.waiting} problem={ledger.problem} empty={!gaps.length} nothing={<Empty title="No gap">{search || state !== "all" ? "None fits the filter." : "No trade was ever missed."}</Empty>}>
          <table>
            <thead>
              <tr>
                <th scope="col">Detected (UTC)</th>
                <th scope="col">Exchange</th>
                <th scope="col">Symbol</th>
                <th scope="col">State</th>
                <th scope="col" class="n">Ids</th>
                <th scope="col" class="n">First id</th>
                <th scope="col" class="n">Last id</th>
                <th scope="col" class="n">Took</th>
                <th scope="col">Reason</th>
              </tr>
            </thead>
            <tbody>
              {gaps.slice(0, 500).map((one) => (
                <Row key={id(one)} chosen={id(one) === gap} choose={() => showGap(one)}>
                  <td>{moment(millis(one.detected_ts))}</td>
                  <td>
                    <Venue name={one.exchange} />
                  </td>
                  <td>{one.symbol}</td>
                  <td>
                    <Tag tone={TONES[one.state]}>{one.state}</Tag>
                  </td>
                  <td class="n">{one.state === "start" || one.state === "epoch" ? "–" : count(one.last_id - one.first_id + 1)}</td>
                  <td class="n">{one.first_id}</td>
                  <td class="n">{one.last_id}</td>
                  <td class="n">{took(one)}</td>
                  <td class="muted">{one.reason || "–"}</td>
                </Row>
              ))}
            </tbody>
          </table>
        </Answered>
      </Panel>
    </div>
  );
}

/** Each gap once, in its newest state, the newest gap first. */
function latest(events: Gap[]): Gap[] {
  const found = new Map<string, Gap>();
  for (const event of events) {
    const known = found.get(id(event));
    if (!known || millis(known.event_ts) <= millis(event.event_ts)) found.set(id(event), event);
  }
  return [...found.values()].sort((a, b) => millis(b.detected_ts) - millis(a.detected_ts));
}

function fits(gap: Gap, search: string): boolean {
  const text = `${gap.exchange} ${gap.symbol} ${gap.reason}`.toLowerCase();
  return search
    .toLowerCase()
    .split(/\s+/)
    .filter(Boolean)
    .every((word) => text.includes(word) || (/^\d+$/.test(word) && gap.first_id <= Number(word) && Number(word) <= gap.last_id));
}

function Whole({ trades, missing, window }: { trades: number; missing: number; window: Window }) {
  return (
    <>
      <b class={missing ? "warn" : "up"}>{percent(share({ trades, missing }))}</b> of {count(trades + missing)} trades in {window}
      {missing > 0 && `, ${count(missing)} missing`}
    </>
  );
}

function Proofs({ proofs, asked }: { proofs: Proof[]; asked: { waiting: boolean; problem: ReturnType<typeof useAsk>["problem"] } }) {
  return (
    <Panel title="Latest proofs" class="proofs" about="closed days, sealed">
      <Answered
        waiting={asked.waiting}
        problem={asked.problem}
        empty={!proofs.length}
        nothing={<Empty title="No day is sealed yet">Each UTC day is sealed after its end: count, ids and a hash of all trades of every symbol. <code>k2 archive maintain</code> does it.</Empty>}
      >
        <table>
          <thead>
            <tr>
              <th scope="col">Day</th>
              <th scope="col">Symbol</th>
              <th scope="col" class="n">Trades</th>
              <th scope="col">Missing</th>
              <th scope="col">SHA-256</th>
            </tr>
          </thead>
          <tbody>
            {proofs.map((proof) => (
              <tr key={`${proof.exchange}${proof.symbol}${proof.epoch}${proof.day}${proof.revision}`}>
                <td title={`sealed ${moment(millis(proof.sealed_at))} UTC, revision ${proof.revision}`}>{proof.day.slice(0, 10)}</td>
                <td data-venue={proof.exchange}>
                  <span class="venue">{proof.symbol}</span>
                </td>
                <td class="n">{count(proof.trade_count)}</td>
                <td>{proof.missing?.length ? <Tag tone="warn">{plural(proof.missing.length, "range")}</Tag> : <Tag tone="ok">none</Tag>}</td>
                <td class="mono faint" title={proof.content_hash}>
                  {proof.content_hash.slice(0, 10)}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </Answered>
    </Panel>
  );
}
