/** A table's rows over its snapshots. */
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { clock, day, millis, short } from "../format";
import { colour, dark } from "../store";
import type { Snapshot } from "../types";
import { Empty } from "../ui/parts";

const HEIGHT = 150;

function label(time: number, over: number): string {
  const at = clock(time * 1000);
  return over > 86_400 ? `${day(time * 1000).slice(5)} ${at.slice(0, 5)}` : over > 600 ? at.slice(0, 5) : at;
}

export function Growth({ snapshots }: { snapshots: Snapshot[] }) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const isDark = dark.value;
  const enough = snapshots.length > 1;
  useEffect(() => {
    const element = box.current;
    if (!element) return undefined;
    const ink = colour("accent");
    const axis = { stroke: colour("faint"), font: `11px ${getComputedStyle(element).fontFamily}`, ticks: { show: false }, grid: { stroke: colour("line"), width: 1 } };
    const made = new uPlot(
      {
        width: element.clientWidth,
        height: HEIGHT,
        padding: [10, 14, 0, 0],
        legend: { show: false },
        cursor: { show: false },
        scales: { y: { range: (_, __, max) => [0, max * 1.12 || 1] } },
        axes: [
          { ...axis, size: 24, space: 80, grid: { show: false }, values: (_, times) => times.map((time) => label(time, (times.at(-1) ?? 0) - (times[0] ?? 0))) },
          { ...axis, size: 54, space: 32, values: (_, rows) => rows.map((value) => short(value)) },
        ],
        series: [{}, { stroke: ink, width: 1.5, fill: `${ink}1c`, points: { show: snapshots.length < 40, size: 5, fill: ink }, paths: uPlot.paths.stepped?.({ align: 1 }) ?? null }],
      } as uPlot.Options,
      [[], []],
      element,
    );
    plot.current = made;
    const watch = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height: HEIGHT }));
    watch.observe(element);
    return () => {
      watch.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [isDark, enough]);
  useEffect(() => {
    const sorted = [...snapshots].sort((a, b) => millis(a.time) - millis(b.time));
    plot.current?.setData([sorted.map((one) => millis(one.time) / 1000), sorted.map((one) => one.rows)]);
  }, [snapshots, isDark, enough]);
  if (!enough) return <Empty title="A curve needs two snapshots" />;
  return <div ref={box} class="growth" role="img" aria-label="Rows over the snapshots" />;
}
