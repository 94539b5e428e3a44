// The step that takes an existing droplet under management: it checks that nobody else manages the droplet, and tags it. It
// changes nothing but tags, and its compensation removes only the tags that it added.
import { DigitalOceanError } from '../do/errors.ts';
import type { Reservation } from '../do/reservations.ts';
import type { Droplet } from '../do/schemas.ts';
import type { Failure } from '../saga/failure.ts';
import type { Memo, Step, StepRun } from '../saga/step.ts';
import { StepFailure, StepWait, done, waiting } from '../saga/step.ts';
import type { StepDeps } from './deps.ts';
import { forRollback } from './deps.ts';
import { describe, toStepOutcome } from './failures.ts';
import { dropletFamily } from './family.ts';
import { storedAdoptInput } from './inputs.ts';
import { NO_LEASE_POLICY, leaseOfAdopted } from './lease.ts';
import { adoptionTag, adoptionTagsOf, hasTag, otherClaim, tagsOn } from './ownership.ts';
import { MANAGED_TAG } from './tags.ts';
import { waiterOf } from './waiter.ts';

// One 404 may be stale; a second one is believed.
const MISSES_UNTIL_GONE = 2;

const EFFECT = 'tags';

// In the saga's context: DigitalOcean accepted the tags.
const TAGGED = 'droplet_tagged';

const keys = { value: TAGGED };

// In the saga's context: a request of the adoption had its turn, and a later one was refused.
const BEGUN = 'tagging_begun';

export const tagDroplet: Step<StepDeps> = {
  name: 'tag_droplet',
  family: dropletFamily,
  words: { doing: 'tagging the droplet', provider: 'DigitalOcean' },
  recordsFirst: true,
  carriedOutBy: { lease: 'register_adopted_droplet', protected: 'register_adopted_droplet' },

  async execute(run, deps) {
    const { droplet_id: dropletId } = storedAdoptInput.parse(run.saga.input);
    const { settings } = deps;
    // Checks the lease before anything is done. It begins with the registration.
    if (run.effects(EFFECT, keys).sends === 0) leaseOfAdopted(run.saga, settings.lease ?? NO_LEASE_POLICY);
    const before = await look(dropletId, run, deps);
    const waits = run.effects(EFFECT, keys).sends === 0 ? await requireFree(before, run, deps) : null;
    if (waits !== null) {
      const looks = (run.memo['looks'] ?? 0) + 1;
      if (looks > settings.maxPolls) throw new StepFailure(refusal('droplet_not_free', waits));
      return waiting(settings.pollIntervalMs, waits, { memo: { looks } });
    }

    await run.once<true, PreparedTags>(EFFECT, {
      keys,
      recordsWithStep: true,
      announcement: `announced the tags of droplet ${dropletId}`,
      // Tagging is idempotent, so an unanswered request is repeated at once and without limit.
      settleMs: 0,
      maxSends: Number.POSITIVE_INFINITY,
      // Creates the tags before the announcement. A token without the scope for tags then waits without an announced effect.
      prepare: () => prepareTags(dropletId, run, deps),
      send: async (_mark, prepared) => {
        await putTags(dropletId, prepared, run, deps);
        return true;
      },
      find: async () => ((await missingTags(dropletId, run, deps)).length === 0 ? true : null),
    });

    // Another fleet may have checked the droplet before either fleet tagged it. The fleet that finds the other's tag gives way.
    const droplet = await look(dropletId, run, deps);
    const claimed = otherClaim(droplet, run.saga);
    if (claimed !== null) throw new StepFailure({ code: 'droplet_not_ours', message: `droplet ${dropletId} is not adopted: ${claimed}`, retryable: false });
    const missing = adoptionTagsOf(run.saga).filter((tag) => !hasTag(droplet, tag));
    if (missing.length === 0) return done({ [TAGGED]: true }, `droplet ${dropletId} carries our tags`);
    const looks = (run.memo['looks'] ?? 0) + 1;
    if (looks > settings.maxPolls) throw new StepFailure({ code: 'droplet_not_tagged', message: `DigitalOcean accepted the tags of droplet ${dropletId}, but does not show ${missing.join(' and ')}`, retryable: false });
    return waiting(settings.pollIntervalMs, `waiting until DigitalOcean shows the tags of droplet ${dropletId}`, { memo: { looks }, ...(run.saga.context[TAGGED] === true ? {} : { outputs: { [TAGGED]: true } }) });
  },

  async compensate(run, stepDeps) {
    const { droplet_id: dropletId } = storedAdoptInput.parse(run.saga.input);
    if (run.effects(EFFECT, keys).sends === 0) return done({}, `nothing was done to droplet ${dropletId}`);
    const deps = forRollback(stepDeps);
    const { adoptionGraceMs, pollIntervalMs } = deps.settings;
    const wasUndone = await run.undo<true>(EFFECT, {
      keys,
      undo: () => takeShownTagsOff(dropletId, run, deps),
      find: async () => ((await ownTagsOn(dropletId, run, deps)).length === 0 ? null : true),
      settleMs: adoptionGraceMs,
      pollMs: pollIntervalMs,
    });
    // An unanswered request whose tags never appeared. Reads may lag for longer than expected, so remove the tags unseen.
    if (!wasUndone) await takeTagsOff(dropletId, run, deps);
    const left = await ownTagsOn(dropletId, run, deps);
    if (left.length > 0) {
      throw new StepFailure({ code: 'tags_still_there', message: `droplet ${dropletId} still carries ${left.join(' and ')}, although DigitalOcean accepted their removal`, retryable: true, patient: true });
    }
    // No other droplet carries this adoption's tag. If it remains in the account, it does no harm.
    await deps.digitalOcean.deleteTag(adoptionTag(run.saga)).catch((error: unknown) => run.log.info({ err: error }, 'the tag of an adoption that was rolled back is left in the account'));
    return done({}, `droplet ${dropletId} is kept, without our tags`);
  },

  async superseded(run, _outputs, deps) {
    if (run.saga.status !== 'compensating' && run.saga.status !== 'compensated') return;
    const { droplet_id: dropletId } = storedAdoptInput.parse(run.saga.input);
    run.log.warn({ dropletId }, 'taking the tags off the droplet again: the adoption was cancelled meanwhile');
    // No later run repeats this, so it does not wait for the request budget.
    await takeTagsOff(dropletId, run, { ...deps, digitalOcean: deps.digitalOcean.at('now') });
  },
};

/**
 * Reads the droplet.
 *
 * @throws {StepWait} after the first 404; {StepFailure} `droplet_unknown`, `droplet_gone`, `droplet_unreadable`
 */
async function look(dropletId: number, run: StepRun, { digitalOcean, settings }: StepDeps): Promise<Droplet> {
  const droplet = await digitalOcean.getDroplet(dropletId);
  if (droplet === null) {
    const misses = (run.memo['misses'] ?? 0) + 1;
    if (misses < MISSES_UNTIL_GONE) throw new StepWait(waiting(settings.pollIntervalMs, `DigitalOcean returned 404 for droplet ${dropletId}: checking again`, { memo: { ...run.memo, misses } satisfies Memo }));
    throw new StepFailure(
      run.effects(EFFECT, keys).sends === 0
        ? refusal('droplet_unknown', `DigitalOcean has no droplet ${dropletId}, so nothing was adopted: check the id`)
        : { code: 'droplet_gone', message: `droplet ${dropletId} was destroyed while it was being adopted`, retryable: false },
    );
  }
  // Tags that cannot be read may belong to somebody else.
  if (droplet.tags === null) throw new StepFailure({ code: 'droplet_unreadable', message: `the tags of droplet ${dropletId} cannot be read in DigitalOcean's answer`, retryable: true });
  return droplet;
}

/**
 * Checks, before any change, that nobody manages the droplet.
 *
 * @returns why that is still unknown; null: nobody manages it
 * @throws {StepFailure} `droplet_already_managed`, `droplet_not_ours`: nothing was done
 */
async function requireFree(droplet: Droplet, run: StepRun, { inventory }: StepDeps): Promise<string | null> {
  const { id } = droplet;
  const provisioner = await inventory.findProvisioner(String(id));
  if (provisioner !== null) throw new StepFailure(refusal('droplet_already_managed', `droplet ${id} is on record already, for saga ${provisioner.sagaId}: there is nothing to adopt`));
  const creator = await inventory.findCreator(droplet);
  // Do not wait for that saga: it may be waiting for this one, because both work on the same droplet.
  if (creator?.isKnown === true) throw new StepFailure(refusal('droplet_already_managed', `droplet ${id} is being provisioned by saga ${creator.sagaId}: there is nothing to adopt`));
  const claimed = otherClaim(droplet, run.saga) ?? (hasTag(droplet, MANAGED_TAG) ? `it carries the tag ${MANAGED_TAG}` : null);
  if (claimed !== null) throw new StepFailure(refusal('droplet_not_ours', `droplet ${id} may be managed by another arcadia-cloud (${claimed}), so it is left alone. If it is not, take the tag off, and adopt it then`));
  // Tags appear some time after a create. Until the droplet is active, it may turn out to belong to a saga of any fleet.
  if (droplet.status === 'new') return `droplet ${id} is still being created: waiting until it is active`;
  return creator === null ? null : `droplet ${id} may be the one that saga ${creator.sagaId} asked for, which has no answer yet: waiting until that is known`;
}

/** The tags to put on the droplet, and a reservation for the first: an adoption that is held announces nothing. */
type PreparedTags = Readonly<{ first: string; others: readonly string[]; reserved: Reservation }>;

/**
 * Creates the tags, and takes them as DigitalOcean spells them. The first request waits for the adoption's turn among creates. The others
 * go before creates: each would wait for a turn of its own.
 *
 * @throws {StepWait} with the output that the adoption had its turn, so that it waits for no other one; whatever the client throws
 */
async function prepareTags(dropletId: number, run: StepRun, { digitalOcean }: StepDeps): Promise<PreparedTags> {
  const begun = digitalOcean.at('destroy');
  const hadTurn = run.saga.context[BEGUN] === true || run.effects(EFFECT, keys).sends > 0;
  const [tag = MANAGED_TAG, ...otherTags] = adoptionTagsOf(run.saga);
  const { name: first } = await (hadTurn ? begun : digitalOcean.for(waiterOf(run.saga))).createTag(tag);
  try {
    const others: string[] = [];
    for (const other of otherTags) others.push((await begun.createTag(other)).name);
    return { first, others, reserved: await begun.reserveTagging(first, dropletId) };
  } catch (error) {
    const outcome = hadTurn ? null : toStepOutcome(error, run.direction, run.memo);
    throw outcome?.kind === 'waiting' ? new StepWait({ ...outcome, outputs: { ...outcome.outputs, [BEGUN]: true } }) : error;
  }
}

/** @throws {StepFailure} {StepWait} with `sent: false` if the droplet got no tag; whatever the client throws */
async function putTags(dropletId: number, { first, others, reserved }: PreparedTags, run: StepRun, { digitalOcean }: StepDeps): Promise<void> {
  for (const tag of [first, ...others]) {
    const isFirst = tag === first;
    if (!isFirst) requireFreshClaim(dropletId, run);
    const result = await digitalOcean.at('destroy').tagDroplet(tag, dropletId, ...(isFirst ? [reserved] : [])).catch((error: unknown) => {
      throw isFirst ? withoutEffect(error, run) : error;
    });
    // The droplet may have been destroyed; the next read shows it.
    if (result === 'absent') throw new StepFailure({ code: 'droplet_gone', message: `DigitalOcean has no droplet ${dropletId} to tag`, retryable: true, ...(isFirst ? { sent: false } : {}) });
  }
}

/**
 * A worker that was frozen between two tags may have been replaced, and its adoption rolled back.
 *
 * @throws {StepFailure} with outputs, so that `superseded` takes the first tag off again
 */
function requireFreshClaim(dropletId: number, run: StepRun): void {
  try {
    run.assertClaimIsFresh();
  } catch (error) {
    throw new StepFailure({ code: 'claim_too_old', message: `droplet ${dropletId} got one of its tags only: ${error instanceof Error ? error.message : String(error)}`, retryable: true }, {});
  }
}

/** Converts the error of the first request. A refused request tagged nothing; any other one may have. */
function withoutEffect(error: unknown, run: StepRun): unknown {
  if (!(error instanceof DigitalOceanError) || error.kind === 'later' || error.kind === 'ambiguous') return error;
  const outcome = toStepOutcome(error, run.direction, run.memo);
  if (outcome?.kind === 'waiting') return new StepWait(outcome, { sent: false });
  return new StepFailure({ code: `digitalocean_${error.kind}`, message: describe(error), retryable: false, sent: false });
}

/**
 * Removes this adoption's tags. If the droplet does not show all of them yet, it waits for as long as reads and requests may lag, and
 * then removes them unseen: each tag takes a request of its own, so one that is shown says nothing of the other. It does the same after
 * a 404, because one 404 does not prove that the droplet is gone.
 */
async function takeShownTagsOff(dropletId: number, run: StepRun, deps: StepDeps): Promise<void> {
  const { adoptionGraceMs, pollIntervalMs } = deps.settings;
  const { all, shown } = await ownTags(dropletId, run, deps);
  const { ageMs } = run.effects(EFFECT, keys);
  const isUnseen = shown !== null && all.some((tag) => !shown.some((one) => one.toLowerCase() === tag));
  if (isUnseen && ageMs < adoptionGraceMs) {
    throw new StepWait(waiting(Math.min(pollIntervalMs, adoptionGraceMs - ageMs), `waiting until DigitalOcean shows the tags of droplet ${dropletId}, to take them off`));
  }
  await takeOff(dropletId, shown === null || isUnseen ? all : shown, deps);
}

/** Removes this adoption's tags. The common tag of all managed droplets stays if somebody else claims the droplet. */
async function takeTagsOff(dropletId: number, run: StepRun, deps: StepDeps): Promise<void> {
  const { all } = await ownTags(dropletId, run, deps);
  // Includes tags that DigitalOcean does not show: it may show them late.
  await takeOff(dropletId, all, deps);
}

async function takeOff(dropletId: number, tags: readonly string[], { digitalOcean }: StepDeps): Promise<void> {
  for (const tag of tags) await digitalOcean.untagDroplet(tag, dropletId);
}

async function ownTagsOn(dropletId: number, run: StepRun, deps: StepDeps): Promise<readonly string[]> {
  return (await ownTags(dropletId, run, deps)).shown ?? [];
}

/**
 * Returns the tags that this adoption may remove. `shown`: those that the droplet shows, as DigitalOcean spells them; null: DigitalOcean
 * returned 404 for the droplet.
 */
async function ownTags(dropletId: number, run: StepRun, { digitalOcean, inventory }: StepDeps): Promise<{ all: string[]; shown: string[] | null }> {
  const droplet = await digitalOcean.getDroplet(dropletId);
  if (droplet?.tags === null) throw new StepFailure({ code: 'droplet_unreadable', message: `the tags of droplet ${dropletId} cannot be read in DigitalOcean's answer`, retryable: true, patient: true });
  const provisioner = await inventory.findProvisioner(String(dropletId));
  const isOthers = (droplet !== null && otherClaim(droplet, run.saga) !== null) || (provisioner !== null && provisioner.sagaId !== run.saga.id);
  const all = isOthers ? [adoptionTag(run.saga)] : adoptionTagsOf(run.saga);
  return { all, shown: droplet === null ? null : tagsOn(droplet).filter((tag) => all.includes(tag.toLowerCase())) };
}

async function missingTags(dropletId: number, run: StepRun, { digitalOcean }: StepDeps): Promise<string[]> {
  const droplet = await digitalOcean.getDroplet(dropletId);
  return adoptionTagsOf(run.saga).filter((tag) => droplet === null || !hasTag(droplet, tag));
}

function refusal(code: string, message: string): Failure {
  return { code, message, retryable: false, nothingDone: true };
}
