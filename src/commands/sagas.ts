// `sagas` lists sagas; `saga <id>` shows one with its timeline.
import { redactSaga } from '../saga/redact.ts';
import { sagaStatuses } from '../saga/saga.ts';
import type { SagaStatus } from '../saga/saga.ts';
import { formatSaga, formatSagas } from './saga-text.ts';
import { withClient, write } from './start-and-follow.ts';
import { UsageError, requireSagaId } from './usage-error.ts';

export async function listSagasCommand(options: { status?: string; name?: string; limit: number; json?: boolean }): Promise<number> {
  const { status, name, limit } = options;
  if (status !== undefined && !isStatus(status)) throw new UsageError(`--status: expected one of ${sagaStatuses.join(', ')}, found ${status}`);
  return withClient(async (client) => {
    const sagas = await client.list({ limit, ...(status === undefined ? {} : { status }), ...(name === undefined ? {} : { name }) });
    write(options.json === true ? JSON.stringify(sagas.map(redactSaga)) : formatSagas(sagas));
    return 0;
  });
}

export async function showSagaCommand(sagaId: string, options: { json?: boolean }): Promise<number> {
  requireSagaId(sagaId);
  return withClient(async (client) => {
    const saga = await client.get(sagaId);
    if (saga === null) {
      process.stderr.write(`there is no saga ${sagaId}\n`);
      return 1;
    }
    const events = await client.events(sagaId);
    write(options.json === true ? JSON.stringify({ ...redactSaga(saga), events }) : formatSaga(saga, events));
    return 0;
  });
}

function isStatus(value: string): value is SagaStatus {
  return (sagaStatuses as readonly string[]).includes(value);
}
