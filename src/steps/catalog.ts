// The droplet sagas, as data: what each takes, and its steps in order.
import { defineApp, defineSaga } from '../saga/app.ts';
import { checkCatalog } from '../saga/definition.ts';
import { createDroplet } from './create-droplet.ts';
import { dropletDeps } from './deps.ts';
import { destroyDroplet as destroyDropletStep } from './destroy-droplet.ts';
import { destroyDropletInput, provisionDropletInput } from './inputs.ts';
import { registerDroplet } from './register-droplet.ts';
import { waitDropletActive } from './wait-droplet-active.ts';
import { destroyWords, provisionWords } from './words.ts';

// A destroy that comes while the provision still runs waits for its end, and so does one for another.
const resourceOfDroplet = (id: unknown) => (typeof id === 'number' ? `droplet:${id}` : null);

/** Makes a droplet, waits until it is active, and enters it into the inventory. */
export const provisionDroplet = defineSaga({ name: 'provision_droplet', input: provisionDropletInput, steps: [createDroplet, waitDropletActive, registerDroplet], resource: ({ context }) => resourceOfDroplet(context['droplet_id']), words: provisionWords });

/** Destroys a droplet that was provisioned here. */
export const destroyDroplet = defineSaga({ name: 'destroy_droplet', input: destroyDropletInput, steps: [destroyDropletStep], resource: ({ input }) => resourceOfDroplet(input['droplet_id']), words: destroyWords, isDestructive: true });

export const catalog = checkCatalog({ provision_droplet: provisionDroplet, destroy_droplet: destroyDroplet });

/** The app that runs where no other is named: the droplet sagas alone. */
export const dropletApp = defineApp({ sagas: [provisionDroplet, destroyDroplet], deps: dropletDeps });
