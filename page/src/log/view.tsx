/** Log: its streams, who reads them and how far, and the messages themselves. */
import { useAsk, type Rows } from "../api";
import { ago, bytes, count, millis, plural, rate, span } from "../format";
import { note, query } from "../router";
import { now } from "../store";
import type { Consumer, StreamState } from "../types";
import { Answered, Empty, Panel, Row } from "../ui/parts";
import { MessagesPanel } from "./browser";

export function Log() {
  const asked = useAsk<Rows<StreamState>>("/v1/log/streams", 2000);
  const streams = asked.data?.data ?? [];
  const wanted = query.value.get("stream");
  const stream = streams.find((one) => one.stream === wanted) ?? streams.find((one) => one.kind === "trades") ?? streams[0];
  return (
    <div class="logview">
      <Panel title="Streams" class="streams" about={asked.data ? `${plural(streams.length, "stream")}, ${bytes(streams.reduce((sum, one) => sum + one.bytes, 0))}` : undefined}>
        <Answered waiting={asked.waiting} problem={asked.problem} empty={!streams.length} nothing={<Empty title="The log is empty">A feed handler writes the first stream.</Empty>}>
          <table>
            <thead>
              <tr>
                <th scope="col">Stream</th>
                <th scope="col" class="n">Partitions</th>
                <th scope="col" class="n">First offset</th>
                <th scope="col" class="n">Next offset</th>
                <th scope="col" class="n">Records</th>
                <th scope="col" class="n">Size</th>
                <th scope="col" class="n">Rate</th>
                <th scope="col">Last append</th>
                <th scope="col" class="n">Loader lag</th>
                <th scope="col" class="n">Archiver lag</th>
                <th scope="col">Other readers</th>
              </tr>
            </thead>
            <tbody>
              {streams.map((one) => (
                <StreamRow key={one.stream} stream={one} chosen={one === stream} choose={() => note({ stream: one.stream, key: "", contains: "", from: "" })} />
              ))}
            </tbody>
          </table>
        </Answered>
      </Panel>
      {stream && <MessagesPanel key={stream.stream} stream={stream} />}
    </div>
  );
}

const PREFIX = "market.crypto.";

function StreamRow({ stream, chosen, choose }: { stream: StreamState; chosen: boolean; choose: () => void }) {
  const of = (consumer: string): Consumer | undefined => stream.consumers.find((one) => one.consumer === consumer);
  const others = stream.consumers.filter((one) => one.consumer !== "loader" && one.consumer !== "archiver");
  return (
    <Row chosen={chosen} choose={choose}>
      <td data-venue={stream.exchange}>
        <span class="venue mono" title={stream.stream}>
          <span>
            {stream.stream.startsWith(PREFIX) && <span class="prefix">{PREFIX}</span>}
            {stream.stream.replace(PREFIX, "")}
          </span>
        </span>
      </td>
      <td class="n">{stream.partitions}</td>
      <td class="n">{count(stream.start)}</td>
      <td class="n" data-end>
        {count(stream.end)}
      </td>
      <td class="n">{count(stream.records)}</td>
      <td class="n">{bytes(stream.bytes)}</td>
      <td class="n">{rate(stream.rate)}/s</td>
      <td>{ago(millis(stream.last_append), now.value)}</td>
      <td class="n">
        <Lag at={of("loader")} />
      </td>
      <td class="n">
        <Lag at={of("archiver")} />
      </td>
      <td class="others">
        {others.map((one) => (
          <span class="consumer" key={one.consumer}>
            <span class="muted">{short(one.consumer, stream.exchange)}</span> <Lag at={one} />
          </span>
        ))}
      </td>
    </Row>
  );
}

const short = (consumer: string, exchange: string): string => {
  const venue = consumer.replace("feed-handler-", "");
  return venue === exchange ? "feed" : venue;
};

function Lag({ at }: { at: Consumer | undefined }) {
  if (!at) return <span class="faint">–</span>;
  return (
    <span title={`${at.consumer}: next offset ${count(at.offset)}`}>
      {count(at.lag)}
      {at.lag > 0 && <span class="faint"> · {at.lag_s < 10 ? `${at.lag_s.toFixed(1)} s` : span(at.lag_s)}</span>}
    </span>
  );
}
