// Ends a run, whether it succeeded, failed, was interrupted or was killed: every saga at rest, every droplet destroyed
// and seen as 404, none of our tags left. Each part can be repeated.
import { setTimeout as delay } from 'node:timers/promises';
import { requester } from '../../cli/requester.ts';
import { DigitalOceanError } from '../../do/errors.ts';
import type { Database } from '../../platform/db.ts';
import type { SagaStatus } from '../../saga/saga.ts';
import { isAtRest } from '../../saga/saga.ts';
import { hasTag, sagaIdTag, sagaTag } from '../../steps/ownership.ts';
import { MANAGED_TAG, WAVE_TAG_PREFIX, isReservedTag, isSagaTag } from '../../steps/tags.ts';
import { readDroplets, readTagNames } from './account.ts';
import type { Stage } from './stage.ts';
import { follow, keyOf, keyPrefix } from './stage.ts';
import type { SeenDroplet } from './state.ts';
import { openCreates, withDroplet, withNewDroplet } from './state.ts';
import { EMBEDDED } from './stores.ts';

export type Left = Readonly<{
  /** The names of what is left. Empty: nothing. */
  left: readonly string[];
  /** Our tags that are left. */
  tagsLeft: readonly string[];
  /** Tags of the run that are left for other users of arcadia-cloud in this account. */
  sharedTags: readonly string[];
  /** When the account was last read, with no unknown droplet of the run in it unless one is left. */
  readAt: Date;
  /** The current foreign droplets. */
  foreign: readonly SeenDroplet[];
}>;

/** Deadlines for DigitalOcean, in milliseconds. */
export type TidyLimits = Readonly<{ sagasMs: number; goneMs: number; listsMs: number }>;

export const tidyLimits: TidyLimits = { sagasMs: 900_000, goneMs: 300_000, listsMs: 60_000 };

type RunSaga = Readonly<{ id: string; saga8: string; name: string; status: SagaStatus; key: string; dropletId: number | null }>;

/** Cancels unfinished sagas. After a killed run, this happens before a worker exists that would continue them. */
export async function callOff(stage: Pick<Stage, 'db' | 'client' | 'io' | 'state'>): Promise<void> {
  for (const { id, status, name } of await sagasOf(stage.db, stage.state.read().run)) {
    const goesOn = name === 'provision_droplet' && (status === 'pending' || status === 'running');
    if (goesOn) await stage.io('cancel', () => stage.client.cancel(id, requester(), 'smoke: the run was interrupted'));
  }
}

/** Ends the run and returns what is left. */
export async function tidy(stage: Stage, limits: TidyLimits): Promise<Left> {
  // The gate lets a worker destroy only droplets that are on record.
  await learnFromSagas(stage);
  await stage.crew.ensure();
  await callOff(stage);
  const unended = await endSagas(stage, AbortSignal.timeout(limits.sagasMs));
  await learnFromSagas(stage);
  const alive = await proveGone(stage, limits.goneMs);
  const listed = await readAgain(stage, [...alive.keys()], limits.listsMs);
  const tags = await deleteTags(stage, listed, limits.listsMs);
  return { left: [...unended, ...alive.values(), ...listed.left], ...tags, readAt: listed.readAt, foreign: listed.foreign };
}

/** Waits for each saga of the run, and destroys what the completed ones created. */
async function endSagas(stage: Stage, signal: AbortSignal): Promise<string[]> {
  const { db, client, io, state } = stage;
  const { run } = state.read();
  const retried = new Set<string>();
  for (;;) {
    const sagas = await sagasOf(db, run);
    const next = sagas.find(({ status }) => !isAtRest(status));
    if (next !== undefined) {
      if (!(await comesToRest(stage, next, signal))) return [`saga ${next.id} (${next.name}) is ${next.status}`];
      continue;
    }
    const stuck = sagas.find(({ id, status }) => status === 'stuck' && !retried.has(id));
    if (stuck !== undefined) {
      retried.add(stuck.id);
      await io('retry', () => client.retry(stuck.id, requester()));
      continue;
    }
    const destroyed = new Set(sagas.filter(({ name }) => name === 'destroy_droplet').map(({ dropletId }) => dropletId));
    const standing = sagas.find(({ name, status, dropletId }) => name === 'provision_droplet' && status === 'completed' && dropletId !== null && !destroyed.has(dropletId));
    if (standing?.dropletId === undefined || standing.dropletId === null) return sagas.filter(({ status }) => status === 'stuck').map(({ id, name }) => `saga ${id} (${name}) is stuck`);
    const { dropletId } = standing;
    const act = actOf(run, standing.key);
    await io('start destroy', () => client.destroyDroplet(dropletId, { idempotencyKey: keyOf(run, act, 'destroy'), requestedBy: requester(), reason: 'smoke' }));
  }
}

async function comesToRest(stage: Stage, { id, name }: RunSaga, signal: AbortSignal): Promise<boolean> {
  try {
    await follow(stage, name, id, signal);
    return true;
  } catch (error) {
    if (signal.aborted) return false;
    throw error;
  }
}

/** Records what a saga created past the gate: another fleet's worker may have run its step. */
async function learnFromSagas({ state, db }: Stage): Promise<void> {
  for (const { dropletId, key } of await sagasOf(db, state.read().run)) {
    const { acts, droplets, run } = state.read();
    if (dropletId === null || droplets.some(({ id }) => id === dropletId)) continue;
    const act = actOf(run, key);
    const name = acts.find((one) => one.act === act)?.dropletName ?? '';
    await state.change('droplet made', (current) => withNewDroplet(current, { id: dropletId, name, tags: [] }, null));
  }
}

/**
 * Checks that each droplet of the run answers 404. Destroys a droplet that no saga destroyed, if it carries a saga's full
 * id.
 */
async function proveGone(stage: Stage, limitMs: number): Promise<Map<number, string>> {
  const { state, api, db } = stage;
  const alive = new Map<number, string>();
  const proofs = (await sagasOf(db, state.read().run)).map((saga) => sagaIdTag(saga));
  for (const { id, name, goneAt } of state.read().droplets) {
    if (goneAt !== null) continue;
    const giveUpAt = performance.now() + limitMs;
    for (let isAsked = false; ; ) {
      const droplet = await patiently(stage, () => api.getDroplet(id), giveUpAt);
      if (droplet === null) break;
      if (performance.now() > giveUpAt) {
        alive.set(id, `droplet ${id} (${name}) is still there${proofs.some((tag) => hasTag(droplet, tag)) ? '' : ', and was not destroyed: it does not carry the full id of its saga'}`);
        // The next call deletes it again: an accepted deletion may have no effect.
        await state.change('droplet stays', (current) => withDroplet(current, id, (one) => ({ ...one, deletedAt: null })));
        break;
      }
      if (!isAsked && proofs.some((tag) => hasTag(droplet, tag)) && state.read().droplets.find((one) => one.id === id)?.deletedAt === null) {
        isAsked = (await patiently(stage, () => api.destroyDroplet(id), giveUpAt)) === 'destroyed';
        if (isAsked) await state.change('deletion accepted', (current) => withDroplet(current, id, (one) => ({ ...one, deletedAt: new Date().toISOString() })));
      }
      await delay(stage.lookEveryMs);
    }
    if (!alive.has(id)) await state.change('droplet gone', (current) => withDroplet(current, id, (one) => ({ ...one, goneAt: one.goneAt ?? new Date().toISOString() })));
  }
  return alive;
}

/** Reads the whole account until no list shows a droplet of the run. */
async function readAgain(stage: Stage, alive: readonly number[], limitMs: number): Promise<{ left: string[]; readAt: Date; foreign: SeenDroplet[] }> {
  const { state, api, db } = stage;
  const giveUpAt = performance.now() + limitMs;
  const sagas = await sagasOf(db, state.read().run);
  const ownTags = new Set(tagsOf(sagas));
  for (;;) {
    const readAt = new Date();
    const droplets = await patiently(stage, () => readDroplets(api), giveUpAt);
    const { acts, droplets: made, before } = state.read();
    const known = new Set(before.droplets.map(({ id }) => id));
    const isOurs = ({ id, name, tags }: SeenDroplet): boolean =>
      !known.has(id) && (made.some((one) => one.id === id) || acts.some(({ dropletName }) => dropletName === name) || (tags ?? []).some((tag) => ownTags.has(tag.toLowerCase())));
    const ours = droplets.filter(isOurs).filter(({ id }) => !alive.includes(id));
    const unknown = ours.filter(({ id }) => !made.some((one) => one.id === id));
    // An unanswered create may still produce a droplet, so keep checking until the deadline.
    const isOver = ours.length === 0 && openCreates(state.read(), readAt).length === 0;
    if (isOver || performance.now() > giveUpAt) {
      // A droplet that is still listed counts neither as deleted nor as gone. The next call starts over with it.
      for (const { id } of ours) await state.change('droplet is back', (current) => withDroplet(current, id, (one) => ({ ...one, deletedAt: null, goneAt: null })));
      return { left: ours.map(({ id, name }) => `droplet ${id} (${name ?? 'no name'}) is still listed`), readAt, foreign: droplets.filter((droplet) => !isOurs(droplet)) };
    }
    // A list showed a droplet that was not on record.
    for (const { id, name, tags } of unknown) {
      await state.change('droplet made', (current) => withNewDroplet(current, { id, name: name ?? '', tags: [...(tags ?? [])] }, null));
    }
    if (unknown.length > 0) await proveGone(stage, limitMs);
    await delay(stage.lookEveryMs);
  }
}

/**
 * Deletes tags that the run created and no resource carries. The tags of its sagas are its own.
 * `managed-by-arcadia-cloud` and the tags of waves belong to all users of arcadia-cloud in this account; they are deleted
 * only if there seem to be no others.
 */
async function deleteTags(stage: Stage, { foreign, readAt }: Pick<Left, 'foreign' | 'readAt'>, limitMs: number): Promise<Pick<Left, 'tagsLeft' | 'sharedTags'>> {
  const { state, api, db } = stage;
  const { acts, droplets, before, store, run } = state.read();
  const giveUpAt = performance.now() + limitMs;
  const isAlone = store === EMBEDDED && !before.tags.some((tag) => tag.toLowerCase() === MANAGED_TAG) && !foreign.some(({ tags }) => (tags ?? []).some(isReservedTag));
  const sagas = await sagasOf(db, run);
  // An unfinished saga may still need them to find its droplet.
  const needed = new Set(tagsOf(sagas.filter(({ status }) => status !== 'completed' && status !== 'compensated')));
  // They prove whose a droplet is that may still appear. Deleting a tag takes it off the droplets.
  const open = new Set(openCreates(state.read(), readAt).map(({ name }) => acts.find(({ dropletName }) => dropletName === name)?.act));
  const kept = new Set(tagsOf(sagas.filter(({ key }) => open.has(actOf(run, key)))));
  const all = new Set([...tagsOf(sagas), ...droplets.flatMap(({ tags }) => tags)].map((tag) => tag.toLowerCase()));
  const shared = [...all].filter((tag) => tag === MANAGED_TAG || tag.startsWith(WAVE_TAG_PREFIX));
  const before8 = new Set(before.tags.map((tag) => tag.toLowerCase()));
  const wanted = [...[...all].filter(isSagaTag), ...(isAlone ? shared : [])].filter((tag) => !before8.has(tag) && !kept.has(tag));
  const names = new Set(await patiently(stage, () => readTagNames(api), giveUpAt));
  const left: string[] = [];
  for (const tag of wanted.filter((one) => names.has(one))) {
    if (needed.has(tag) || !(await deleteUnused(stage, tag, giveUpAt))) left.push(tag);
  }
  return { tagsLeft: left, sharedTags: isAlone ? [] : shared.filter((tag) => names.has(tag) && !before8.has(tag)) };
}

async function deleteUnused(stage: Stage, name: string, giveUpAt: number): Promise<boolean> {
  for (;;) {
    try {
      const tag = await stage.api.readTag(name);
      if (tag === null) return true;
      if (tag.resources.count === 0) {
        await stage.api.deleteTag(name);
        return true;
      }
    } catch (error) {
      // Without the scope tag:delete, the tag is reported as left.
      if (!(error instanceof DigitalOceanError)) throw error;
      if (error.kind === 'unauthorized' || error.kind === 'rejected') return false;
    }
    if (performance.now() > giveUpAt) return false;
    await delay(stage.lookEveryMs);
  }
}

/** Retries while DigitalOcean cannot answer. */
async function patiently<T>(stage: Pick<Stage, 'lookEveryMs'>, ask: () => Promise<T>, giveUpAt: number): Promise<T> {
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      const passes = error instanceof DigitalOceanError && (error.kind === 'later' || error.kind === 'throttled');
      if (!passes || performance.now() > giveUpAt) throw error;
      await delay(Math.max(stage.lookEveryMs, error.retryAfterMs ?? 0));
    }
  }
}

/** The act that a saga belongs to. */
function actOf(run: string, key: string): string {
  return key.slice(keyPrefix(run).length).split(':')[0] ?? '';
}

function tagsOf(sagas: readonly RunSaga[]): string[] {
  return sagas.flatMap((saga) => [sagaTag(saga), sagaIdTag(saga)]);
}

/** The sagas of a run, by their keys. */
async function sagasOf(db: Pick<Database, 'run'>, run: string): Promise<RunSaga[]> {
  return db.run(
    'smoke.sagas',
    (sql) => sql<RunSaga[]>`
      select id, saga8, name, status, idempotency_key as key, coalesce(context->>'droplet_id', input->>'droplet_id')::float8 as droplet_id
      from arcadia.sagas where starts_with(idempotency_key, ${keyPrefix(run)}) order by created_at`,
  );
}
