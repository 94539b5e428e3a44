// Formats and reads durations, for pages, terminal and timelines.

/** Formats milliseconds in at most two units: `250 ms`, `4.2 s`, `3 min 20 s`, `5 h 2 min`, `12 d 3 h`. */
export function formatDuration(durationMs: number): string {
  const ms = Math.max(0, Math.round(durationMs));
  if (ms > 0 && ms < 1_000) return `${ms} ms`;
  if (ms < 59_500) return `${(ms / 1_000).toFixed(ms < 9_950 && ms % 1_000 !== 0 ? 1 : 0)} s`;
  const seconds = Math.round(ms / 1_000);
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 24 * 60) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return `${Math.floor(minutes / (24 * 60))} d ${Math.floor((minutes % (24 * 60)) / 60)} h`;
}

/** Formats a time that still grows or shrinks while it is shown: in whole seconds, rounded up, as the script of the pages counts. */
export function formatRunning(durationMs: number): string {
  return formatDuration(Math.ceil(durationMs / 1_000) * 1_000);
}

/** Seconds of each unit that people may write. */
export const unitSeconds: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3_600, d: 86_400 };

/** Reads a duration such as `90s`, `30m`, `2h`, `7d` or `1h30m`, in seconds; null: it is none. */
export function parseDuration(text: string): number | null {
  if (!/^(\d{1,9}[smhd])+$/.test(text)) return null;
  return [...text.matchAll(/(\d+)([smhd])/g)].reduce((sum, [, count, unit]) => sum + Number(count) * (unitSeconds[unit ?? ''] ?? 0), 0);
}
