// Small charts, drawn on the server as SVG: bars for counts, lines for durations. Each has its figures as a table too.
import { formatDuration } from '../../platform/duration.ts';
import type { Html } from '../html.ts';
import { html } from '../html.ts';

/** One row of values, with the class that colors it. Null: no value, so nothing is drawn. */
export type Series = Readonly<{ label: string; className: string; values: readonly (number | null)[] }>;

export type Chart = Readonly<{
  title: string;
  kind: 'bars' | 'lines';
  unit: 'count' | 'seconds';
  /** The beginning of each part, for the axis and the table. */
  times: readonly Date[];
  series: readonly Series[];
}>;

const WIDTH = 480;
const HEIGHT = 150;
const LEFT = 62;
const TOP = 10;
const BOTTOM = 20;
const PLOT = { width: WIDTH - LEFT - 4, height: HEIGHT - TOP - BOTTOM };

const ROUND_SECONDS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_200, 1_800, 3_600, 7_200, 18_000, 36_000, 86_400];

/** Renders a chart. */
export function renderChart(chart: Chart): Html {
  const { title, times, series } = chart;
  const most = Math.max(...series.flatMap(({ values }) => values.map((value) => value ?? 0)));
  const top = ceiling(most, chart.unit);
  const name = (value: number) => (chart.unit === 'count' ? String(value) : formatDuration(value * 1_000));
  const drawn = series.map((one, index) => (chart.kind === 'bars' ? bars(one, { index, count: series.length, top }) : line(one, top)));
  const summary = series.map(({ label, values }) => `${label}: ${describe(values, name, chart.unit)}`).join('; ');
  return html`<figure class="chart"><figcaption>${title}</figcaption>
<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${title}. ${summary}"><line class="axis" x1="${LEFT}" y1="${TOP + PLOT.height}" x2="${WIDTH - 4}" y2="${TOP + PLOT.height}"/><line class="axis" x1="${LEFT}" y1="${TOP}" x2="${WIDTH - 4}" y2="${TOP}"/>
<text x="${LEFT - 6}" y="${TOP + 4}" text-anchor="end">${most === 0 ? '' : name(top)}</text><text x="${LEFT - 6}" y="${TOP + PLOT.height + 4}" text-anchor="end">0</text><text x="${LEFT}" y="${HEIGHT - 5}">${clock(times[0])}</text><text x="${WIDTH - 4}" y="${HEIGHT - 5}" text-anchor="end">${clock(times.at(-1))}</text>${drawn}</svg>
<ul class="legend">${series.map(({ label, className, values }) => html`<li><svg viewBox="0 0 10 10" aria-hidden="true"><rect class="${className}" width="10" height="10"/></svg>${label} ${describe(values, name, chart.unit)}</li>`)}</ul>
<details><summary>Figures</summary><div class="wide" tabindex="0"><table class="numbers"><thead><tr><th scope="col">From (UTC)</th>${series.map(({ label }) => html`<th scope="col">${label}</th>`)}</tr></thead><tbody>${times.map((time, part) => html`<tr><th scope="row">${time.toISOString().slice(0, 16).replace('T', ' ')}</th>${series.map(({ values }) => html`<td>${cell(values[part], name)}</td>`)}</tr>`)}</tbody></table></div></details></figure>`;
}

function cell(value: number | null | undefined, name: (value: number) => string): string {
  return value === null || value === undefined ? '–' : name(value);
}

/** Of counts the sum; of durations the latest. */
function describe(values: readonly (number | null)[], name: (value: number) => string, unit: Chart['unit']): string {
  const known = values.filter((value) => value !== null);
  if (unit === 'count') return name(known.reduce((sum, value) => sum + value, 0));
  const last = known.at(-1);
  return last === undefined ? 'none' : `${name(last)} (latest)`;
}

function bars({ className, values }: Series, { index, count, top }: { index: number; count: number; top: number }): Html[] {
  const slot = PLOT.width / values.length;
  const width = Math.max(0.8, (slot * 0.86) / count);
  return values.flatMap((value, part) => {
    if (value === null || value === 0) return [];
    const height = Math.max(1, (value / top) * PLOT.height);
    return [html`<rect class="${className}" x="${round(LEFT + part * slot + index * width)}" y="${round(TOP + PLOT.height - height)}" width="${round(width)}" height="${round(height)}"/>`];
  });
}

/** A line for each run of known values; a single one is drawn as a dot. */
function line({ className, values }: Series, top: number): Html[] {
  const slot = PLOT.width / values.length;
  const point = (value: number, part: number): [number, number] => [round(LEFT + (part + 0.5) * slot), round(TOP + PLOT.height - (value / top) * PLOT.height)];
  const runs: [number, number][][] = [[]];
  for (const [part, value] of values.entries()) {
    if (value === null) runs.push([]);
    else runs.at(-1)?.push(point(value, part));
  }
  return runs.flatMap((run) => {
    const [first] = run;
    if (first === undefined) return [];
    if (run.length === 1) return [html`<circle class="${className}" cx="${first[0]}" cy="${first[1]}" r="2.5"/>`];
    return [html`<polyline class="${className}" points="${run.map((one) => one.join(',')).join(' ')}"/>`];
  });
}

/** The next round number: the top of the axis. */
function ceiling(most: number, unit: Chart['unit']): number {
  if (most <= 0) return 1;
  const round = unit === 'seconds' ? ROUND_SECONDS.find((value) => value >= most) : undefined;
  const magnitude = 10 ** Math.floor(Math.log10(most));
  return round ?? Math.max(1, [1, 2, 5, 10].map((factor) => factor * magnitude).find((value) => value >= most) ?? most);
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

function clock(time: Date | undefined): string {
  return time === undefined ? '' : `${time.toISOString().slice(5, 16).replace('T', ' ')} UTC`;
}
