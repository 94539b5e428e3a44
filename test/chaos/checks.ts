// What must hold once everything is at rest, whatever happened. Pure: evidence in, violations out.
import type { DropletLine } from '../../src/sandbox/server.ts';
import { textOf } from '../../src/platform/json.ts';
import type { Evidence, ResourceRow, SagaRow } from './evidence.ts';
import { dropletsBySaga } from './evidence.ts';
import type { Played } from './load.ts';
import { findFrozenCreates, measureDuplicates } from './measures.ts';

/** Something that must not be. */
export type Violation = Readonly<{ check: string; what: string; sagaId?: string }>;

/** Checks everything. */
export function findViolations(evidence: Evidence): Violation[] {
  return [
    ...evidence.sagas.flatMap((saga) => checkEnd(saga)),
    ...checkDroplets(evidence),
    ...checkDuplicates(evidence),
    ...checkForeign(evidence),
    ...evidence.load.played.flatMap((played) => checkRequest(played, evidence)),
    ...checkNothingExtra(evidence),
    ...evidence.sagas.flatMap((saga) => checkEvents(saga, evidence)),
    ...checkProcesses(evidence),
  ];
}

function checkEnd(saga: SagaRow): Violation[] {
  if (saga.status === 'completed' || saga.status === 'compensated') return [];
  return [{ check: 'every saga ends', sagaId: saga.id, what: `it is ${saga.status}: ${saga.error?.message ?? 'no error'}` }];
}

/** A completed saga has one droplet, the one on record; every other has none; and none is without a saga. */
function checkDroplets(evidence: Evidence): Violation[] {
  const bySaga = dropletsBySaga(evidence);
  const destroyed = new Set(
    evidence.sagas.filter((saga) => saga.name === 'destroy_droplet' && saga.status === 'completed').map((saga) => saga.input['droplet_id']),
  );
  const resources = new Map(evidence.resources.map((row) => [row.providerId, row]));
  const provisions = evidence.sagas.filter((saga) => saga.name === 'provision_droplet');
  const known = new Set(provisions.map(({ id }) => id));
  const strays = [...bySaga].filter(([sagaId]) => !known.has(sagaId)).flatMap(([, droplets]) => droplets.filter(({ alive }) => alive));
  return [
    ...strays.map((droplet) => ({ check: 'no droplet without a saga', what: `droplet ${droplet.id} (${droplet.name}) belongs to no saga` })),
    ...provisions.flatMap((saga) => {
      const made = bySaga.get(saga.id) ?? [];
      const isKept = saga.status === 'completed' && !destroyed.has(saga.context['droplet_id']);
      return [...checkMade(saga, made), ...(isKept ? checkKept(saga, made, resources) : checkGone(saga, made, resources))];
    }),
  ];
}

/** A saga has two droplets at once only where a worker was frozen right before it sent a create: as many sagas as there were such creates, at most. */
function checkDuplicates(evidence: Evidence): Violation[] {
  const frozen = new Set(findFrozenCreates(evidence).map(({ sagaId }) => sagaId));
  return measureDuplicates(evidence, Date.now())
    .sagas.filter(({ sagaId }) => !frozen.has(sagaId))
    .map(({ sagaId, droplets }) => ({ check: 'only a worker frozen right before its POST makes a second droplet', sagaId, what: `it had the droplets ${droplets.join(', ')} at once` }));
}

/** Each droplet was announced before it was asked for. */
function checkMade(saga: SagaRow, made: readonly DropletLine[]): Violation[] {
  const announced = textOf(saga.context['create_intents'], '0');
  if (made.length <= Number(announced)) return [];
  return [{ check: 'every create is announced', sagaId: saga.id, what: `${made.length} droplets, ${announced} announced` }];
}

function checkKept(saga: SagaRow, made: readonly DropletLine[], resources: ReadonlyMap<string, ResourceRow>): Violation[] {
  const problems: string[] = [];
  const recorded = textOf(saga.context['droplet_id'], 'none');
  const alive = made.filter((droplet) => droplet.alive);
  const own = alive.find((droplet) => String(droplet.id) === recorded);
  if (own === undefined) problems.push(`its droplet ${recorded} is not there`);
  else if (own.status !== 'active') problems.push(`its droplet ${own.id} is ${own.status}`);
  for (const droplet of alive) if (droplet !== own) problems.push(`droplet ${droplet.id} is one too many; ${recorded} is on record`);
  const row = resources.get(recorded);
  if (row === undefined || row.deletedAt !== null) problems.push(`its droplet ${recorded} is not in the inventory`);
  else if (row.provisionedBy !== `saga:${saga.id}` || row.releasedAt !== null) problems.push(`the inventory says that ${String(row.provisionedBy)} asked for its droplet`);
  return problems.map((what) => ({ check: 'a completed saga has exactly its droplet', sagaId: saga.id, what }));
}

function checkGone(saga: SagaRow, made: readonly DropletLine[], resources: ReadonlyMap<string, ResourceRow>): Violation[] {
  const problems = made.filter((droplet) => droplet.alive).map((droplet) => `droplet ${droplet.id} is still there`);
  for (const droplet of made) {
    const row = resources.get(String(droplet.id));
    if (row !== undefined && row.deletedAt === null) problems.push(`droplet ${droplet.id} is still in the inventory`);
    if (row !== undefined && row.provisionedBy !== null && row.releasedAt === null) problems.push(`droplet ${droplet.id} is still asked for in the inventory`);
  }
  return problems.map((what) => ({ check: 'a saga that was rolled back, or whose droplet was destroyed, has none', sagaId: saga.id, what }));
}

function checkForeign(evidence: Evidence): Violation[] {
  const now = new Map(evidence.droplets.map((droplet) => [droplet.id, droplet]));
  const ids = new Set(evidence.load.foreign.map(({ id }) => id));
  const changed = evidence.load.foreign.filter((before) => {
    const after = now.get(before.id);
    return after === undefined || !after.alive || after.name !== before.name || after.tags.join() !== before.tags.join();
  });
  const attempts = evidence.ledger.filter((entry) => entry.method !== 'GET' && ids.has(Number(/^\/v2\/droplets\/(\d+)/.exec(entry.path)?.[1])));
  const recorded = evidence.sagas.filter((saga) => ids.has(Number(saga.context['droplet_id'])));
  const touched: Violation[] = [
    ...changed.map((droplet) => ({ check: 'foreign droplets are left alone', what: `droplet ${droplet.id} (${droplet.name}) is not as it was` })),
    ...attempts.map((entry) => ({ check: 'foreign droplets are left alone', what: `${entry.method} ${entry.path} was sent` })),
    ...recorded.map((saga) => ({ check: 'foreign droplets are left alone', sagaId: saga.id, what: `it took droplet ${textOf(saga.context['droplet_id'])} for its own` })),
  ];
  return touched;
}

function checkRequest(played: Played, evidence: Evidence): Violation[] {
  const { request, sagaIds } = played;
  const [sagaId] = sagaIds;
  const found = evidence.sagas.filter((saga) => saga.idempotencyKey === request.key);
  const [saga] = found;
  if (saga === undefined || sagaId === undefined) return [{ check: 'no request is lost', what: `${request.key} has ${found.length} sagas, and ${sagaIds.size} answers` }];
  const problems: string[] = [];
  if (found.length !== 1 || sagaIds.size !== 1 || saga.id !== sagaId) problems.push(`${request.key} was answered with ${[...sagaIds].join(', ')}, and has ${found.length} sagas`);
  if (request.isContradicted && played.contradiction !== 'refused') problems.push(`${request.key} was taken for another input (${String(played.contradiction)})`);
  if (request.fate !== 'ordinary' && saga.status === 'completed') problems.push(`it is completed, and is ${request.fate}`);
  const isCancelled = played.cancel === 'accepted' || played.cancel === 'already';
  if (isCancelled && saga.status === 'completed') problems.push('it is completed, and its cancel was accepted');
  if (played.cancel === 'not_found') problems.push('its cancel did not find it');
  return problems.map((what) => ({ check: 'a request gets what it was promised', sagaId: saga.id, what }));
}

/** Every saga was asked for. */
function checkNothingExtra(evidence: Evidence): Violation[] {
  const keys = new Set(evidence.load.played.flatMap(({ request }) => [request.key, `${request.key}-destroy`]));
  return evidence.sagas
    .filter((saga) => !keys.has(saga.idempotencyKey ?? ''))
    .map((saga) => ({ check: 'no saga without a request', sagaId: saga.id, what: `nobody asked for ${saga.name} ${String(saga.idempotencyKey)}` }));
}

function checkEvents(saga: SagaRow, evidence: Evidence): Violation[] {
  const events = evidence.events.get(saga.id) ?? [];
  if (events.length === saga.revision + 1 && events.every((event, index) => event.seq === index)) return [];
  return [{ check: 'events are gapless', sagaId: saga.id, what: `revision ${saga.revision}, events ${events.map(({ seq }) => seq).join(' ')}` }];
}

function checkProcesses(evidence: Evidence): Violation[] {
  const { deaths, leaks, diary, jobs, load } = evidence;
  return [
    ...deaths.map(({ worker, code, signal, output }) => ({ check: 'no worker ends by itself', what: `${worker} ended (${signal ?? `exit code ${code}`}):\n${output}` })),
    ...(diary.lateStops === 0 ? [] : [{ check: 'workers stop when told to', what: `${diary.lateStops} had to be killed` }]),
    ...(leaks.length === 0 ? [] : [{ check: 'no secret is printed', what: `workers printed ${leaks.length} of the secrets` }]),
    ...(jobs.live === 0 ? [] : [{ check: 'no job goes on for ever', what: `${jobs.live} jobs are left though every saga is at rest` }]),
    ...load.surprises.map((what) => ({ check: 'the client answers', what })),
  ];
}
