/** Numbers and times as people read them. Prices stay the text that the exchange gave; a float is for drawing only. */

const integers = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

export const count = (n: number): string => integers.format(n);

/** "67123.450000" -> "67,123.45": no digit that means something is lost. */
export function decimal(text: string, places?: number): string {
  const [whole = "0", rest = ""] = text.split(".");
  let fraction = rest.replace(/0+$/, "");
  if (places !== undefined) fraction = fraction.padEnd(places, "0");
  const grouped = whole.replace(/\B(?=(\d{3})+(?!\d))/g, ",");
  return fraction ? `${grouped}.${fraction}` : grouped;
}

/** Decimal places that mean something. */
export const places = (text: string): number => (text.split(".")[1] ?? "").replace(/0+$/, "").length;

/** A volume to four significant digits: 1.234 M. */
export function short(value: number | string): string {
  const n = Number(value);
  const size = Math.abs(n);
  for (const [unit, letter] of [[1e9, "B"], [1e6, "M"], [1e3, "k"]] as const) {
    if (size >= unit * 10 || (size >= unit && unit > 1e3)) return `${(n / unit).toPrecision(3)} ${letter}`;
  }
  if (size === 0) return "0";
  return size >= 1000 ? integers.format(n) : String(Number(n.toPrecision(4)));
}

export function bytes(n: number): string {
  if (n < 1000) return `${n} B`;
  for (const [unit, name] of [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "kB"]] as const) {
    if (n >= unit) return `${(n / unit).toPrecision(3)} ${name}`;
  }
  return `${n} B`;
}

/** Trades a second. */
export const rate = (n: number): string => (n >= 100 ? integers.format(n) : n.toFixed(1));

/** A latency in seconds -> "3.2 ms". */
export function latency(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return "–";
  const ms = seconds * 1000;
  if (ms >= 10_000) return `${(ms / 1000).toFixed(0)} s`;
  if (ms >= 1000) return `${(ms / 1000).toFixed(1)} s`;
  return ms >= 100 ? `${ms.toFixed(0)} ms` : `${ms.toFixed(1)} ms`;
}

/** A span in seconds -> "4 m 10 s". */
export function span(seconds: number): string {
  const s = Math.max(0, seconds);
  if (s < 1) return "under 1 s";
  if (s < 100) return `${s.toFixed(0)} s`;
  if (s < 5400) return `${Math.floor(s / 60)} m ${Math.floor(s % 60)} s`;
  if (s < 172_800) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} m`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3600)} h`;
}

export const ago = (ms: number, now: number): string => (now - ms < 1500 ? "now" : `${span((now - ms) / 1000)} ago`);

export const percent = (share: number): string => {
  if (share >= 1) return "100 %";
  const cut = Math.floor(share * 1e4) / 100; // never rounded up to 100
  return `${cut.toFixed(2)} %`;
};

const two = (n: number): string => String(n).padStart(2, "0");

/** 14:03:07.123, UTC. */
export function clock(ms: number, millis = false): string {
  const d = new Date(ms);
  const text = `${two(d.getUTCHours())}:${two(d.getUTCMinutes())}:${two(d.getUTCSeconds())}`;
  return millis ? `${text}.${String(d.getUTCMilliseconds()).padStart(3, "0")}` : text;
}

export function day(ms: number): string {
  const d = new Date(ms);
  return `${d.getUTCFullYear()}-${two(d.getUTCMonth() + 1)}-${two(d.getUTCDate())}`;
}

/** 2026-01-02 14:03:07, UTC. */
export const moment = (ms: number): string => `${day(ms)} ${clock(ms)}`;

/** Any time that the API or the log gives -> ms: RFC 3339 text, or a number in s, ms or ns since 1970. */
export function millis(time: string | number | null | undefined): number {
  if (time === null || time === undefined || time === "") return NaN;
  if (typeof time === "string" && !/^\d+$/.test(time)) return Date.parse(time.replace(/(\.\d{3})\d+/, "$1"));
  const n = Number(time);
  if (n > 1e16) return n / 1e6;
  return n > 1e11 ? n : n * 1000;
}

export const plural = (n: number, one: string, many = `${one}s`): string => `${count(n)} ${n === 1 ? one : many}`;
