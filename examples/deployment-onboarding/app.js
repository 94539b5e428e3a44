// The droplet steps, and one of one's own after them: a droplet that is active is entered into billing.
import { StepFailure, defineApp, defineSaga, defineStep, done } from 'arcadia-cloud/engine';
import { createDroplet, destroyDroplet, dropletDeps, provisionDroplet, registerDroplet, waitDropletActive } from 'arcadia-cloud/droplets';
import { z } from 'zod';

const announceToBilling = defineStep({
  name: 'announce_to_billing',
  words: { doing: 'telling billing', provider: 'billing' },
  needs: z.object({ droplet_id: z.int(), public_ipv4: z.ipv4() }),
  adds: z.object({ subscription_id: z.string() }),
  async execute({ context, once }, { billing }) {
    const id = await once('subscription', {
      send: (mark) => billing.subscribe({ droplet: context.droplet_id, address: context.public_ipv4, reference: mark }),
      find: (mark) => billing.findByReference(mark),
      settleMs: 5_000,
      pollMs: 500,
    });
    return done({ subscription_id: id }, `subscribed as ${id}`);
  },
  async compensate({ undo }, { billing }) {
    await undo('subscription', { undo: (id) => billing.cancel(id), find: (mark) => billing.findByReference(mark), settleMs: 5_000, pollMs: 500 });
    return done();
  },
});

const onboardDeployment = defineSaga({
  name: 'onboard_deployment',
  input: provisionDroplet.input,
  secrets: ['user_data'],
  steps: [createDroplet, waitDropletActive, registerDroplet, announceToBilling],
  resource: ({ context }) => (context.droplet_id === undefined ? null : `droplet:${context.droplet_id}`),
  subject: ({ input, context }) => ({ kind: 'droplet', name: input.name, id: context.droplet_id }),
  words: {
    completed: ({ context }) => `The deployment runs on droplet ${context.droplet_id}.`,
    cancelled: ({ context }) => (context.droplet_id === undefined ? 'What was begun is undone.' : `Droplet ${context.droplet_id} is destroyed with all its data.`),
    // If a step left something, such as a droplet that may be this saga's, its sentence stands here instead.
    rolledBack: () => 'Rolled back. Nothing is left.',
  },
});

/** Billing, at `BILLING_URL`. */
function billingAt(url) {
  const ask = async (method, path, body) => {
    const response = await fetch(url + path, { method, headers: { 'content-type': 'application/json' }, ...(body && { body: JSON.stringify(body) }), signal: AbortSignal.timeout(5_000) });
    if (response.status === 404 && method !== 'POST') return null;
    if (response.ok) return response.json();
    const message = `billing: ${method} ${path}: ${response.status}`;
    // A refusal is an answer: nothing happened. Anything else may have happened.
    throw response.status < 500 ? new StepFailure({ code: 'billing_refused', message, retryable: false, sent: false }) : new Error(message);
  };
  return {
    subscribe: async (subscription) => (await ask('POST', '/subscriptions', subscription)).id,
    findByReference: async (reference) => (await ask('GET', `/subscriptions?reference=${reference}`))?.id ?? null,
    cancel: (id) => ask('DELETE', `/subscriptions/${id}`),
  };
}

export default defineApp({
  sagas: [provisionDroplet, destroyDroplet, onboardDeployment],
  deps: async (context) => ({ ...(await dropletDeps(context)), billing: billingAt(process.env.BILLING_URL ?? 'http://127.0.0.1:8098') }),
});
