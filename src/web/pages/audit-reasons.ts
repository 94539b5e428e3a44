// Why a saga was started, beside who started it. The reason stands in the saga's input: the audit's row of a start has none.
import type { Json, JsonObject } from '../../platform/json.ts';
import type { AuditLine, AuditRow } from '../../saga/audit.ts';
import type { SagaPort } from '../ports.ts';

/** The reason of one row. `input`: that of its saga, as it may be shown; undefined: there is no such saga. */
export function reasonOf({ action, detail }: Pick<AuditRow, 'action' | 'detail'>, input: JsonObject | undefined): Json | undefined {
  return detail['reason'] ?? (action === 'saga_created' ? input?.['reason'] : undefined);
}

/** The rows with their reasons in `detail`, and without secrets. */
export async function withReasons(rows: readonly AuditLine[], { search, surface }: Pick<SagaPort, 'search' | 'surface'>): Promise<AuditLine[]> {
  const ids = [...new Set(rows.flatMap(({ action, sagaId, detail }) => (sagaId !== null && action === 'saga_created' && detail['reason'] === undefined ? [sagaId] : [])))];
  const sagas = ids.length === 0 ? [] : (await search({ ids }, { limit: ids.length })).sagas;
  const inputs = new Map(sagas.map((saga) => [saga.id, surface.redact.saga(saga).input]));
  return rows.map((row) => {
    const detail = surface.redact.value(row.detail);
    const reason = reasonOf({ ...row, detail }, row.sagaId === null ? undefined : inputs.get(row.sagaId));
    return { ...row, detail: typeof reason === 'string' ? { ...detail, reason } : detail };
  });
}
