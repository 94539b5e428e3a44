// What others write their own sagas and steps with: `arcadia-cloud/engine`. It loads nothing of any provider's.
export { defineApp, defineSaga, defineStep } from './saga/app.ts';
export type { App, AppContext, NamedSaga } from './saga/app.ts';
export type { JsonObject } from './platform/json.ts';
export type { Saga, SagaError, SagaStatus } from './saga/saga.ts';
export type { Effect, EffectState, Undoing } from './saga/effect.ts';
export type { Failure } from './saga/failure.ts';
export { StaleRevisionError, StepFailure, StepWait, done, failed, waiting } from './saga/step.ts';
export type { Memo, Step, StepOutcome, StepRun } from './saga/step.ts';
export type { SagaEnd, SagaFacts, SagaWords, StepWords, Subject } from './saga/words.ts';
