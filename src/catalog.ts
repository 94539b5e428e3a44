// The sagas, as data: what each takes, and its steps in order.
import { checkCatalog } from './saga/definition.ts';
import { createDroplet } from './steps/create-droplet.ts';
import { destroyDroplet } from './steps/destroy-droplet.ts';
import { destroyDropletInput, provisionDropletInput } from './steps/inputs.ts';
import { registerDroplet } from './steps/register-droplet.ts';
import { waitDropletActive } from './steps/wait-droplet-active.ts';
import { destroyWords, provisionWords } from './steps/words.ts';

export const catalog = checkCatalog({
  provision_droplet: { input: provisionDropletInput, steps: [createDroplet, waitDropletActive, registerDroplet], words: provisionWords },
  destroy_droplet: { input: destroyDropletInput, steps: [destroyDroplet], words: destroyWords, isDestructive: true },
});
