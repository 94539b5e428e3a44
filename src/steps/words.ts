// What the droplet sagas say to people: how they ended, what a cancel does, and what is left where a person is needed.
import { textOf } from '../platform/json.ts';
import { shortTextOf } from '../platform/text.ts';
import type { SagaFacts, SagaWords, Subject } from '../saga/words.ts';
import { dropletTextOf, recordedDropletId } from '../inventory/droplet-of-saga.ts';
import { unprovenDroplets } from './intents.ts';

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
  cancelled: (saga) => (recordedDropletId(saga) === null ? 'A droplet that it makes meanwhile is destroyed.' : `${dropletOf(saga)} is destroyed, with all data on it.`),
  rolledBack: (saga) => {
    const unproven = unprovenDroplets(saga);
    if (unproven.length === 0) return 'Rolled back: nothing of it is left.';
    return {
      text:
        `Rolled back, but look at ${unproven.length === 1 ? 'droplet' : 'droplets'} ${unproven.join(', ')} at DigitalOcean. ` +
        'It may belong to this saga: it has the saga\'s name, but not its full id, so it was left alone. Destroy it by hand if it does.',
      label: 'look at its droplet',
      tone: 'attention',
    };
  },
  stuck: (saga) => `${recordedDropletId(saga) === null ? 'A droplet' : dropletOf(saga)} may be left, and cost money.`,
};

export const destroyWords: SagaWords = {
  subject,
  causes,
  completed: (saga) =>
    saga.context['destroy_result'] === 'already_gone' ? `Nothing to destroy: droplet ${dropletTextOf(saga)} was gone already.` : `Droplet ${dropletTextOf(saga)} is destroyed.`,
  cancelled: (saga) => `Droplet ${dropletTextOf(saga)} is left as it is, unless DigitalOcean has accepted its deletion already: what is destroyed stays destroyed.`,
  rolledBack: (saga) => {
    if (saga.context['destroy_result'] === 'destroyed') {
      return { text: `The cancel came too late: droplet ${dropletTextOf(saga)} is destroyed.`, label: 'destroyed', tone: 'plain' };
    }
    if (saga.context['destroy_result'] === 'already_gone') return { text: `Nothing was destroyed: there is no droplet ${dropletTextOf(saga)}.`, label: 'nothing destroyed', tone: 'plain' };
    const isUnknown = saga.error?.code === 'droplet_unknown';
    return {
      text: isUnknown ? `Nothing was destroyed: no droplet ${dropletTextOf(saga)} is known.` : `Droplet ${dropletTextOf(saga)} was not destroyed.`,
      label: isUnknown ? 'nothing destroyed' : 'not destroyed',
      tone: 'attention',
    };
  },
  stuck: (saga) => `Droplet ${dropletTextOf(saga)} is not destroyed, and costs money.`,
};

function subject(saga: SagaFacts): Subject {
  return { kind: 'droplet', name: shortTextOf(saga.input['name']) || null, id: dropletTextOf(saga) || null };
}

function dropletOf(saga: SagaFacts): string {
  const id = dropletTextOf(saga);
  return id === '' ? 'The droplet' : `Droplet ${id}`;
}
