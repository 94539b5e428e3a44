// The droplet sagas, as data: what each takes, and its steps in order.
import { dropletIdOf, dropletLabels } from '../inventory/droplet-of-saga.ts';
import { defineSaga } from '../saga/app.ts';
import { checkCatalog } from '../saga/definition.ts';
import type { SagaFacts } from '../saga/saga-words.ts';
import { adoptContract, destroyContract, provisionContract } from './contract.ts';
import { createDroplet } from './create-droplet.ts';
import { destroyDroplet as destroyDropletStep } from './destroy-droplet.ts';
import { registerDroplet } from './register-droplet.ts';
import { registerAdoptedDroplet } from './register-adopted-droplet.ts';
import { tagDroplet } from './tag-droplet.ts';
import { waitDropletActive } from './wait-droplet-active.ts';
import { waitDropletReady } from './wait-droplet-ready.ts';
import { adoptWords, destroyWords, provisionWords } from './words.ts';

// A destroy that comes while the provision still runs waits for its end, and so does one for another.
const dropletResource = (saga: SagaFacts) => {
  const dropletId = dropletIdOf(saga);
  return dropletId === null ? null : `droplet:${dropletId}`;
};

/** Makes a droplet, waits until it is active and, where that is asked for, ready, and enters it into the inventory. */
export const provisionDroplet = defineSaga({ ...provisionContract, steps: [createDroplet, waitDropletActive, waitDropletReady, registerDroplet], resource: dropletResource, words: provisionWords, labels: dropletLabels });

/** Destroys a droplet that was provisioned or adopted here. */
export const destroyDroplet = { ...defineSaga({ ...destroyContract, steps: [destroyDropletStep], resource: dropletResource, words: destroyWords, isDestructive: true, labels: dropletLabels }), startSufficed: true };

/** Takes a droplet that was made elsewhere under management. It puts the droplet within reach of a destroy, and so needs the same right. */
export const adoptDroplet = defineSaga({ ...adoptContract, steps: [tagDroplet, registerAdoptedDroplet], resource: dropletResource, words: adoptWords, isDestructive: true, labels: dropletLabels });

export const catalog = checkCatalog({ provision_droplet: provisionDroplet, destroy_droplet: destroyDroplet, adopt_droplet: adoptDroplet });
