// Prometheus's text format, corrected where prom-client deviates from it.

/** Writes `NaN` where prom-client writes `Nan`. Most parsers accept both, but some accept only the format's own spelling. */
export function toMetricsText(documents: readonly string[]): string {
  return documents.join('\n').replaceAll(/ Nan$/gm, ' NaN');
}
