/**
 * The live stream: one WebSocket for the whole page. Each channel has one subscription; what it has received so far is
 * remembered as positions in the log, so that after a lost connection it goes on where it was, without gap or repeat.
 */
import { effect, signal } from "@preact/signals";
import { key } from "./store";
import type { LiveCandle, LiveGap, LiveTrade } from "./types";

type Channel = "trades" | "candles" | "gaps";
interface Wanted {
  symbols: string[];
  intervals?: string[];
  slow?: "conflate" | "disconnect";
  /** Where to begin the first time; "now" if not told. */
  start?: string;
}
interface Taker {
  trades?: (trades: LiveTrade[], skipped: number) => void;
  candles?: (candles: LiveCandle[]) => void;
  gaps?: (gaps: LiveGap[]) => void;
}
interface Message {
  type: string;
  id?: string;
  stream?: string;
  next?: number;
  positions?: Record<string, number>;
  trades?: LiveTrade[];
  candles?: LiveCandle[];
  gaps?: LiveGap[];
  skipped?: number;
  title?: string;
  detail?: string;
}

export type Link = { state: "off" | "opening" | "live" } | { state: "lost"; since: number; retryAt: number };
export const link = signal<Link>({ state: "off" });

/** After a longer break the past is asked for anew rather than replayed. */
const RESUME_WITHIN = 120_000;
const SILENCE = 20_000;
const FIRST_WAIT = 500;
const LONGEST_WAIT = 15_000;

let socket: WebSocket | null = null;
let attempts = 0;
let timer = 0;
let heardAt = 0;
let lostAt = 0;
let serial = 0;
const wanted = new Map<Channel, Wanted & { id: string }>();
const positions = new Map<Channel, Record<string, number>>();
const takers = new Set<Taker>();
const resets = new Set<() => void>();

/** Take what arrives. Returns the way to stop. */
export function take(taker: Taker): () => void {
  takers.add(taker);
  return () => void takers.delete(taker);
}

/** Be told that the stream began anew at "now": what came between must be asked for elsewhere. */
export function onReset(action: () => void): () => void {
  resets.add(action);
  return () => void resets.delete(action);
}

/** Want a channel (or, with null, no longer). Replaces what was wanted of it before. */
export function want(channel: Channel, what: Wanted | null): void {
  const before = wanted.get(channel);
  if (before) {
    if (what && JSON.stringify({ ...before, id: "" }) === JSON.stringify({ ...what, id: "" })) return;
    send({ op: "unsubscribe", id: before.id });
    wanted.delete(channel);
    positions.delete(channel);
  }
  if (what) {
    wanted.set(channel, { ...what, id: `${channel}-${++serial}` });
    subscribe(channel);
  }
  if (wanted.size) open();
  else close();
}

function send(message: object): void {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

function subscribe(channel: Channel): void {
  const what = wanted.get(channel);
  if (!what) return;
  const held = positions.get(channel);
  const start = held && Object.keys(held).length ? held : (what.start ?? "now");
  send({ op: "subscribe", channels: [channel], ...what, start });
}

function open(): void {
  if (timer) return;
  if (link.value.state === "off") link.value = { state: "opening" };
  if (socket) return;
  const url = new URL("/v1/stream", location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  if (key.value) url.searchParams.set("key", key.value);
  const mine = (socket = new WebSocket(url));
  mine.onopen = () => {
    if (!wanted.size) return close();
    heardAt = Date.now();
    if (lostAt && heardAt - lostAt > RESUME_WITHIN) {
      positions.clear();
      resets.forEach((action) => action());
    }
    for (const channel of wanted.keys()) subscribe(channel);
  };
  mine.onmessage = (event) => {
    heardAt = Date.now();
    receive(JSON.parse(event.data as string) as Message);
  };
  mine.onclose = () => {
    if (socket !== mine) return;
    socket = null;
    if (wanted.size) lost();
  };
}

function close(): void {
  clearTimeout(timer);
  timer = 0;
  lostAt = 0;
  positions.clear();
  link.value = { state: "off" };
  // Cut off while it connects, it would be an error to the browser: it is closed once it stands, if nobody wants it then.
  if (socket?.readyState === WebSocket.CONNECTING) return;
  const mine = socket;
  socket = null;
  mine?.close();
}

function lost(): void {
  lostAt ||= Date.now();
  const wait = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** attempts) * (0.75 + Math.random() / 2);
  attempts += 1;
  link.value = { state: "lost", since: lostAt, retryAt: Date.now() + wait };
  timer = window.setTimeout(() => {
    timer = 0;
    open();
  }, wait);
}

function advance(channel: Channel, at: Record<string, number>): void {
  positions.set(channel, { ...positions.get(channel), ...at });
}

function receive(message: Message): void {
  switch (message.type) {
    case "subscribed": {
      attempts = 0;
      lostAt = 0;
      link.value = { state: "live" };
      const channel = message.id?.split("-")[0] as Channel;
      if (wanted.get(channel)?.id === message.id && !positions.has(channel)) advance(channel, message.positions ?? {});
      break;
    }
    case "trades":
      if (message.stream && message.next !== undefined) advance("trades", { [message.stream]: message.next });
      for (const taker of takers) taker.trades?.(message.trades ?? [], message.skipped ?? 0);
      break;
    case "candles":
      for (const taker of takers) taker.candles?.(message.candles ?? []);
      break;
    case "gaps":
      if (message.stream && message.next !== undefined) advance("gaps", { [message.stream]: message.next });
      for (const taker of takers) taker.gaps?.(message.gaps ?? []);
      break;
    case "heartbeat":
      break;
    case "error":
      console.warn("stream:", message.title, message.detail);
      break;
  }
}

// A connection that is silent for longer than several heartbeats is dead, whatever the socket says.
setInterval(() => {
  if (socket?.readyState === WebSocket.OPEN && Date.now() - heardAt > SILENCE) {
    const mine = socket;
    socket = null;
    mine.close();
    lost();
  }
}, 5000);

function retry(): void {
  if (!timer) return;
  clearTimeout(timer);
  timer = 0;
  open();
}
addEventListener("online", retry);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) retry();
});

// A key that was just given opens the stream too.
effect(() => {
  if (key.value) {
    attempts = 0;
    setTimeout(retry, 0);
  }
});
