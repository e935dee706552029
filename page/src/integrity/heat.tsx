/** The heat map, on a canvas: reachable by pointer and by keys, told to screen readers line by line. */
import { useEffect, useRef, useState } from "preact/hooks";
import { clock, count, day, percent } from "../format";
import { colour, dark } from "../store";
import { pressed } from "../ui/parts";
import { level, share, type Cell, type Grid } from "./grid";

const NAMES = 92;
const HEAD = 20;
const GAP = 1.5;

interface Spot {
  line: number;
  hour: number;
}

export function told(cell: Cell | null, line: { exchange: string; symbol: string }, at: number): string {
  const where = `${line.exchange} ${line.symbol}, ${day(at)} ${clock(at).slice(0, 5)}`;
  if (!cell) return `${where}: nothing captured`;
  return `${where}: ${percent(share(cell))}, ${count(cell.trades)} trades${cell.missing ? `, ${count(cell.missing)} missing` : ""}`;
}

export function Heat({ grid, chosen, choose }: { grid: Grid; chosen: Cell | null; choose: (cell: Cell) => void }) {
  const box = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const [width, setWidth] = useState(0);
  const [spot, setSpot] = useState<Spot | null>(null);
  const [hover, setHover] = useState<Spot | null>(null);
  const isDark = dark.value;
  useEffect(() => {
    const watch = new ResizeObserver(([entry]) => setWidth(entry?.contentRect.width ?? 0));
    if (box.current) watch.observe(box.current);
    return () => watch.disconnect();
  }, []);
  const row = 13;
  const step = Math.max(5, (width - NAMES - 2) / grid.hours.length);
  const venues = [...new Set(grid.lines.map((line) => line.exchange))];
  const top = (line: number): number => HEAD + line * row + 8 * venues.indexOf(grid.lines[line]?.exchange ?? "");
  const height = grid.lines.length ? top(grid.lines.length - 1) + row + 4 : 0;
  const active = hover ?? spot;

  useEffect(() => {
    const element = canvas.current;
    const pen = element?.getContext("2d");
    if (!element || !pen || !width) return;
    const ratio = devicePixelRatio || 1;
    const whole = Math.max(width, NAMES + grid.hours.length * step + 2);
    element.width = Math.round(whole * ratio);
    element.height = Math.round(height * ratio);
    element.style.width = `${whole}px`;
    element.style.height = `${height}px`;
    pen.scale(ratio, ratio);
    const font = getComputedStyle(document.body).fontFamily;
    const tones = [0, 1, 2, 3, 4].map((n) => colour(`heat-${n}`));
    const [empty, faint, muted, text, accent] = ["raised", "faint", "muted", "text", "accent"].map(colour) as [string, string, string, string, string];
    pen.textBaseline = "middle";
    pen.font = `10px ${font}`;
    pen.fillStyle = faint;
    const every = [1, 2, 3, 6, 12, 24].find((hours) => hours * step >= 38) ?? 24;
    grid.hours.forEach((at, i) => {
      const hour = new Date(at).getUTCHours();
      if (hour % every) return;
      const label = hour === 0 ? day(at).slice(5) : `${String(hour).padStart(2, "0")}h`;
      pen.fillText(label, Math.min(NAMES + i * step, whole - 26), 8);
    });
    grid.lines.forEach((line, l) => {
      pen.fillStyle = active?.line === l ? text : muted;
      pen.fillText(line.symbol, 12, top(l) + row / 2);
      pen.fillStyle = colour(`venue-${line.exchange}`) || faint;
      pen.fillRect(2, top(l) + GAP / 2, 3, row - GAP);
      grid.cells[l]?.forEach((cell, h) => {
        pen.fillStyle = cell ? (tones[level(cell)] ?? empty) : empty;
        pen.beginPath();
        pen.roundRect(NAMES + h * step, top(l), step - GAP, row - GAP, 2);
        pen.fill();
      });
    });
    const frame = (at: Spot, ink: string): void => {
      pen.strokeStyle = ink;
      pen.lineWidth = 2;
      pen.beginPath();
      pen.roundRect(NAMES + at.hour * step - 1, top(at.line) - 1, step - GAP + 2, row - GAP + 2, 3);
      pen.stroke();
    };
    const at = chosen && { line: grid.lines.findIndex((line) => line.exchange === chosen.exchange && line.symbol === chosen.symbol), hour: grid.hours.indexOf(chosen.at) };
    if (at && at.line >= 0 && at.hour >= 0) frame(at, text);
    if (active) frame(active, accent);
  }, [grid, width, isDark, active, chosen]);

  const find = (event: PointerEvent | MouseEvent): Spot | null => {
    const box = canvas.current?.getBoundingClientRect();
    if (!box) return null;
    const hour = Math.floor((event.clientX - box.left - NAMES) / step);
    const y = event.clientY - box.top;
    const line = grid.lines.findIndex((_, i) => y >= top(i) && y < top(i) + row);
    return hour >= 0 && hour < grid.hours.length && line >= 0 ? { line, hour } : null;
  };
  const cellAt = (at: Spot | null): Cell | null => (at ? (grid.cells[at.line]?.[at.hour] ?? null) : null);
  const move = (lines: number, hours: number): void => {
    const from = spot ?? { line: 0, hour: grid.hours.length - 1 + (hours ? -hours : 0) };
    setHover(null);
    setSpot({ line: Math.min(grid.lines.length - 1, Math.max(0, from.line + (spot ? lines : 0))), hour: Math.min(grid.hours.length - 1, Math.max(0, from.hour + hours)) });
  };
  const line = active && grid.lines[active.line];
  const words = active && line ? told(cellAt(active), line, grid.hours[active.hour] ?? 0) : "";
  const STEPS: Record<string, [number, number]> = { ArrowUp: [-1, 0], k: [-1, 0], ArrowDown: [1, 0], j: [1, 0], ArrowLeft: [0, -1], h: [0, -1], ArrowRight: [0, 1], l: [0, 1] };
  return (
    <div class="heat">
      <div
        ref={box}
        class="heatbox"
        tabIndex={0}
        role="application"
        aria-roledescription="completeness map"
        aria-label={`Completeness of ${grid.lines.length} symbols in ${grid.hours.length} hours. Arrows move, Enter shows what is missing.`}
        onKeyDown={(event) => {
          const by = STEPS[event.key];
          if (by) {
            event.preventDefault();
            event.stopPropagation();
            move(...by);
          } else
            pressed(() => {
              const cell = cellAt(spot);
              if (cell) choose(cell);
            })(event);
        }}
        onBlur={() => setSpot(null)}
      >
        <canvas
          ref={canvas}
          onPointerMove={(event) => setHover(find(event))}
          onPointerLeave={() => setHover(null)}
          onClick={(event) => {
            const cell = cellAt(find(event));
            if (cell) choose(cell);
          }}
        />
      </div>
      <div class="heatfoot">
        <output aria-live="polite">{words || "Point at an hour, or move with the arrows"}</output>
        <span class="scale" aria-hidden="true">
          missing <i class="h0" /> over 10 % <i class="h1" /> 1 % <i class="h2" /> 0.1 % <i class="h3" /> less <i class="h4" /> none <i class="hx" /> not captured
        </span>
      </div>
    </div>
  );
}
