/** Archive: the cold tier. What it holds and costs, its snapshots, its last offload, maintenance and audit. */
import { useState } from "preact/hooks";
import { useAsk } from "../api";
import { ago, bytes, count, millis, moment, plural, span } from "../format";
import { moving, useKeys } from "../keys";
import { now } from "../store";
import type { ArchiveState, Audited, Snapshot, Snapshots } from "../types";
import { Answered, Empty, Figure, Panel, Row, Segments, Tag } from "../ui/parts";
import { Growth } from "./growth";

const ALL = "all";

export function Archive() {
  const archive = useAsk<ArchiveState>("/v1/archive", 5000);
  const listed = useAsk<Snapshots>("/v1/snapshots?limit=500", 10_000);
  const [table, setTable] = useState(ALL);
  const [chosen, setChosen] = useState("");
  const snapshots = (listed.data?.data ?? []).filter((one) => table === ALL || one.table === table);
  const tables = [ALL, ...RANK.filter((name) => listed.data?.data.some((one) => one.table === name))];
  const at = snapshots.findIndex((one) => id(one) === chosen);
  useKeys(moving(at, snapshots.length, (index) => setChosen(id(snapshots[index] as Snapshot))));
  const picked = snapshots[at] ?? (snapshots.find((one) => one.current && one.table === "trades") ?? snapshots.find((one) => one.current));
  return (
    <div class="archive">
      {archive.data ? <Figures archive={archive.data} /> : null}
      <Panel title="Tables" class="tables" about="Iceberg, Parquet">
        <Answered
          waiting={archive.waiting}
          problem={archive.problem}
          empty={!archive.data?.tables.length}
          nothing={<Empty title="Nothing is archived yet">The first offload makes the tables; <code>k2 archive</code> does one now.</Empty>}
        >
          <Tables archive={archive.data as ArchiveState} />
        </Answered>
      </Panel>
      <Panel title="Last audit" class="audit">
        <Audit audit={archive.data?.last_audit ?? archive.data?.last_partial_audit ?? null} />
      </Panel>
      <Panel
        title="Snapshots"
        class="snapshots"
        about={listed.data ? plural(snapshots.length + (table === ALL ? listed.data.more : 0), "version") : undefined}
        end={tables.length > 2 ? <Segments label="Table" options={tables} chosen={table} choose={setTable} /> : undefined}
      >
        <Answered waiting={listed.waiting} problem={listed.problem} empty={!snapshots.length} nothing={<Empty title="No snapshots yet" />}>
          <table>
            <thead>
              <tr>
                <th scope="col">Time (UTC)</th>
                <th scope="col">Table</th>
                <th scope="col">What</th>
                <th scope="col" class="n">Rows added</th>
                <th scope="col" class="n">Rows</th>
                <th scope="col" class="n">Files</th>
                <th scope="col" class="n">Size</th>
              </tr>
            </thead>
            <tbody>
              {snapshots.map((one) => (
                <Row key={id(one)} chosen={id(one) === chosen} choose={() => setChosen(id(one))}>
                  <td>{moment(millis(one.time))}</td>
                  <td>{one.table}</td>
                  <td>
                    <Tag tone={one.current ? "ok" : undefined}>{one.current ? `${one.operation}, current` : one.operation}</Tag>
                  </td>
                  <td class="n">{change(one.added_rows, one.removed_rows)}</td>
                  <td class="n">{count(one.rows)}</td>
                  <td class="n">{count(one.files)}</td>
                  <td class="n">{bytes(one.bytes)}</td>
                </Row>
              ))}
            </tbody>
          </table>
        </Answered>
      </Panel>
      <div class="beside">
        <Panel title="Growth" about={`rows of ${table === ALL ? "trades" : table}`}>
          <Growth snapshots={(listed.data?.data ?? []).filter((one) => one.table === (table === ALL ? "trades" : table))} />
        </Panel>
        {picked && <Picked snapshot={picked} />}
      </div>
    </div>
  );
}

const id = (one: Snapshot): string => `${one.table} ${one.snapshot_id}`;

function change(added: number, removed: number): string {
  return [added || !removed ? `+${count(added)}` : "", removed ? `−${count(removed)}` : ""].filter(Boolean).join(" ");
}

const RANK = ["trades", "frames", "gaps", "ohlcv_1m", "proofs"];
const byRank = (a: { table: string }, b: { table: string }): number => RANK.indexOf(a.table) - RANK.indexOf(b.table);

function Figures({ archive }: { archive: ArchiveState }) {
  const trades = archive.tables.find((one) => one.table === "trades");
  const offload = archive.jobs["offload"];
  const age = (time: string | null): string => (time ? ago(millis(time), now.value) : "never");
  const audit = archive.last_audit ?? archive.last_partial_audit;
  const due = archive.every_s ? `every ${span(archive.every_s)}` : "none by itself";
  return (
    <div class="figures">
      <Figure name="Trades in cold" value={count(trades?.rows ?? 0)}>
        {bytes(archive.bytes)} in all tables
      </Figure>
      <Figure name="Bytes per trade" value={archive.bytes_per_trade === null ? "–" : archive.bytes_per_trade.toFixed(1)}>
        all columns, on disk
      </Figure>
      <Figure name="Not archived yet" value={count(archive.lag)}>
        {archive.lag ? `records, the oldest ${span(archive.lag_s)} old` : "nothing waits"}
      </Figure>
      <Figure name="Last offload" value={age(archive.last_offload)}>
        {offload?.seconds ? `took ${offload.seconds.toFixed(1)} s; ${due}` : due}
        {offload && offload.failed > 0 && <span class="bad"> {plural(offload.failed, "failure")}</span>}
      </Figure>
      <Figure name="Last maintenance" value={age(archive.last_maintenance)}>
        {archive.maintain_at ? `daily at ${archive.maintain_at} UTC` : "none by itself"}
      </Figure>
      <Figure name="Last audit" value={audit ? <span class={audit.ok ? "up" : "bad"}>{audit.ok ? "whole" : "differs"}</span> : "never"}>
        {audit ? `${age(audit.time)}, ${count(audit.rows)} rows` : "k2 archive audit"}
      </Figure>
    </div>
  );
}

function Tables({ archive }: { archive: ArchiveState }) {
  return (
    <table>
      <thead>
        <tr>
          <th scope="col">Table</th>
          <th scope="col" class="n">Rows</th>
          <th scope="col" class="n">Size</th>
          <th scope="col" class="n">Bytes a row</th>
          <th scope="col" class="n">Files</th>
          <th scope="col" class="n">Snapshots</th>
          <th scope="col">Last commit</th>
          <th scope="col" class="n">Behind the log</th>
        </tr>
      </thead>
      <tbody>
        {[...archive.tables].sort(byRank).map((one) => (
          <tr key={one.table}>
            <td>
              <b>cold.{one.table}</b>
            </td>
            <td class="n">{count(one.rows)}</td>
            <td class="n">{bytes(one.bytes)}</td>
            <td class="n">{one.bytes_per_row === null ? "–" : one.bytes_per_row.toFixed(1)}</td>
            <td class="n">{count(one.files)}</td>
            <td class="n">{count(one.snapshots)}</td>
            <td>{one.last_commit ? ago(millis(one.last_commit), now.value) : "–"}</td>
            <td class="n">{one.trouble ? <Tag tone="bad">{one.trouble}</Tag> : one.lag ? `${count(one.lag)} · ${span(one.lag_s)}` : "0"}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Audit({ audit }: { audit: Audited | null }) {
  if (!audit)
    return (
      <Empty title="Not audited yet">
        <code>k2 archive audit</code> compares cold with the log, row by row and in both directions; its verdict stands here.
      </Empty>
    );
  const scope = [audit.exchange, audit.symbol, audit.day].filter(Boolean).join(", ") || "the whole tier";
  return (
    <dl class="details">
      <dt>Verdict</dt>
      <dd>{audit.ok ? <Tag tone="ok">no difference</Tag> : <Tag tone="bad">{plural(Object.values(audit.findings).reduce((a, b) => a + b, 0), "finding")}</Tag>}</dd>
      <dt>Compared</dt>
      <dd>
        {scope} with the {audit.against}
      </dd>
      <dt>When</dt>
      <dd>
        {moment(millis(audit.time))} ({ago(millis(audit.time), now.value)})
      </dd>
      <dt>Rows</dt>
      <dd>
        {count(audit.rows)} in {span(audit.seconds)}
      </dd>
      {Object.entries(audit.findings).map(([kind, number]) => (
        <>
          <dt class="bad">{kind}</dt>
          <dd>{count(number)}</dd>
        </>
      ))}
      {audit.texts.length > 0 && (
        <>
          <dt>Findings</dt>
          <dd>
            {audit.texts.map((text) => (
              <p key={text}>{text}</p>
            ))}
          </dd>
        </>
      )}
    </dl>
  );
}

function Picked({ snapshot }: { snapshot: Snapshot }) {
  return (
    <Panel title={`cold.${snapshot.table}`} about={<code>{snapshot.snapshot_id}</code>}>
      <dl class="details">
        <dt>Committed</dt>
        <dd>{moment(millis(snapshot.time))} UTC</dd>
        <dt>Files</dt>
        <dd>
          {count(snapshot.files)} ({change(snapshot.added_files, snapshot.removed_files)})
        </dd>
        {Object.entries(snapshot.offsets).length > 0 && (
          <>
            <dt>Watermark</dt>
            <dd>
              {Object.entries(snapshot.offsets).map(([stream, offset]) => (
                <div key={stream} class="mark">
                  <code>{stream}</code> <b>{count(offset)}</b>
                </div>
              ))}
            </dd>
          </>
        )}
        <dt>Ask for it</dt>
        <dd>
          <code>k2 sql --as-of {snapshot.snapshot_id} "…"</code>
        </dd>
      </dl>
    </Panel>
  );
}
