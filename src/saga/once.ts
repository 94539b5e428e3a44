// Effects whose outcome may be unknown. A request to an external service may take effect although no response arrives:
// the worker may die, or the connection may drop. `once` announces each request in Postgres before it is sent, searches
// for the effect of an unanswered one before it sends another, and records the result. `undo` undoes the effect with the
// same care.
import type { JsonObject } from '../platform/json.ts';
import { asStored } from '../platform/json.ts';
import { msBetween } from '../platform/time.ts';
import { backoffCeilingMs } from './backoff.ts';
import type { Saga } from './saga.ts';
import { stampAgeMs } from './stamps.ts';
import type { Effect, EffectKeys, EffectState, Undoing } from './effect.ts';
import type { Failure } from './failure.ts';
import { requireName } from './names.ts';
import type { StepRun } from './step.ts';
import { StaleRevisionError, StepFailure, StepWait, failureOf, waitOf, waiting } from './step.ts';

/** The part of a run that effects need. */
type EffectRun = Pick<StepRun, 'saga' | 'now' | 'record' | 'assertClaimIsFresh'>;

// Keys announced by the current run. The database sets the time of an announcement, and the run does not read it back, so
// the age counts as 0.
const announcedIn = new WeakMap<object, Set<string>>();

// The effects in progress per run, by step and name.
const asked = new WeakMap<object, Set<string>>();

const SETTLE_MS = 60_000;
const POLL_MS = 5_000;
const MAX_SENDS = 3;

// Until the next try of a run whose claim had become too old, as the database or this process is slow. Each try writes two
// events: the delay doubles with every request that was not sent, up to a minute.
const STALE_CLAIM_MS = 1_000;

/**
 * Causes an effect of a step at most once, provided that a request's effect becomes visible within `settleMs`.
 *
 * @param name of the effect, unique in its step
 * @returns the result of `send`, from this run or an earlier one; or the result of `find`
 * @throws {TypeError} if another call for this effect is in progress in this run: two effects need two names
 * @throws {StepWait} while the outcome of an earlier request is unknown, or if the claim became too old to send; the step must
 *   not catch it
 * @throws {StepFailure} `effect_unanswered` after `maxSends` unanswered requests; whatever `send` and `find` throw
 * @throws {StaleRevisionError} if another writer has moved the saga on; nothing is sent
 */
export async function once<Value, Prepared>(run: EffectRun, step: string, name: string, effect: Effect<Value, Prepared>): Promise<Value> {
  const inFlight = asked.get(run) ?? new Set<string>();
  asked.set(run, inFlight);
  const asking = `${step}.${name}`;
  // Neither call would see an announcement, so both would send.
  if (inFlight.has(asking)) throw new TypeError(`effect ${JSON.stringify(name)} of ${step}: once was called again before the first call ended; wait for it, or give each effect a name of its own`);
  inFlight.add(asking);
  try {
    return await bringAbout(run, step, name, effect);
  } finally {
    inFlight.delete(asking);
  }
}

async function bringAbout<Value, Prepared>(run: EffectRun, step: string, name: string, effect: Effect<Value, Prepared>): Promise<Value> {
  const keys = keysOf(step, name, effect.keys);
  const before = effectState<Value>(run, step, name, keys);
  if (before.state === 'done') return recordedValue(before);

  if (before.unanswered > 0) {
    const found = await effect.find(before.mark, before);
    if (found !== null && found !== undefined) return keep(run, name, keys, effect, found, 'found the effect of an earlier request');
    const { settleMs = SETTLE_MS, pollMs = POLL_MS, notYet = `a request for ${name} got no answer: looking for its effect before sending another` } = effect;
    if (before.ageMs < settleMs) throw new StepWait(waiting(Math.min(pollMs, settleMs - before.ageMs), notYet));
    if (before.unanswered >= (effect.maxSends ?? MAX_SENDS)) throw new StepFailure(effect.giveUp?.(before.sends) ?? unanswered(name, before.sends));
  }

  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- without `prepare`, nothing is prepared
  const prepared = (await effect.prepare?.()) as Prepared;
  // Computed again, because preparing may have taken a while.
  const { sends } = effectState(run, step, name, keys);
  await run.record(effect.announcement ?? `announced ${name}`, { ...effect.announces, [keys.sends]: sends + 1 }, [keys.sentAt]);
  const announced = announcedIn.get(run) ?? new Set<string>();
  announcedIn.set(run, announced.add(keys.sentAt));
  let value: Value;
  try {
    requireFreshClaim(run, name, countOf(run.saga, keys.refusals));
    value = await effect.send(before.mark, prepared);
  } catch (error) {
    throw surelyNotSent(error) ? withOutputs(error, { [keys.refusals]: countOf(run.saga, keys.refusals) + 1 }) : error;
  }
  return keep(run, name, keys, effect, value, 'answered');
}

/**
 * Undoes an effect, even if it is unknown whether the effect exists. It then searches until `settleMs` after the last
 * announcement.
 *
 * @returns whether there was anything to undo
 * @throws {StepWait} while the effect may still appear; whatever `undo` and `find` throw
 */
export async function undo<Value>(run: EffectRun, step: string, name: string, undoing: Undoing<Value>): Promise<boolean> {
  const { settleMs = SETTLE_MS, pollMs = POLL_MS } = undoing;
  const known = effectState<Value>(run, step, name, undoing.keys);
  // A list may still show an effect that was just undone. Undo each only once.
  const undone = new Set<string>();
  const takeBack = async (value: Value) => {
    await undoing.undo(value);
    undone.add(JSON.stringify(value));
  };
  if (known.state === 'done') await takeBack(recordedValue(known));
  if (known.unanswered === 0) return known.state === 'done';
  for (let looks = 0; looks < known.sends; looks += 1) {
    const found = await undoing.find(known.mark, known);
    if (found === null || found === undefined || undone.has(JSON.stringify(found))) break;
    await takeBack(found);
  }
  // One request has one effect, so one undone value settles it. With several requests, the same effect may be found twice
  // in different forms and must not count as two.
  const isSettled = known.state === 'unknown' && known.unanswered === 1 && undone.size > 0;
  if (!isSettled && known.ageMs < settleMs) {
    throw new StepWait(waiting(Math.min(pollMs, settleMs - known.ageMs), `a request for ${name} got no answer: looking for its effect`));
  }
  return undone.size > 0;
}

/**
 * Throws a wait for a claim that has become too old to send anything: by its rule another worker may have taken over. The request
 * that was announced is then known not to be sent, and the wait takes the announcement back. If another worker has moved
 * the saga on, the wait is refused like everything else that this run writes.
 */
function requireFreshClaim(run: EffectRun, name: string, notSent: number): void {
  try {
    run.assertClaimIsFresh();
  } catch (error) {
    if (!(error instanceof StaleRevisionError)) throw error;
    throw new StepWait(waiting(backoffCeilingMs(notSent + 1, STALE_CLAIM_MS), `${error.message}: the request for ${name} was not sent`), { sent: false });
  }
}

/** Returns what is known of an effect of this step. */
// oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- the caller says what `send` returned
export function effectState<Value>(run: Pick<EffectRun, 'saga' | 'now'>, step: string, name: string, given: Partial<EffectKeys> = {}): EffectState<Value> {
  const { saga, now } = run;
  const keys = keysOf(step, name, given);
  const value = saga.context[keys.value];
  const isDone = value !== undefined && keys.isValue?.(value) !== false;
  const sends = countOf(saga, keys.sends);
  const unanswered = sends - countOf(saga, keys.refusals) - (isDone ? 1 : 0);
  return {
    state: isDone ? 'done' : unanswered > 0 ? 'unknown' : 'never',
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- what `send` returned
    value: isDone ? (value as Value) : null,
    mark: `${saga.id}-${step}-${name}`,
    sends,
    unanswered,
    // An announcement without a time has lost it. Use the time of the saga's last change.
    ageMs: sends === 0 ? Number.POSITIVE_INFINITY : announcedIn.get(run)?.has(keys.sentAt) === true ? 0 : (stampAgeMs({ saga, now }, keys.sentAt) ?? msBetween(saga.updatedAt, now)),
  };
}

function keysOf(step: string, name: string, given: Partial<EffectKeys> = {}): EffectKeys {
  requireName(`effect ${JSON.stringify(name)} of ${step}`, name);
  const prefix = `${step}.${name}`;
  return { sends: `${prefix}.sends`, refusals: `${prefix}.refusals`, sentAt: `${prefix}.sent_at`, value: `${prefix}.value`, ...given };
}

/** Records the result as Postgres stores it, so that this run sees the same value as the next one. */
async function keep<Value>(run: EffectRun, name: string, keys: EffectKeys, { recordsWithStep }: Pick<Effect<Value>, 'recordsWithStep'>, value: Value, note: string): Promise<Value> {
  const outputs = asStored({ [keys.value]: value ?? null });
  if (recordsWithStep !== true) await run.record(`${name}: ${note}`, outputs);
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- as above
  return outputs[keys.value] as Value;
}

function recordedValue<Value>({ value }: EffectState<Value>): Value {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- null is a value too: that of a `send` that returns none
  return value as Value;
}

function unanswered(name: string, sends: number): Failure {
  return { code: 'effect_unanswered', message: `sent ${sends} requests for ${name} without an answer, and found no effect`, retryable: false };
}

function surelyNotSent(error: unknown): boolean {
  return failureOf(error)?.failure.sent === false || waitOf(error)?.sent === false;
}

function withOutputs(error: unknown, outputs: JsonObject): unknown {
  const wait = waitOf(error);
  if (wait !== null) return new StepWait({ ...wait.outcome, outputs: { ...wait.outcome.outputs, ...outputs } }, { sent: false });
  const thrown = failureOf(error);
  return thrown === null ? error : new StepFailure(thrown.failure, { ...thrown.outputs, ...outputs });
}

function countOf(saga: Pick<Saga, 'context'>, key: string): number {
  const value = saga.context[key];
  return typeof value === 'number' ? value : 0;
}
