// The family of the droplet steps. An app with one of them needs a token and has an inventory.
import type { StepFamily } from '../saga/step-family.ts';

export const dropletFamily: StepFamily = { name: 'droplets', needs: ['DIGITALOCEAN_TOKEN'] };
