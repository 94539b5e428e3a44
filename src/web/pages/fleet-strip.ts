// The strip at the top of every page: the conditions that keep the fleet from its work. Empty while all is well.
import type { Condition } from '../../fleet/condition.ts';
import type { FleetStatus } from '../../fleet/conditions.ts';
import type { Html } from '../html.ts';
import { html } from '../html.ts';
import { withCode } from './parts.ts';
import { ago, inTime } from './times.ts';

/** Renders the strip. Its container is always present, so that the script can fill it. */
export function renderStrip(status: FleetStatus | null): Html {
  if (status === null || status.conditions.length === 0) return html`<div id="fleet"></div>`;
  const { at, conditions } = status;
  return html`<section id="fleet" class="strip" aria-label="State of the fleet"><ul>${conditions.map((condition) => entry(condition, at))}</ul></section>`;
}

const signs: Readonly<Record<Condition['severity'], string>> = { critical: '!', warning: '!', info: 'i' };

function entry(condition: Condition, now: Date): Html {
  const { name, severity, title, detail, action, since, until } = condition;
  return html`<li class="${severity}"><span class="sign" aria-hidden="true">${signs[severity]}</span><div><p><b>${title}.</b> ${withCode(detail)}${since === null || name === 'no_worker' ? null : html` <span class="times">Since ${ago(since, now)}.</span>`}${until === null ? null : html` <span class="times">${name === 'budget_used_up' ? 'Room' : 'Asked again'} ${inTime(until.getTime() - now.getTime(), now)}.</span>`}</p><p class="action">${withCode(action)} ${link(condition)}</p></div></li>`;
}

function link({ name }: Condition): Html | null {
  if (name === 'sagas_stuck') return html`<a href="/sagas?status=stuck">Sagas that need attention</a>`;
  if (name === 'queue_paused') return html`<a href="/queues">Queues</a>`;
  if (name === 'leases_held') return html`<a href="/leases?state=held">Held leases</a>`;
  if (name === 'lease_ended_protected') return html`<a href="/leases?state=ended">Ended leases</a>`;
  return null;
}
