/** The drawing: nodes and edges of the plan, from left to right where there is room, else from top to bottom. */
import { useEffect, useRef, useState } from "preact/hooks";
import { count, latency, rate, span } from "../format";
import type { Link, Node, Plan } from "./plan";

const NODE = { width: 124, height: 62 };
const WIDE = 980;
/** Where an edge's lines of text stand: above it, below it, and a third one above the first. */
const LINES = [0, 19, -13];
/** Where a stage stands, in gaps of the narrowest kind: what goes into the loader has more to say. */
const ALONG = [0, 1, 2, 3.4, 4.4, 5.4];

interface Place {
  x: number;
  y: number;
}

export function Drawing({ plan, chosen, choose }: { plan: Plan; chosen: string; choose: (service: string) => void }) {
  const box = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(0);
  useEffect(() => {
    const watch = new ResizeObserver(([entry]) => setWidth(entry?.contentRect.width ?? 0));
    if (box.current) watch.observe(box.current);
    return () => watch.disconnect();
  }, []);
  const wide = width >= WIDE;
  const size = wide ? { width, height: plan.lanes * 92 + 14 } : { width, height: plan.stages * 132 - 48 };
  const node = wide ? { ...NODE, width: width < 1250 ? 116 : NODE.width } : { width: Math.min(118, (width - 32) / plan.lanes + 12, (width - 24) / (plan.lanes - 1) - 8), height: 62 };
  const place = (at: Node): Place => {
    if (wide) return { x: 12 + at.stage * node.width + (ALONG[at.stage] ?? 0) * ((width - 24 - plan.stages * node.width) / (ALONG[plan.stages - 1] ?? 1)), y: 16 + at.lane * 92 };
    const lanes = plan.lanes - 1;
    const lane = at.id === "archiver" || at.id === "cold" ? lanes - 1 : at.stage > 2 ? Math.max(0, lanes / 2 - 1) : at.lane;
    return { x: 8 + lane * ((width - 16 - node.width) / Math.max(1, lanes - 1)), y: 10 + at.stage * 132 };
  };
  const places = new Map(plan.nodes.map((at) => [at.id, place(at)]));
  return (
    <div ref={box} class="drawing">
      {width > 0 && (
        <svg width={size.width} height={size.height} role="group" aria-label="The way of a trade, from the exchanges to the store, the web and the cold tier">
          <defs>
            {["ok", "slow", "stopped"].map((state) => (
              <marker key={state} id={`arrow-${state}`} class={`arrow ${state}`} viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
                <path d="M0 .8 7.500 4 0 7.200Z" />
              </marker>
            ))}
          </defs>
          {plan.links.map((link) => (
            <EdgeShape key={link.id} link={link} from={places.get(link.from) as Place} to={places.get(link.to) as Place} node={node} wide={wide} />
          ))}
          {plan.nodes.map((at) => (
            <NodeShape key={at.id} node={at} at={places.get(at.id) as Place} size={node} chosen={at.service !== "" && at.service === chosen} choose={choose} />
          ))}
        </svg>
      )}
    </div>
  );
}

function NodeShape({ node, at, size, chosen, choose }: { node: Node; at: Place; size: typeof NODE; chosen: boolean; choose: (service: string) => void }) {
  const label = `${node.venue && node.venue !== node.title ? `${node.venue} ` : ""}${node.title}: ${node.lines.join(", ")}`;
  return (
    <g
      class={`node ${node.state} ${chosen ? "chosen" : ""} ${node.service ? "own" : ""}`}
      transform={`translate(${at.x} ${at.y})`}
      data-venue={node.venue}
      data-node={node.id}
      role="img"
      aria-label={label}
      onClick={() => node.service && choose(node.service)}
    >
      <title>{label}</title>
      <rect width={size.width} height={size.height} rx="8" />
      {node.venue && <rect class="stripe" x="0" y="10" width="3" height={size.height - 20} rx="1.5" />}
      <text class="title" x="12" y="21">
        {node.title}
      </text>
      <circle cx={size.width - 13} cy="16.5" r="4" />
      {node.lines.slice(0, 2).map((line, i) => (
        <text key={i} class="line" x="12" y={38 + i * 15}>
          {size.width < NODE.width && line.length > 15 ? line.split(" · ")[0] : line}
        </text>
      ))}
    </g>
  );
}

function EdgeShape({ link, from, to, node, wide }: { link: Link; from: Place; to: Place; node: typeof NODE; wide: boolean }) {
  const a = wide ? { x: from.x + node.width, y: from.y + node.height / 2 } : { x: from.x + node.width / 2, y: from.y + node.height };
  const b = wide ? { x: to.x - 1, y: to.y + node.height / 2 } : { x: to.x + node.width / 2, y: to.y - 1 };
  if (link.cold && !link.id.startsWith("archiver")) {
    if (wide) a.y += 22;
    else a.x += 14;
  }
  const mid = { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
  const bend = wide ? Math.min(46, (b.x - a.x) * 0.46) : 26;
  const path = wide ? `M${a.x} ${a.y}C${b.x - bend * 0.9} ${a.y} ${b.x - bend} ${b.y} ${b.x} ${b.y}` : `M${a.x} ${a.y}C${a.x} ${b.y - bend} ${b.x} ${b.y - bend} ${b.x} ${b.y}`;
  const words = figures(link, wide);
  // Beside the venue's own end of the edge, where edges have not met yet.
  const straight = Math.abs(wide ? a.y - b.y : a.x - b.x) < 2;
  const joins = link.to === "loader";
  const spot = wide ? { x: straight && !joins ? mid.x : a.x + 8, y: (straight ? mid.y : a.y) - 7 } : { x: a.x, y: a.y + 17 };
  const anchor = wide && (joins || !straight) ? "start" : "middle";
  return (
    <g class={`edge ${link.state} ${link.cold ? "cold" : ""}`} data-edge={link.id}>
      <title>{[`${link.from} → ${link.to}`, ...words, link.lagS ? `the oldest waits for ${span(link.lagS)}` : "", link.reason].filter(Boolean).join("\n")}</title>
      <path d={path} marker-end={`url(#arrow-${link.state})`} />
      {!link.silent &&
        words.map((word, i) => (
          <text key={i} class={i === 0 ? "rate" : "figure"} text-anchor={anchor} x={spot.x} y={spot.y + (wide ? (LINES[i] ?? 0) : 13 * i)}>
            {word}
          </text>
        ))}
    </g>
  );
}

function figures(link: Link, wide: boolean): string[] {
  const words = [link.rate === null ? "" : `${rate(link.rate)}${link.unit === "requests" ? " requests" : ""}/s`];
  if (link.p50 !== null && link.p99 !== null) words.push(`${latency(link.p50).replace(" ms", "")} · ${latency(link.p99)}`);
  if (link.lag && wide) words.push(`lag ${count(link.lag)}`);
  else if (link.lag) words[0] += `${words[0] ? " · " : ""}lag ${count(link.lag)}`;
  if (link.note) words.push(link.note);
  return words[0] ? words : words.slice(1);
}
