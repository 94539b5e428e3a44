// A saga of one's own: a site gets a name, an account and its page, at a service that is asked over HTTP.
import { StepFailure, defineApp, defineSaga, defineStep, done } from 'arcadia-cloud/engine';
import { z } from 'zod';

// A cancel does not stop a request on its way: its effect may appear after the rollback has begun. `undo` waits for it. It
// gives up after settleMs, which is longer than WORKER_LOCK_MS (30 s) and than the service takes.
const patience = { settleMs: 40_000, pollMs: 500 };

const reserveName = defineStep({
  name: 'reserve_name',
  needs: z.object({ name: z.string() }),
  async execute({ context, once }, { sites }) {
    await once('name', {
      send: async (mark) => (await sites.ask('PUT', `/names/${context.name}`, { owner: mark })).owner,
      find: (mark) => sites.findName(context.name, mark),
      ...patience,
    });
    return done();
  },
  async compensate({ context, undo }, { sites }) {
    await undo('name', {
      undo: (owner) => sites.ask('DELETE', `/names/${context.name}?owner=${owner}`),
      find: (mark) => sites.findName(context.name, mark),
      ...patience,
    });
    return done();
  },
});

// To open an account twice would cost money twice.
const openAccount = defineStep({
  name: 'open_account',
  needs: z.object({ name: z.string(), plan: z.string() }),
  adds: z.object({ account_id: z.int() }),
  async execute({ context, once }, { sites }) {
    const id = await once('account', {
      send: async (mark) => (await sites.ask('POST', '/accounts', { name: context.name, plan: context.plan, reference: mark })).id,
      find: (mark) => sites.findAccount(mark),
      ...patience,
    });
    return done({ account_id: id }, `opened account ${id}`);
  },
  async compensate({ undo }, { sites }) {
    await undo('account', { undo: (id) => sites.ask('DELETE', `/accounts/${id}`), find: (mark) => sites.findAccount(mark), ...patience });
    return done();
  },
});

const publishPage = defineStep({
  name: 'publish_page',
  needs: z.object({ name: z.string(), account_id: z.int() }),
  async execute({ context, once }, { sites }) {
    await once('page', {
      send: async (mark) => (await sites.ask('PUT', `/pages/${context.name}`, { account: context.account_id, reference: mark })).reference,
      find: (mark) => sites.findPage(context.name, mark),
      ...patience,
    });
    return done();
  },
  async compensate({ context, undo }, { sites }) {
    await undo('page', { undo: () => sites.ask('DELETE', `/pages/${context.name}`), find: (mark) => sites.findPage(context.name, mark), ...patience });
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
  return {
    ask,
    findName: async (name, owner) => (await ask('GET', `/names/${name}?owner=${owner}`))?.owner ?? null,
    findAccount: async (reference) => (await ask('GET', `/accounts?reference=${reference}`))?.id ?? null,
    findPage: async (name, reference) => (await ask('GET', `/pages/${name}?reference=${reference}`))?.reference ?? null,
  };
}

export default defineApp({ sagas: [openSite], deps: () => ({ sites: sitesAt(process.env.SITES_URL ?? 'http://127.0.0.1:8099') }) });
