/** Pipeline: the way of a trade drawn, with what passes, how late, which process does it, and what stands. */
import { useState } from "preact/hooks";
import { useAsk, type Rows } from "../api";
import { bytes, count, latency, rate, span } from "../format";
import { moving, useKeys } from "../keys";
import { status, worries } from "../status";
import type { Stage, StreamState, VenueStatus } from "../types";
import { Empty, Panel, Row, Skeleton, Tag } from "../ui/parts";
import { Drawing } from "./drawing";
import { plan } from "./plan";
import { Sparkline } from "./sparkline";

const STAGES: [string, string][] = [
  ["exchange_to_receive", "exchange to us"],
  ["receive_to_decoded", "decoded"],
  ["decoded_to_durable", "durable in the log"],
  ["log_to_loader", "read by the loader"],
  ["loader_to_visible", "visible in the store"],
  ["receive_to_visible", "us to visible, in all"],
];

export function Pipeline() {
  const streams = useAsk<Rows<StreamState>>("/v1/log/streams", 4000);
  const [chosen, setChosen] = useState("");
  const seen = status.value;
  const processes = seen?.processes ?? [];
  const at = processes.findIndex((process) => process.service === chosen);
  useKeys(moving(at, processes.length, (index) => setChosen(processes[index]?.service ?? "")));
  if (!seen) return <Skeleton lines={12} />;
  return (
    <div class="pipeline">
      <Worries />
      <Panel title="The way of a trade" class="way" about="rate; latency p50 · p99; lag" end={<span class="faint">{count(processes.length)} processes · {bytes(processes.reduce((sum, one) => sum + one.memory, 0))} · {processes.reduce((sum, one) => sum + one.cpu, 0).toFixed(0)} % of a core</span>}>
        {seen.venues.length ? (
          <Drawing plan={plan(seen, streams.data?.data ?? [], seen.at)} chosen={chosen} choose={setChosen} />
        ) : (
          <Empty title="No feed has reported yet">
            <code>k2 up</code> or <code>k2 demo</code> starts the platform.
          </Empty>
        )}
      </Panel>
      <div class="venuecards">
        {seen.venues.map((venue) => (
          <VenueCard key={venue.exchange} venue={venue} />
        ))}
      </div>
      <Panel title="Processes" class="processes">
        <table>
          <thead>
            <tr>
              <th scope="col">Service</th>
              <th scope="col">State</th>
              <th scope="col" class="n">Up</th>
              <th scope="col" class="n">CPU</th>
              <th scope="col" class="n">Memory</th>
              <th scope="col" class="n">Queue</th>
              <th scope="col" class="n">Restarts</th>
              <th scope="col" class="n">PID</th>
            </tr>
          </thead>
          <tbody>
            {processes.map((process) => (
              <Row key={process.service} chosen={process.service === chosen} choose={() => setChosen(process.service)}>
                <td>{process.service}</td>
                <td>{process.answers ? <Tag tone="ok">answers</Tag> : <Tag tone="bad">does not answer</Tag>}</td>
                <td class="n">{span(process.up)}</td>
                <td class="n">{process.cpu.toFixed(1)} %</td>
                <td class="n">{bytes(process.memory)}</td>
                <td class="n">{process.queue === undefined ? "–" : count(process.queue)}</td>
                <td class={process.restarts ? "n warn" : "n"}>{process.restarts === undefined || process.restarts === null ? "–" : count(process.restarts)}</td>
                <td class="n faint">{process.pid}</td>
              </Row>
            ))}
            {(seen.missing ?? []).map((service) => (
              <tr key={service}>
                <td>{service}</td>
                <td colSpan={5}>
                  <Tag tone="bad">does not run</Tag>
                </td>
                <td class="n warn">{seen.restarts?.[service] === undefined ? "–" : count(seen.restarts[service])}</td>
                <td />
              </tr>
            ))}
          </tbody>
        </table>
      </Panel>
    </div>
  );
}

function Worries() {
  if (!worries.value.length) return null;
  return (
    <ul class="worries" role="alert">
      {worries.value.map((worry) => (
        <li key={worry.where} class={worry.state}>
          <Tag tone={worry.state === "stopped" ? "bad" : "warn"}>{worry.state === "stopped" ? "stands" : "slow"}</Tag>
          <b>{worry.where}</b> {worry.reason}
        </li>
      ))}
    </ul>
  );
}

function VenueCard({ venue }: { venue: VenueStatus }) {
  const stages = STAGES.flatMap(([name, meaning]) => {
    const stage = venue.stages?.[name];
    return stage ? [[meaning, stage] as [string, Stage]] : [];
  });
  return (
    <Panel
      title={venue.exchange}
      about={venue.connected ? <Tag tone="ok">connected</Tag> : <Tag tone="bad">{venue.silent ? "no word of its feed" : "not connected"}</Tag>}
      end={
        <span>
          <b>{rate(venue.rate)}</b> <span class="muted">trades/s</span>
        </span>
      }
    >
      <Sparkline venue={venue.exchange} label={`Trades a second of ${venue.exchange} over the last minutes, now ${rate(venue.rate)}`} />
      <dl class="facts">
        <Fact name="Gaps open" value={count(venue.gaps_open)} bad={venue.gaps_open > 0} />
        <Fact name="Healed" value={count(venue.gaps_healed)} />
        <Fact name="Duplicates" value={count(venue.duplicates)} />
        <Fact name="Faults" value={count(venue.faults)} bad={venue.faults > 0} />
        <Fact name="Reconnects" value={count(venue.reconnects)} />
        <Fact name="Clock" value={venue.clock_offset === null ? "–" : latency(Math.abs(venue.clock_offset)).replace(/^/, venue.clock_offset < 0 ? "−" : "+")} />
      </dl>
      {stages.length > 0 && (
        <table class="stages">
          <thead>
            <tr>
              <th scope="col">Stage</th>
              <th scope="col" class="n">p50</th>
              <th scope="col" class="n">p99</th>
            </tr>
          </thead>
          <tbody>
            {stages.map(([meaning, stage]) => (
              <tr key={meaning}>
                <td class="muted">{meaning}</td>
                <td class="n">{latency(stage.p50_s)}</td>
                <td class="n">{latency(stage.p99_s)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </Panel>
  );
}

const Fact = ({ name, value, bad = false }: { name: string; value: string; bad?: boolean }) => (
  <div>
    <dt>{name}</dt>
    <dd class={bad ? "bad" : ""}>{value}</dd>
  </div>
);
