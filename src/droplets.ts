// The droplet sagas and their steps, for apps that have them beside their own: `arcadia-cloud/droplets`.
export { dropletApp } from './droplets/app.ts';
export { dropletDeps } from './droplets/deps.ts';
export { adoptDroplet, destroyDroplet, provisionDroplet } from './steps/catalog.ts';
export { createDroplet } from './steps/create-droplet.ts';
export type { StepDeps as DropletDeps } from './steps/deps.ts';
export { destroyDroplet as destroyDropletStep } from './steps/destroy-droplet.ts';
export { registerAdoptedDroplet } from './steps/register-adopted-droplet.ts';
export { registerDroplet } from './steps/register-droplet.ts';
export { tagDroplet } from './steps/tag-droplet.ts';
export { waitDropletActive } from './steps/wait-droplet-active.ts';
export { waitDropletReady } from './steps/wait-droplet-ready.ts';
export { dropletFamily } from './steps/family.ts';
