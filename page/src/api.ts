/** The API: one way to ask, problems as the API words them, the key asked for once, polling with back-off. */
import { useEffect, useRef, useState } from "preact/hooks";
import { key, keyWanted } from "./store";

/** An answer that is no answer: RFC 9457 members, or what the browser says of a lost connection (status 0). */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly title: string,
    readonly detail: string,
    readonly remedy = "",
  ) {
    super(detail || title);
  }
}

export type Params = Record<string, string | number | undefined>;

export function address(path: string, params: Params = {}): string {
  const parts = Object.entries(params).filter(([, value]) => value !== undefined && value !== "");
  const search = new URLSearchParams(parts.map(([name, value]) => [name, String(value)])).toString();
  return search ? `${path}?${search}` : path;
}

export async function get<T>(path: string, params: Params = {}, signal?: AbortSignal): Promise<T> {
  const headers: Record<string, string> = { Accept: "application/json" };
  const used = key.value;
  if (used) headers["X-API-Key"] = used;
  let answer: Response;
  try {
    answer = await fetch(address(path, params), { headers, signal: signal ?? null });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem(0, "No connection", "k2 web does not answer.", "It is asked again until it does.");
  }
  if (answer.ok) return (await answer.json()) as T;
  const told = (await answer.json().catch(() => ({}))) as Partial<Problem>;
  const problem = new Problem(answer.status, told.title ?? answer.statusText, told.detail ?? "", told.remedy ?? "");
  if (answer.status === 401 && key.value === used) keyWanted.value = problem.detail || problem.title;
  throw problem;
}

/** Rows, whether they stand in `data` or are the answer. */
export interface Rows<T> {
  data: T[];
  next?: string | null;
}

export interface Asked<T> {
  data: T | undefined;
  problem: Problem | undefined;
  /** The first answer is still awaited. */
  waiting: boolean;
  again: () => void;
}

const LONGEST_WAIT = 15_000;

/**
 * Ask now and every `every` ms (0: once), anew whenever `what` changes; null: ask nothing. A failed question is asked
 * again with growing pauses, the last answer stays. Nothing is asked while the page is hidden.
 */
export function useAsk<T>(what: string | null, every = 0, read?: (signal: AbortSignal) => Promise<T>): Asked<T> {
  const [state, setState] = useState<{ what: string | null; data?: T; problem?: Problem }>({ what: null });
  const [turn, setTurn] = useState(0);
  const reader = useRef(read);
  reader.current = read;
  useEffect(() => {
    if (what === null) return undefined;
    const abort = new AbortController();
    let timer = 0;
    let failures = 0;
    const ask = async (): Promise<void> => {
      if (!document.hidden) {
        try {
          const data = await (reader.current ? reader.current(abort.signal) : get<T>(what, {}, abort.signal));
          if (abort.signal.aborted) return;
          failures = 0;
          setState({ what, data });
        } catch (error) {
          if (abort.signal.aborted) return;
          failures += 1;
          const problem = error instanceof Problem ? error : new Problem(0, "The page failed", String(error));
          if (!(error instanceof Problem)) console.error(error);
          setState((old) => (old.what === what ? { ...old, problem } : { what, problem }));
        }
      }
      const wait = failures ? Math.min(LONGEST_WAIT, 1000 * 2 ** (failures - 1)) : every;
      if (wait) timer = window.setTimeout(ask, wait);
    };
    const shown = (): void => {
      if (document.hidden || !every) return;
      clearTimeout(timer);
      void ask();
    };
    document.addEventListener("visibilitychange", shown);
    void ask();
    return () => {
      abort.abort();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", shown);
    };
  }, [what, every, turn, key.value]);
  const current = state.what === what;
  return {
    data: current ? state.data : undefined,
    problem: current ? state.problem : undefined,
    waiting: what !== null && (!current || (state.data === undefined && state.problem === undefined)),
    again: () => setTurn((n) => n + 1),
  };
}
