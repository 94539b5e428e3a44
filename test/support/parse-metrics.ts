// Parses metrics as Prometheus would.

/** Reads the format strictly: one HELP and TYPE a metric, before its samples, all together, no sample twice. */
export function parseMetrics(text: string): Map<string, number> {
  const samples = new Map<string, number>();
  const seen = new Set<string>();
  let current = '';
  for (const line of text.trimEnd().split('\n')) {
    // The format says: empty lines are ignored.
    if (line === '') continue;
    const [, keyword, family] = /^# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.+)$/.exec(line) ?? [];
    if (keyword !== undefined && family !== undefined) {
      if (seen.has(`${keyword} ${family}`)) throw new Error(`a second time: ${line}`);
      seen.add(`${keyword} ${family}`);
      current = family;
      continue;
    }
    const [, name = '', labels = '', value] = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\.)*",? ?)*\})? (NaN|[+-]Inf|[-+0-9.e]+)$/.exec(line) ?? [];
    if (value === undefined) throw new Error(`not a sample: ${line}`);
    if (!name.startsWith(current)) throw new Error(`below ${current}: ${line}`);
    if (samples.has(name + labels)) throw new Error(`a second time: ${line}`);
    samples.set(name + labels, Number(value));
  }
  return samples;
}
