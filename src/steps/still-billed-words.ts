// Describes what stays billed after a droplet was destroyed.
import { z } from 'zod';
import type { Json } from '../platform/json.ts';
import { shortTextOf } from '../platform/text.ts';
import type { Saga } from '../saga/saga.ts';
import type { StillBilled } from './outputs.ts';
import { stillBilledSchema } from './outputs.ts';

/** The value in the saga's context; null: it could not be read. */
export const STILL_BILLED = 'still_billed';

const kinds: Readonly<Record<StillBilled['kind'], string>> = { volume: 'volume', snapshot: 'snapshot', volume_snapshot: 'snapshot of a volume', reserved_ip: 'reserved IP' };

const MOST_SHOWN = 5;

/** Describes it, such as `still billed: volume data (10.00 USD a month)`; null: nothing, or unknown. */
export function describeBilled(saga: Pick<Saga, 'context'>): string | null {
  const billed = billedOf(saga);
  if (billed === 'unread') return 'what stays billed could not be read';
  if (billed === null || billed.length === 0) return null;
  const more = billed.length > MOST_SHOWN ? ` and ${billed.length - MOST_SHOWN} more` : '';
  return `still billed: ${billed.slice(0, MOST_SHOWN).map(inWords).join(', ')}${more}`;
}

/** Returns the same as a list, for a page. */
export function listBilled(saga: Pick<Saga, 'context'>): string[] {
  const billed = billedOf(saga);
  if (billed === 'unread') return ['could not be read'];
  return (billed ?? []).map(inWords);
}

function billedOf({ context }: Pick<Saga, 'context'>): readonly StillBilled[] | 'unread' | null {
  const stored: Json | undefined = context[STILL_BILLED];
  if (stored === undefined) return null;
  return z.array(stillBilledSchema).safeParse(stored).data ?? 'unread';
}

function inWords({ kind, name, usd_per_month: price }: StillBilled): string {
  return `${kinds[kind]} ${shortTextOf(name)}${price === null ? '' : ` (${price.toFixed(2)} USD a month)`}`;
}
