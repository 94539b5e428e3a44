// What other backends import: the client, its errors, and the types that go with them. No worker comes along.
export { openClient } from './client/client.ts';
export type { Client, ClientOptions, StartOptions } from './client/client.ts';
export { ClientClosedError, SagaNotFoundError, SagaRolledBackError, SagaStuckError } from './client/errors.ts';
export type { SagaHandle, WaitOptions } from './client/handle.ts';
export type { CallersTransaction, PgTransaction, PostgresJsTransaction } from './client/transaction.ts';
export { parseKeyRing } from './platform/key-ring.ts';
export type { KeyRing } from './platform/key-ring.ts';
export type { QueueStore } from './queues/queue-store.ts';
export type { Saga, SagaError, SagaEventKind, SagaStatus } from './saga/saga.ts';
export { IdempotencyConflictError, InvalidRequestError } from './saga/start.ts';
export type { ActionResult, ActionResult as Steered } from './saga/cancel-and-retry.ts';
export type { StoredEvent } from './saga/store.ts';
export type { ProvisionDropletInput } from './steps/inputs.ts';
export type { DestroyDropletOutputs, ProvisionDropletOutputs } from './steps/outputs.ts';
