/** Where the nodes of the drawing stand and which edges join them: the way of a trade, a lane for each venue. */
import type { Edge, Process, State, Status, StreamState } from "../types";
import { ago, bytes, count, latency, plural, span } from "../format";

export interface Node {
  id: string;
  /** The process whose health this is, "" if it is none of ours. */
  service: string;
  title: string;
  lines: string[];
  state: State;
  venue: string;
  stage: number;
  lane: number;
}

export interface Link {
  id: string;
  from: string;
  to: string;
  rate: number | null;
  unit: string;
  p50: number | null;
  p99: number | null;
  lag: number | null;
  lagS: number | null;
  state: State;
  reason: string;
  cold: boolean;
  /** More to say of it. */
  note: string;
  /** Drawn without figures: another edge says them for all. */
  silent: boolean;
}

export interface Plan {
  nodes: Node[];
  links: Link[];
  lanes: number;
  stages: number;
}

export function plan(status: Status, streams: StreamState[], nowS: number): Plan {
  const venues = status.venues;
  const last = venues.length;
  const middle = (last - 1) / 2;
  const nodes: Node[] = [];
  const links: Link[] = [];
  const process = (service: string): Process | undefined => status.processes.find((one) => one.service === service);
  const edge = (source: string, target: string): Edge | undefined => status.edges?.find((one) => one.source === source && one.target === target);

  const health = (service: string): { lines: string[]; state: State } => {
    const found = process(service);
    if (!found) return { lines: ["does not run"], state: "stopped" };
    return { lines: [`${found.cpu.toFixed(0)} % · ${bytes(found.memory)}`], state: found.answers ? "ok" : "stopped" };
  };
  const node = (id: string, title: string, stage: number, lane: number, service: string, more: string[] = [], venue = ""): void => {
    const { lines, state } = health(service);
    nodes.push({ id, service, title, stage, lane, venue, state, lines: [...lines, ...more] });
  };
  const link = (from: string, to: string, told: Edge | undefined, own: Partial<Link> = {}): void => {
    links.push({
      id: `${from} ${to}`, from, to, rate: told?.rate ?? null, unit: told?.unit ?? "trades", p50: told?.p50_s ?? null, p99: told?.p99_s ?? null,
      lag: told?.lag ?? null, lagS: told?.lag_s ?? null, state: told?.state ?? "ok", reason: told?.reason ?? "", cold: false, silent: false, note: "", ...own,
    }); // prettier-ignore
  };

  venues.forEach((venue, lane) => {
    const name = venue.exchange;
    const own = (source: string, target: string): Edge | undefined => venue.edges.find((one) => one.source === source && one.target === target);
    const feed = `feed-handler-${name}`;
    const stream = streams.find((one) => one.kind === "trades" && one.exchange === name);
    nodes.push({
      id: `exchange ${name}`, service: "", title: name, stage: 0, lane, venue: name, state: venue.connected ? (own("exchange", "feed")?.state ?? "ok") : "stopped",
      lines: [venue.connected ? "connected" : venue.silent ? "no word of it" : "not connected", venue.silent ? "" : venue.last_trade ? `trade ${ago(venue.last_trade * 1000, nowS * 1000)}` : "no trade yet"],
    }); // prettier-ignore
    const queue = process(feed)?.queue;
    node(`feed ${name}`, "feed", 1, lane, feed, [queue ? `${count(queue)} in queue` : venue.gaps_open ? `${plural(venue.gaps_open, "gap")} open` : `up ${span(process(feed)?.up ?? 0)}`], name);
    nodes.push({
      id: `log ${name}`, service: "", title: "log", stage: 2, lane, venue: name, state: "ok",
      lines: stream ? [`offset ${count(stream.end)}`, bytes(stream.bytes)] : ["no stream yet"],
    }); // prettier-ignore
    link(`exchange ${name}`, `feed ${name}`, own("exchange", "feed"), { lagS: null });
    link(`feed ${name}`, `log ${name}`, own("feed", "log"), { lagS: null });
    link(`log ${name}`, "loader", own("log", "loader"));
    link(`log ${name}`, "archiver", own("log", "archiver"), { cold: true, silent: true });
  });
  const serving = status.serving;
  node("loader", "loader", 3, middle, "loader");
  node("store", "store", 4, middle, "store", serving ? [`${serving.queries.toFixed(1)} queries/s`] : []);
  node("web", "web", 5, middle, "web", serving ? [`${count(serving.subscribers)} live streams`] : []);
  const behind = edge("log", "archiver");
  node("archiver", "archiver", 3, last, "archiver", [behind?.lag ? `lag ${count(behind.lag)} · ${span(behind.lag_s ?? 0)}` : "nothing waits"]);
  const cold = edge("archiver", "cold");
  nodes.push({ id: "cold", service: "", title: "cold", stage: 4, lane: last, venue: "", state: cold?.state ?? "ok", lines: [cold?.lag_s === null || cold?.lag_s === undefined ? "no snapshot yet" : "snapshot", ...(cold?.lag_s ? [`${span(cold.lag_s)} old`] : [])] });
  link("loader", "store", edge("loader", "store"), { lag: null, lagS: null });
  link("store", "web", edge("store", "web"));
  link("archiver", "cold", cold, { cold: true, lagS: null, note: cold?.took_s ? `run ${latency(cold.took_s)}` : "" });
  return { nodes, links, lanes: last + 1, stages: 6 };
}
