/** Keys: the page's own, and those of the view that is shown. */
import { useEffect, useRef } from "preact/hooks";

export type Keys = Record<string, (event: KeyboardEvent) => void>;
const layers: { current: Keys }[] = [];

const typing = (target: EventTarget | null): boolean =>
  target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (typing(event.target)) return;
  if (document.querySelector("dialog[open]") && event.key !== "Escape") return;
  for (const layer of [...layers].reverse()) {
    const action = layer.current[event.key];
    if (action) {
      event.preventDefault();
      action(event);
      return;
    }
  }
});

/** These keys act while the component is shown; the component shown last comes first. */
export function useKeys(keys: Keys): void {
  const layer = useRef(keys);
  layer.current = keys;
  useEffect(() => {
    layers.push(layer);
    return () => void layers.splice(layers.indexOf(layer), 1);
  }, []);
}

/** j/k and the arrows, for moving through a list of `length` items. */
export function moving(at: number, length: number, to: (index: number) => void): Keys {
  const by = (step: number) => () => {
    if (length) to(Math.min(length - 1, Math.max(0, at < 0 ? (step > 0 ? 0 : length - 1) : at + step)));
  };
  return { j: by(1), ArrowDown: by(1), k: by(-1), ArrowUp: by(-1) };
}
