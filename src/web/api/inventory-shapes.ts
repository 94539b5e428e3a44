// The schemas of the routes of the inventory: resources, drift, orphans, leases and protection.
import { z } from 'zod';
import type { DriftField } from '../../inventory/drift.ts';
import type { LeaseRow } from '../../inventory/lease-listing.ts';
import { MAX_LEASE_S } from '../../platform/longest-lease.ts';
import { answerTime, dropletId, json, limit, more, rowsLimit, text } from './fields.ts';

/** Query of `GET /v1/resources`. */
export const resourcesQuery = z.strictObject({
  status: text().optional(),
  region: text().optional(),
  tag: text().optional(),
  droplet_id: dropletId.optional(),
  deleted: z.enum(['true', 'false'], 'expected true or false').optional().describe('true: include resources that no longer exist'),
  cursor: z.string().max(1_000).optional().describe('the nextCursor of the page before'),
  limit: limit(500, 100),
});

export const resourceAnswer = z.object({
  id: z.uuid(),
  provider: z.string(),
  kind: z.string(),
  providerId: z.string(),
  name: z.string(),
  region: z.string().nullable(),
  status: z.string(),
  sizeSlug: z.string().nullable(),
  tags: z.array(z.string()),
  attrs: json,
  firstSeenAt: answerTime,
  lastSeenAt: answerTime,
  deletedAt: answerTime.nullable(),
  provisionedBy: z.string().nullable().describe('saga:<id> if arcadia-cloud provisioned or adopted it'),
  spec: json.nullable().describe('what was asked for'),
  protected: z.boolean().describe('it is not destroyed until its protection is lifted'),
  leaseUntil: answerTime.nullable().describe('when its lease ends; null: it has none'),
});
export const resourcesAnswer = z.object({ resources: z.array(resourceAnswer), nextCursor: z.string().nullable().describe('pass it as cursor to read the next page; null: the list ends here') });

/** Query of `GET /v1/drift`. */
export const driftQuery = z.strictObject({
  resolved: z.enum(['true', 'false'], 'expected true or false').optional().describe('true: include resolved drift, newest first'),
  limit: rowsLimit,
});

/** Path of one finding. */
export const driftParams = z.object({ id: z.string().regex(/^[1-9]\d{0,14}$/, 'expected the id of a drift: a positive whole number').meta({ examples: ['12'] }) });

// Not imported as a value: an app without an inventory loads nothing of it.
const driftFields = ['existence', 'size_slug', 'region', 'image', 'power_state'] as const satisfies readonly DriftField[];

export const driftAnswer = z
  .object({
    id: z.int(),
    resourceId: z.uuid(),
    providerId: z.string(),
    name: z.string(),
    sagaId: z.uuid(),
    field: z.enum(driftFields),
    desired: z.string(),
    actual: z.string(),
    firstSeenAt: answerTime,
    lastSeenAt: answerTime,
    resolvedAt: answerTime.nullable(),
    resolution: z.enum(['put_back', 'accepted', 'released', 'changed']).nullable().describe('changed: another difference of the same field took its place, with an id of its own'),
  })
  .describe('A difference between a droplet and its spec');

export const driftsAnswer = z.object({ drift: z.array(driftAnswer), more });
export const acceptedAnswer = z.object({ drift: driftAnswer });
/** Query of `GET /v1/orphans`. */
export const orphansQuery = z.strictObject({ limit: rowsLimit });

export const orphanAnswer = z.object({
  id: z.int(),
  category: z.enum(['surplus', 'unknown']).describe('surplus: ours and not needed, will be destroyed; unknown: reported, never touched'),
  reason: z.string(),
  sagaId: z.uuid().nullable(),
  providerId: z.string(),
  name: z.string(),
  region: z.string().nullable(),
  sizeSlug: z.string().nullable(),
  tags: z.array(z.string()),
  priceUsdPerHour: z.number().nullable(),
  createdAt: answerTime,
  firstSeenAt: answerTime,
  lastSeenAt: answerTime,
  approvedAt: answerTime.nullable(),
  approvedBy: z.string().nullable(),
  acknowledgedAt: answerTime.nullable().describe('when somebody acknowledged this unknown orphan: it is not reported as a problem since'),
  acknowledgedBy: z.string().nullable(),
  acknowledgedReason: z.string().nullable(),
  sweepFailingSince: answerTime.nullable().describe('since when the sweep has failed to destroy this surplus droplet'),
  sweepError: z.string().nullable().describe('why its last try failed'),
});
export const orphansAnswer = z.object({ orphans: z.array(orphanAnswer), more });

const orphanIds = z
  .array(z.int('expected the id of an orphan, as GET /v1/orphans lists it').positive())
  .min(1)
  .max(1_000)
  .describe('ids of unknown orphans, as GET /v1/orphans lists them')
  .meta({ examples: [[12]] });

/** Body of `POST /v1/orphans/acknowledge`. */
export const acknowledgeBody = z.strictObject({ ids: orphanIds, reason: text(1_000).optional().describe('reason, kept in the audit') });

/** Body of `POST /v1/orphans/unacknowledge`. */
export const unacknowledgeBody = acknowledgeBody.omit({ reason: true });

export const acknowledgedAnswer = z.object({ ids: z.array(z.int()).describe('those for which this holds now; the others are no unknown orphans') });

/** Path of one droplet. */
export const dropletParams = z.object({ id: dropletId });

/** Body of `PUT /v1/droplets/:id/protection`. */
export const protectionBody = z.strictObject({ protected: z.boolean('expected true or false').describe('false lifts the protection') });

export const protectionAnswer = z.object({ dropletId: z.int(), protected: z.boolean(), changed: z.boolean().describe('false: it was so already') });

const LEASE_SECONDS = `expected whole seconds from 1 to ${MAX_LEASE_S}`;
const leaseSeconds = z.int(LEASE_SECONDS).min(1, LEASE_SECONDS).max(MAX_LEASE_S, LEASE_SECONDS);

/** Body of `POST /v1/droplets/:id/lease`. */
export const leaseBody = z.strictObject({ ttl_s: leaseSeconds.describe('how long from now the lease lasts at least, in seconds').meta({ examples: [7_200] }) });

export const leaseAnswer = z.object({ dropletId: z.int(), leaseUntil: answerTime.describe('when the lease ends now') });

/** Query of `GET /v1/leases`. */
export const leasesQuery = z.strictObject({
  ended: z.enum(['true', 'false'], 'expected true or false').optional().describe('true: only leases that have ended, but whose droplets are not being destroyed yet'),
  without: z.enum(['true', 'false'], 'expected true or false').optional().describe('true: droplets without a lease instead'),
  limit: rowsLimit,
});

const leaseRow = z
  .object({
    sagaId: z.uuid().describe('the saga that provisioned or adopted the droplet'),
    dropletId: z.int().nullable(),
    name: z.string(),
    requestedBy: z.string().nullable(),
    state: z.enum(['leased', 'ended', 'protected', 'expired', 'none'] as const satisfies readonly LeaseRow['state'][]),
    leaseUntil: answerTime.nullable(),
    leaseLimit: answerTime.nullable(),
    generation: z.int(),
    isWarned: z.boolean().describe('a worker has warned that the lease ends soon'),
    expiredAt: answerTime.nullable(),
    destroyedBy: z.uuid().nullable(),
    approvedAt: answerTime.nullable(),
    approvedBy: z.string().nullable(),
  })
  .describe('A droplet with its lease, or without one');

export const leasesAnswer = z.object({ leases: z.array(leaseRow), more });

/** Body of `POST /v1/leases/approve`. */
export const approveLeasesBody = z
  .strictObject({
    leases: z
      .array(
        z.strictObject({
          saga_id: z.uuid('expected the UUID of a saga').describe('the saga that provisioned or adopted the droplet'),
          generation: z.int().min(0).max(2_147_483_647).describe('the generation that the list showed: a lease that was renewed since has a higher one'),
        }),
      )
      .min(1)
      .max(1_000)
      .optional()
      .describe('the leases, as GET /v1/leases?ended=true lists them. One that was renewed since is left alone, even if it has ended again'),
    saga_ids: z
      .array(z.uuid('expected the UUID of a saga'))
      .min(1)
      .max(1_000)
      .optional()
      .describe('use leases instead. The sagas that provisioned or adopted the droplets: approves each of their leases that has ended when the request arrives, even one that was renewed since the list was read')
      .meta({ deprecated: true }),
  })
  .refine(({ leases, saga_ids: sagaIds }) => (leases === undefined) !== (sagaIds === undefined), { error: 'expected either leases or saga_ids', path: ['leases'] })
  .meta({ oneOf: [{ required: ['leases'] }, { required: ['saga_ids'] }], examples: [{ leases: [{ saga_id: '7f9c24e8-3b12-4fef-91e0-56a2d5a1c1b7', generation: 1 }] }] });

export const approvedLeasesAnswer = z.object({ approved: z.array(z.uuid()).describe('those for whose leases this holds') });
