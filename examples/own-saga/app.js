// A saga of one's own: a site gets a name, an account and its page, at a service that is asked over HTTP.
import { StepFailure, defineApp, defineSaga, defineStep, done } from 'arcadia-cloud/engine';
import { z } from 'zod';

const reserveName = defineStep({
  name: 'reserve_name',
  needs: z.object({ name: z.string() }),
  async execute({ context, saga }, { sites }) {
    await sites.ask('PUT', `/names/${context.name}`, { owner: saga.id });
    return done();
  },
  async compensate({ context, saga }, { sites }) {
    await sites.ask('DELETE', `/names/${context.name}?owner=${saga.id}`);
    return done();
  },
});

// To open an account twice would cost money twice: it goes through `once`.
const openAccount = defineStep({
  name: 'open_account',
  needs: z.object({ name: z.string(), plan: z.string() }),
  adds: z.object({ account_id: z.int() }),
  async execute({ context, once }, { sites }) {
    const id = await once('account', {
      send: async (mark) => (await sites.ask('POST', '/accounts', { name: context.name, plan: context.plan, reference: mark })).id,
      find: (mark) => sites.findAccount(mark),
      settleMs: 5_000,
      pollMs: 500,
    });
    return done({ account_id: id }, `opened account ${id}`);
  },
  async compensate({ undo }, { sites }) {
    await undo('account', { undo: (id) => sites.ask('DELETE', `/accounts/${id}`), find: (mark) => sites.findAccount(mark), settleMs: 5_000, pollMs: 500 });
    return done();
  },
});

const publishPage = defineStep({
  name: 'publish_page',
  needs: z.object({ name: z.string(), account_id: z.int() }),
  async execute({ context }, { sites }) {
    await sites.ask('PUT', `/pages/${context.name}`, { account: context.account_id });
    return done();
  },
  async compensate({ context }, { sites }) {
    await sites.ask('DELETE', `/pages/${context.name}`);
    return done();
  },
});

const openSite = defineSaga({
  name: 'open_site',
  input: z.strictObject({ name: z.string().regex(/^[a-z-]+$/), plan: z.enum(['small', 'large']).default('small') }),
  steps: [reserveName, openAccount, publishPage],
  resource: ({ input }) => `site:${input.name}`,
  subject: ({ input, context }) => ({ kind: 'account', name: input.name, id: context.account_id }),
  words: { completed: ({ input }) => `${input.name} is open.`, cancelled: ({ input }) => `${input.name} is closed, and its name is free again.` },
});

/** The service. A refusal is an answer, so nothing happened; silence is not. */
function sitesAt(url) {
  const ask = async (method, path, body) => {
    const response = await fetch(url + path, { method, headers: { 'content-type': 'application/json' }, ...(body && { body: JSON.stringify(body) }), signal: AbortSignal.timeout(5_000) });
    if (response.status === 404 && (method === 'GET' || method === 'DELETE')) return null;
    if (response.ok) return response.json();
    const message = `${method} ${path}: ${response.status} ${await response.text()}`;
    throw response.status < 500 ? new StepFailure({ code: 'refused', message, retryable: false, sent: false }) : new Error(message);
  };
  return { ask, findAccount: async (reference) => (await ask('GET', `/accounts?reference=${reference}`))?.id ?? null };
}

export default defineApp({ sagas: [openSite], deps: () => ({ sites: sitesAt(process.env.SITES_URL ?? 'http://127.0.0.1:8099') }) });
