/** A venue's trades a second over the last minutes. */
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { clock, rate } from "../format";
import { history, status } from "../status";
import { colour, dark } from "../store";

export function Sparkline({ venue, label }: { venue: string; label: string }) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const isDark = dark.value;
  useEffect(() => {
    const element = box.current as HTMLDivElement;
    const ink = colour(`venue-${venue}`) || colour("accent");
    const axis = { stroke: colour("faint"), font: `10px ${getComputedStyle(element).fontFamily}`, ticks: { show: false }, grid: { stroke: colour("line"), width: 1 } };
    const made = new uPlot(
      {
        width: element.clientWidth,
        height: 92,
        padding: [6, 12, 0, 0],
        legend: { show: false },
        cursor: { y: false, points: { size: 6 } },
        scales: { y: { range: (_, __, max) => [0, Math.max(1, max * 1.15)] } },
        axes: [
          { ...axis, size: 20, grid: { show: false }, space: 70, values: (_, times) => times.map((time) => clock(time * 1000)), incrs: [10, 30, 60, 120] },
          { ...axis, size: 34, space: 26, values: (_, rates) => rates.map((value) => (value >= 1000 ? `${value / 1000}k` : String(value))) },
        ],
        series: [{}, { stroke: ink, width: 1.5, fill: `${ink}22`, points: { show: false } }],
        hooks: {
          setCursor: [
            (self) => {
              const at = self.cursor.idx;
              const value = at === null || at === undefined ? null : self.data[1]?.[at];
              element.title = value === null || value === undefined ? "" : `${rate(value)} trades/s at ${clock((self.data[0]?.[at ?? 0] ?? 0) * 1000)}`;
            },
          ],
        },
      },
      [[], []],
      element,
    );
    plot.current = made;
    const watch = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height: 92 }));
    watch.observe(element);
    return () => {
      watch.disconnect();
      made.destroy();
    };
  }, [venue, isDark]);
  const seen = status.value;
  useEffect(() => {
    const times = history.times;
    const end = times.at(-1) ?? 0;
    plot.current?.setData([times, history.rates.get(venue) ?? []], false);
    plot.current?.batch(() => {
      plot.current?.setScale("x", { min: Math.min(times[0] ?? end, end - 30), max: end });
      plot.current?.setScale("y", { min: 0, max: Math.max(1, ...(history.rates.get(venue) ?? []).map((value) => value ?? 0)) });
    });
  }, [seen, isDark]);
  return <div ref={box} class="spark" role="img" aria-label={label} />;
}
