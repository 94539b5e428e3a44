// The actions on a droplet: which are possible, their buttons, and their confirmation dialogs.
import type { Drift } from '../../inventory/drift-store.ts';
import type { DropletRecord } from '../../inventory/droplet-record.ts';
import type { Html } from '../html.ts';
import { html } from '../html.ts';
import { dialog } from './dialog.ts';
import { renewalFields } from './lease-choices.ts';
import { hidden } from './parts.ts';

type Action = 'destroy' | 'renew' | 'protect' | 'unprotect' | 'accept' | 'approve' | 'acknowledge' | 'unacknowledge' | 'adopt';

export type DropletActions = Readonly<{
  dropletId: number;
  record: DropletRecord | null;
  /** The actions that make sense for the droplet now, for anybody. */
  can: Readonly<Record<Action, boolean>>;
  /** Those of them for which this person has the scope. */
  may: Readonly<Record<Action, boolean>>;
  /** Why it cannot be destroyed, as a sentence; null: it can be destroyed, or it does not exist. */
  why: Html | string | null;
  /** Part of the idempotency key of the saga that a form starts, so that a form sent twice starts one saga. */
  formId: string;
}>;

/** The saga that destroys a droplet. `isStuck`: it waits for a person, and nobody destroys the droplet meanwhile. */
export type Destruction = Readonly<{ sagaId: string; isStuck: boolean }>;

const actions: readonly Action[] = ['destroy', 'renew', 'protect', 'unprotect', 'accept', 'approve', 'acknowledge', 'unacknowledge', 'adopt'];

/**
 * Finds the actions.
 *
 * @param given.destruction the saga that destroys it, or is stuck with that; null: none
 * @param given.has whether the person has the scope for an action, and the app the saga
 */
export function actionsOf(record: DropletRecord | null, given: { dropletId: number; destruction: Destruction | null; formId: string; has: (action: Action) => boolean }): DropletActions {
  const { dropletId, destruction, formId, has } = given;
  const isBeingDestroyed = destruction !== null;
  const isPresent = record !== null && record.deletedAt === null;
  const isOurs = isPresent && record.isManaged;
  const isFree = isOurs && !isBeingDestroyed;
  const can = {
    destroy: isFree && !record.isProtected,
    renew: isFree && record.leaseUntil !== null && record.leaseExpiredAt === null,
    protect: isFree && !record.isProtected,
    unprotect: isOurs && record.isProtected,
    accept: record !== null && record.isManaged && record.drift.some(({ resolvedAt }) => resolvedAt === null),
    approve: isPresent && record.orphan?.category === 'surplus' && record.orphan.approvedAt === null,
    acknowledge: isPresent && record.orphan?.category === 'unknown' && record.orphan.acknowledgedAt === null,
    unacknowledge: isPresent && record.orphan?.category === 'unknown' && record.orphan.acknowledgedAt !== null,
    adopt: isPresent && !record.isManaged && record.releasedAt === null && record.orphan?.category !== 'surplus' && !isBeingDestroyed,
  };
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the keys of `can`
  const may = Object.fromEntries(actions.map((action) => [action, can[action] && has(action)])) as Record<Action, boolean>;
  return { dropletId, record, can, may, why: isPresent ? whyNot(record, destruction) : null, formId };
}

function whyNot({ isManaged, isProtected, orphan }: DropletRecord, destruction: Destruction | null): Html | string | null {
  if (destruction?.isStuck === true) return html`Its destruction needs attention: see saga <a href="/sagas/${destruction.sagaId}"><code>${destruction.sagaId.slice(0, 8)}</code></a>.`;
  if (destruction !== null) return 'It is being destroyed.';
  if (isManaged) return isProtected ? 'To destroy it, lift its protection first.' : null;
  return orphan === null ? 'arcadia-cloud destroys only what it provisioned or adopted.' : null;
}

/** The buttons beside the title. */
export function buttons({ may }: DropletActions): Html {
  const button = (action: Action, words: string, tone = '') => (may[action] ? html`<button class="${tone}" type="button" popovertarget="${action}">${words}</button>` : null);
  return html`<div class="actions">${button('adopt', 'Adopt…', 'primary')}${button('renew', 'Renew lease…')}${button('protect', 'Protect…')}${button('unprotect', 'Lift protection…')}${button('acknowledge', 'Acknowledge…')}${button('unacknowledge', 'Take acknowledgement back…')}${button('approve', 'Approve destruction…', 'danger')}${button('destroy', 'Destroy…', 'danger')}</div>`;
}

/** The button of an open finding. */
export function acceptButton({ may }: DropletActions, { id, resolvedAt }: Drift): Html | null {
  return may.accept && resolvedAt === null ? html`<button type="button" popovertarget="accept-${id}">Accept…</button>` : null;
}

/** The confirmations. The browser opens them without a script. */
export function dialogs(view: DropletActions, name: string): Html {
  const { dropletId, record, may, formId } = view;
  if (record === null) return html``;
  const path = `/droplets/${dropletId}`;
  const key = hidden([['form', formId]]);
  const reason = html`<label>Reason (kept in the audit) <input name="reason" maxlength="1000" autocomplete="off"></label>`;
  const open = record.drift.filter(({ resolvedAt }) => resolvedAt === null);
  return html`${may.destroy ? dialog({ id: 'destroy', action: `${path}/destroy`, title: `Destroy ${name}?`, no: 'Keep it', yes: 'Destroy it', isDangerous: true }, html`${key}
<p>Droplet <code>${dropletId}</code> is destroyed with all its data. This cannot be undone.</p>
<label>To confirm, type the droplet's id <input name="confirm" required inputmode="numeric" pattern="${dropletId}" title="${dropletId}" autocomplete="off"></label>${reason}`) : null}
${may.renew ? dialog({ id: 'renew', action: `${path}/lease`, title: `Renew the lease of ${name}?`, no: 'Not now', yes: 'Renew' }, renewalFields(record.leaseLimit)) : null}
${may.protect ? dialog({ id: 'protect', action: `${path}/protection`, title: `Protect ${name}?`, no: 'Not now', yes: 'Protect' }, html`${hidden([['protected', 'true']])}<p>Nothing here destroys a protected droplet until somebody lifts its protection, not even the end of its lease.</p>`) : null}
${may.unprotect ? dialog({ id: 'unprotect', action: `${path}/protection`, title: `Lift the protection of ${name}?`, no: 'Keep it', yes: 'Lift protection', isDangerous: true }, html`${hidden([['protected', 'false']])}<p>From then on the droplet can be destroyed.${afterLifting(record)}</p>`) : null}
${may.approve && record.orphan !== null ? dialog({ id: 'approve', action: '/droplets/orphans', title: `Destroy ${name}?`, no: 'Not now', yes: 'Approve', isDangerous: true }, html`${hidden([['id', String(record.orphan.id)], ['back', String(dropletId)]])}<p>It is a surplus droplet: ${record.orphan.reason}. The next sync destroys it after the grace period, if DigitalOcean still lists it, however many others there are. This cannot be undone.</p>`) : null}
${may.acknowledge && record.orphan !== null ? dialog({ id: 'acknowledge', action: '/droplets/orphans/acknowledge', title: `Acknowledge ${name}?`, no: 'Not now', yes: 'Acknowledge' }, html`${hidden([['id', String(record.orphan.id)], ['back', String(dropletId)]])}<p>It is an unknown orphan: ${record.orphan.reason}. Acknowledge it if you know whose it is. It stays listed, and is no longer reported as a problem. Nothing here destroys it.</p>${reason}`) : null}
${may.unacknowledge && record.orphan !== null ? dialog({ id: 'unacknowledge', action: '/droplets/orphans/unacknowledge', title: `Take the acknowledgement of ${name} back?`, no: 'Not now', yes: 'Take it back' }, html`${hidden([['id', String(record.orphan.id)], ['back', String(dropletId)]])}<p>It is reported as a problem again.</p>`) : null}
${may.adopt ? dialog({ id: 'adopt', action: `${path}/adopt`, title: `Adopt ${name}?`, no: 'Not now', yes: 'Adopt' }, html`${key}<p>arcadia-cloud puts its tags on the droplet and manages it from then on. It changes nothing else. What the droplet is now becomes its spec.</p><label class="check"><input type="checkbox" name="protected" value="true" checked> Protect it: nobody here can destroy it before its protection is lifted</label>
<label>Lease, such as 2h or 7d: the droplet is destroyed after this time, unless somebody renews the lease. Empty: no lease <input name="lease" maxlength="20" autocomplete="off"></label>
<label>Longest lease: no renewal goes beyond this time <input name="lease_max" maxlength="20" autocomplete="off"></label>${reason}`) : null}
${may.accept ? open.map(({ id, field, actual, desired }) => dialog({ id: `accept-${id}`, action: `${path}/drift/${id}`, title: `Accept the drift of ${name}?`, no: 'Not now', yes: 'Accept' }, html`${hidden([['actual', actual]])}${field === 'existence' ? html`<p>The droplet is gone. It is no longer expected to exist.</p>` : html`<p><code>${field}</code> is <code>${actual}</code>, and <code>${desired}</code> is desired. From then on <code>${actual}</code> is desired.</p>`}`)) : null}`;
}

/** What happens to a droplet with a lease once its protection is lifted. */
function afterLifting({ leaseUntil, now }: DropletRecord): Html | null {
  if (leaseUntil === null) return null;
  return leaseUntil > now ? html` So it is when its lease ends.` : html` <b>Its lease has ended: it is destroyed within seconds.</b>`;
}
