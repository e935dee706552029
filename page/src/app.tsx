/** The frame: five views, the state of the connection, keys, theme, and the question for a key. */
import { lazy, Suspense } from "./ui/lazy";
import { useEffect, useState } from "preact/hooks";
import { useAsk } from "./api";
import { rate, span } from "./format";
import { useKeys } from "./keys";
import { link } from "./live";
import { Market } from "./market/view";
import { go, view } from "./router";
import { look, status, worries } from "./status";
import { dark, key, keyWanted, now, toggleTheme, VIEWS, type View } from "./store";
import type { Status } from "./types";
import { ArchiveIcon, HelpIcon, IntegrityIcon, LogIcon, MarketIcon, MoonIcon, PipelineIcon, SunIcon } from "./ui/icons";
import { Dialog, Skeleton } from "./ui/parts";

const rest = () => import("./rest");
const PAGES = {
  market: Market,
  pipeline: lazy(() => rest().then((views) => views.Pipeline)),
  integrity: lazy(() => rest().then((views) => views.Integrity)),
  archive: lazy(() => rest().then((views) => views.Archive)),
  log: lazy(() => rest().then((views) => views.Log)),
};
const ICONS = { market: MarketIcon, pipeline: PipelineIcon, integrity: IntegrityIcon, archive: ArchiveIcon, log: LogIcon };
const title = (name: View): string => name.charAt(0).toUpperCase() + name.slice(1);

export function App() {
  const [help, setHelp] = useState(false);
  const current = view.value;
  useKeys({
    ...Object.fromEntries(VIEWS.map((name, i) => [String(i + 1), () => go(name)])),
    "?": () => setHelp(true),
    t: toggleTheme,
  });
  useEffect(() => {
    document.title = `${title(current)} · K2`;
  }, [current]);
  const asked = useAsk<Status>("/v1/status", 2000);
  useEffect(() => {
    if (asked.data) look(asked.data);
  }, [asked.data]);
  const Page = PAGES[current];
  return (
    <>
      <a class="skip" href="#main">
        Skip to the view
      </a>
      <div>
        <header class="top">
          <a class="brand" href="/market" onClick={follow("market")} aria-label="K2, market">
            <svg width="20" height="20" viewBox="0 0 32 32" aria-hidden="true">
              <path d="M1 27 12.600 6l5.800 10.300 3.700-5.600L31 27Z" fill="var(--accent)" />
              <path d="m12.600 6 4 7.100-2.500 1.700-2-1.900-2.600.6Z" fill="var(--text)" />
            </svg>
            K2
          </a>
          <nav class="tabs" aria-label="Views">
            {VIEWS.map((name, i) => (
              <Tab key={name} name={name} index={i + 1} current={name === current} />
            ))}
          </nav>
          <span class="end">
            <Connection failing={asked.problem?.status === 0} />
            <button type="button" class="iconbutton" onClick={toggleTheme} aria-label={dark.value ? "Light theme" : "Dark theme"} title="Theme (t)">
              {dark.value ? <SunIcon /> : <MoonIcon />}
            </button>
            <button type="button" class="iconbutton keyshelp" onClick={() => setHelp(true)} aria-label="Keys" title="Keys (?)">
              <HelpIcon />
            </button>
          </span>
        </header>
        <Lost />
      </div>
      <main id="main" class={`view-${current}`} tabIndex={-1}>
        <h1>{title(current)}</h1>
        <Suspense fallback={<Skeleton lines={12} />}>
          <Page />
        </Suspense>
      </main>
      {help && <Help close={() => setHelp(false)} />}
      {keyWanted.value !== null && <AskKey why={keyWanted.value} />}
    </>
  );
}

function follow(name: View) {
  return (event: MouseEvent): void => {
    if (event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    go(name);
  };
}

function Tab({ name, index, current }: { name: View; index: number; current: boolean }) {
  const Icon = ICONS[name];
  const alert = name === "pipeline" && worries.value.length > 0;
  return (
    <a href={`/${name}`} aria-current={current ? "page" : undefined} onClick={follow(name)}>
      <Icon />
      {title(name)}
      {alert && <span class={`alert ${worries.value[0]?.state ?? ""}`} role="img" aria-label={worries.value[0]?.state === "stopped" ? "something stands" : "something is slow"} />}
      <kbd aria-hidden="true">{index}</kbd>
    </a>
  );
}

function Connection({ failing }: { failing: boolean }) {
  const state = link.value.state;
  const venues = status.value?.venues ?? [];
  const total = venues.reduce((sum, venue) => sum + venue.rate, 0);
  if (failing || state === "lost")
    return (
      <span class="link" role="status">
        <i class="dot bad" />
        <b>offline</b>
      </span>
    );
  if (!status.value)
    return (
      <span class="link" role="status">
        <i class="dot" />
        connecting
      </span>
    );
  return (
    <span class="link" role="status" aria-live="off" title="Trades a second, all venues">
      <i class={`dot ${worries.value[0]?.state === "stopped" ? "bad" : worries.value.length ? "warn" : "ok"}`} />
      <b>{rate(total)}</b> trades/s
    </span>
  );
}

function Lost() {
  const state = link.value;
  if (state.state !== "lost") return null;
  const retry = Math.max(0, Math.ceil((state.retryAt - now.value) / 1000));
  if (now.value - state.since < 1500) return null;
  return (
    <div class="lost" role="alert">
      The live stream is gone since {span((now.value - state.since) / 1000)}; what is shown stands still.
      {retry > 0 ? ` Next try in ${retry} s.` : " Trying."}
    </div>
  );
}

const KEYS: [string[], string][] = [
  [["1", "–", "5"], "the five views"],
  [["/"], "search: symbols, the gap ledger, messages"],
  [["j", "k", "↑", "↓"], "move in the view's list"],
  [["i"], "next interval of the candles"],
  [["h", "l", "←", "→"], "move in the completeness map, with j and k"],
  [["Enter"], "open what is chosen"],
  [["t"], "dark or light"],
  [["?"], "these keys"],
  [["Esc"], "close"],
];

function Help({ close }: { close: () => void }) {
  return (
    <Dialog title="Keys" close={close}>
      <dl class="keys">
        {KEYS.map(([keys, meaning]) => (
          <>
            <dt>{keys.map((name) => (name === "–" ? name : <kbd key={name}>{name}</kbd>))}</dt>
            <dd>{meaning}</dd>
          </>
        ))}
      </dl>
      <p class="foot">
        <a href="/docs">The API</a>
        <a href="/THIRD_PARTY_LICENCES.txt">Licences</a>
        <a href="https://www.tradingview.com/" target="_blank" rel="noopener noreferrer">
          Charts: TradingView Lightweight Charts™
        </a>
      </p>
    </Dialog>
  );
}

function AskKey({ why }: { why: string }) {
  const [typed, setTyped] = useState("");
  return (
    <Dialog title="An API key, please">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (!typed.trim()) return;
          key.value = typed.trim();
          keyWanted.value = null;
        }}
      >
        <p class="muted">
          {why} <code>k2 keys create NAME</code> makes one. It is kept until this tab is closed.
        </p>
        <p class="askkey">
          <input class="field" type="password" autocomplete="off" aria-label="API key" placeholder="k2_…" value={typed} onInput={(event) => setTyped(event.currentTarget.value)} />
          <button class="button first" type="submit">
            Use it
          </button>
        </p>
      </form>
    </Dialog>
  );
}
