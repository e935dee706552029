/** The messages of a stream that are shown: a search, more of it, and what arrives meanwhile. */
import { signal } from "@preact/signals";
import { get, Problem } from "../api";
import type { Message, Messages } from "../types";

export interface Search {
  stream: string;
  key: string;
  contains: string;
  /** An offset, or a time as the API takes it; "": from the newest backwards. */
  from: string;
}

const PAGE = 100;
const KEPT = 1000;
const TAIL_EVERY = 700;

export class Finder {
  readonly messages = signal<Message[]>([]);
  readonly answer = signal<Messages | null>(null);
  readonly problem = signal<Problem | null>(null);
  readonly busy = signal(true);
  /** Offsets at or past this one came in by the live tail. */
  readonly fresh = signal(Infinity);
  private tailAt = 0;
  private timer = 0;
  private readonly abort = new AbortController();

  constructor(readonly search: Search) {}

  get ascending(): boolean {
    return this.search.from !== "";
  }

  private async ask(where: Record<string, string | number>): Promise<Messages> {
    const { stream, key, contains } = this.search;
    return get<Messages>("/v1/log/messages", { stream, key, contains, limit: PAGE, ...where }, this.abort.signal);
  }

  async first(): Promise<void> {
    const from = this.search.from.trim();
    const where: Record<string, string> = from === "" ? {} : /^\d{1,15}$/.test(from) ? { offset: from } : { time: from };
    await this.guarded(async () => {
      const answer = await this.ask(where);
      this.answer.value = answer;
      this.messages.value = answer.data;
      this.tailAt = answer.end;
      this.fresh.value = answer.end;
    });
  }

  /** What comes next in the order of the search. */
  async more(): Promise<void> {
    const next = this.answer.value?.next;
    if (next === null || next === undefined) return;
    await this.guarded(async () => {
      const answer = await this.ask(this.ascending ? { offset: next } : { before: next });
      this.answer.value = answer;
      this.messages.value = [...this.messages.value, ...answer.data];
    });
  }

  follow(live: () => boolean): () => void {
    const turn = async (): Promise<void> => {
      if (live() && !this.busy.value && !document.hidden) {
        try {
          const answer = await this.ask({ offset: this.tailAt });
          this.tailAt = answer.next ?? this.tailAt;
          if (answer.data.length) this.messages.value = [...answer.data.reverse(), ...this.messages.value].slice(0, KEPT);
          this.problem.value = null;
        } catch (error) {
          if (this.abort.signal.aborted) return;
          this.problem.value = error as Problem;
        }
      }
      this.timer = window.setTimeout(turn, this.problem.value ? 3000 : TAIL_EVERY);
    };
    this.timer = window.setTimeout(turn, TAIL_EVERY);
    return () => {
      clearTimeout(this.timer);
      this.abort.abort();
    };
  }

  private async guarded(action: () => Promise<void>): Promise<void> {
    this.busy.value = true;
    try {
      await action();
      this.problem.value = null;
    } catch (error) {
      if (this.abort.signal.aborted) return;
      this.problem.value = error as Problem;
    }
    this.busy.value = false;
  }
}
