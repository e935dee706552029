/** The pieces that all views are put together from. */
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import type { Problem } from "../api";

export function Panel(props: {
  title: string;
  about?: ComponentChildren;
  end?: ComponentChildren;
  class?: string;
  bodyClass?: string;
  children: ComponentChildren;
}) {
  return (
    <section class={`panel ${props.class ?? ""}`} aria-label={props.title}>
      <header>
        <h2>{props.title}</h2>
        {props.about && <span class="about">{props.about}</span>}
        {props.end && <span class="end">{props.end}</span>}
      </header>
      <div class={`body ${props.bodyClass ?? ""}`}>{props.children}</div>
    </section>
  );
}

export function Segments<T extends string>(props: {
  label: string;
  options: readonly T[];
  chosen: T;
  choose: (option: T) => void;
  name?: (option: T) => string;
}) {
  return (
    <span class="segments" role="group" aria-label={props.label}>
      {props.options.map((option) => (
        <button type="button" key={option} aria-pressed={option === props.chosen} onClick={() => props.choose(option)}>
          {props.name?.(option) ?? option}
        </button>
      ))}
    </span>
  );
}

export const Venue = ({ name }: { name: string }) => (
  <span class="venue" data-venue={name}>
    {name}
  </span>
);

export const Tag = ({ tone, children }: { tone?: "ok" | "warn" | "bad" | undefined; children: ComponentChildren }) => (
  <span class={`tag ${tone ?? ""}`}>{children}</span>
);

export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <b>{title}</b>
      {children && <p>{children}</p>}
    </div>
  );
}

export function Skeleton({ lines = 6 }: { lines?: number }) {
  return (
    <div class="skeleton" role="status" aria-label="loading">
      {Array.from({ length: lines }, (_, i) => (
        <i key={i} style={{ width: `${88 - ((i * 29) % 47)}%` }} />
      ))}
    </div>
  );
}

/** Rows when there are any; else why not: still loading, a problem in the API's own words, or nothing there. */
export function Answered(props: {
  waiting: boolean;
  problem: Problem | undefined;
  empty: boolean;
  nothing: ComponentChildren;
  lines?: number;
  children: ComponentChildren;
}) {
  if (!props.empty) return <>{props.children}</>;
  if (props.waiting) return <Skeleton lines={props.lines ?? 6} />;
  if (props.problem)
    return (
      <Empty title={props.problem.title}>
        {props.problem.detail} {props.problem.remedy}
      </Empty>
    );
  return <>{props.nothing}</>;
}

export function Figure({ name, value, children }: { name: string; value: ComponentChildren; children?: ComponentChildren }) {
  return (
    <dl class="figure">
      <dt>{name}</dt>
      <dd>
        {value}
        {children && <small>{children}</small>}
      </dd>
    </dl>
  );
}

/** A row that is chosen by click, Enter or space, and is scrolled to when it is chosen by keys. */
export function Row(props: { chosen: boolean; choose: () => void; children: ComponentChildren; label?: string }) {
  const row = useRef<HTMLTableRowElement>(null);
  useEffect(() => {
    if (props.chosen) row.current?.scrollIntoView({ block: "nearest" });
  }, [props.chosen]);
  return (
    <tr ref={row} tabIndex={0} aria-selected={props.chosen} aria-label={props.label} onClick={props.choose} onKeyDown={pressed(props.choose)}>
      {props.children}
    </tr>
  );
}

/** Enter and space act as a click. */
export const pressed =
  (action: () => void) =>
  (event: KeyboardEvent): void => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    action();
  };

export function Dialog(props: { title: string; close?: () => void; children: ComponentChildren }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog
      ref={dialog}
      aria-label={props.title}
      onCancel={(event) => {
        event.preventDefault();
        props.close?.();
      }}
      onClick={(event) => {
        if (event.target === dialog.current) props.close?.();
      }}
    >
      <h2>{props.title}</h2>
      <div class="inside">{props.children}</div>
    </dialog>
  );
}

/** Missing ids as ranges. */
export function Ranges({ ranges }: { ranges: readonly (readonly [number, number])[] }) {
  const shown = ranges.slice(0, 200);
  return (
    <ul class="ranges">
      {shown.map(([first, last]) => (
        <li key={first}>{first === last ? first : `${first}–${last}`}</li>
      ))}
      {ranges.length > shown.length && <li>and {ranges.length - shown.length} more ranges</li>}
    </ul>
  );
}
