// What the droplet sagas say to people: how they ended, what a cancel does, and what is left where a person is needed.
import { textOf } from '../platform/json.ts';
import { shortTextOf } from '../platform/text.ts';
import type { SagaEnd, SagaFacts, SagaWords, Subject } from '../saga/saga-words.ts';
import { dropletTextOf, recordedDropletId } from '../inventory/droplet-of-saga.ts';
import { PROTECTED_CODE } from '../inventory/protection.ts';
import { describeRolledBack } from './rolled-back.ts';
import { describeBilled, listBilled } from './still-billed-words.ts';

const causes = 'the token and its scopes, a lock or a running action on the droplet, a limit of the account';

export const provisionWords: SagaWords = {
  subject,
  outputs: ({ context }) => ({ name: 'Addresses', values: ['public_ipv4', 'private_ipv4', 'public_ipv6'].map((key) => shortTextOf(context[key])).filter((address) => address !== '') }),
  cancelDestroys: (saga) => recordedDropletId(saga) !== null,
  causes,
  completed: (saga) => {
    const address = textOf(saga.context['public_ipv4'] ?? saga.context['private_ipv4'] ?? saga.context['public_ipv6']);
    return `${dropletOf(saga)} is ready${address === '' ? '' : ` at ${address}`}.`;
  },
  cancelled: (saga) => (recordedDropletId(saga) === null ? 'If it has created a droplet by then, the droplet is destroyed.' : `${dropletOf(saga)} is destroyed with all its data.`),
  rolledBack: describeRolledBack,
  stuck: (saga) => `${recordedDropletId(saga) === null ? 'A droplet' : dropletOf(saga)} may still exist and cost money.`,
};

export const destroyWords: SagaWords = {
  subject,
  causes: `the droplet's protection, ${causes}`,
  completed: (saga) =>
    `${saga.context['destroy_result'] === 'already_gone' ? `Droplet ${dropletTextOf(saga)} no longer existed.` : `Droplet ${dropletTextOf(saga)} is destroyed.`}${billedSentence(saga)}`,
  outputs: (saga) => ({ name: 'Still billed', values: listBilled(saga) }),
  cancelled: (saga) => `Droplet ${dropletTextOf(saga)} is kept, unless DigitalOcean has already accepted its deletion. A destroyed droplet cannot be restored.`,
  rolledBack: (saga) => {
    if (saga.context['destroy_result'] === 'destroyed') {
      return { text: `The cancel came too late: droplet ${dropletTextOf(saga)} is destroyed.${billedSentence(saga)}`, label: 'destroyed', tone: 'plain' };
    }
    if (saga.context['destroy_result'] === 'already_gone') return { text: `Nothing was destroyed: droplet ${dropletTextOf(saga)} does not exist.`, label: 'nothing destroyed', tone: 'plain' };
    return notDestroyed(saga);
  },
  stuck: (saga) => (saga.error?.code === PROTECTED_CODE ? `Droplet ${dropletTextOf(saga)} is protected.` : `Droplet ${dropletTextOf(saga)} may still exist and cost money.`),
};

export const adoptWords: SagaWords = {
  subject,
  causes: 'the token and its scopes',
  completed: (saga) => `Droplet ${dropletTextOf(saga)} is managed now.`,
  cancelled: (saga) => `Droplet ${dropletTextOf(saga)} is kept. Our tags are taken off it, and it is not managed.`,
  rolledBack: (saga) => `Rolled back. Droplet ${dropletTextOf(saga)} was not adopted, and was not changed otherwise.`,
  stuck: (saga) => `Droplet ${dropletTextOf(saga)} may still carry our tags. It is not destroyed because of them.`,
};

/** What came of a destruction that was rolled back: the droplet is still there, or is destroyed all the same; null: neither. */
export function describeDestruction(saga: SagaFacts): SagaEnd | null {
  const result = saga.context['destroy_result'];
  if (result === 'not_destroyed') return notDestroyed(saga);
  if (result !== 'destroyed') return null;
  return { text: `Droplet ${dropletTextOf(saga)} was destroyed, and cannot be restored.${billedSentence(saga)}`, label: 'destroyed', tone: 'attention', rerunIsSafe: true };
}

function notDestroyed(saga: SagaFacts): SagaEnd {
  const isUnknown = saga.error?.code === 'droplet_unknown';
  return {
    text: isUnknown ? `Nothing was destroyed: droplet ${dropletTextOf(saga)} is unknown.` : `Droplet ${dropletTextOf(saga)} was not destroyed.`,
    label: isUnknown ? 'nothing destroyed' : 'not destroyed',
    tone: 'attention',
    rerunIsSafe: true,
  };
}

/** What stays billed, as a sentence after another; empty where nothing does. */
function billedSentence(saga: SagaFacts): string {
  const billed = describeBilled(saga);
  return billed === null ? '' : ` ${billed.charAt(0).toUpperCase()}${billed.slice(1)}.`;
}

function subject(saga: SagaFacts): Subject {
  return { kind: 'droplet', name: shortTextOf(saga.input['name']) || null, id: dropletTextOf(saga) || null };
}

function dropletOf(saga: SagaFacts): string {
  const id = dropletTextOf(saga);
  return id === '' ? 'The droplet' : `Droplet ${id}`;
}
