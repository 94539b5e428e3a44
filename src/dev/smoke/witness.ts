// The witness at the gate records each create before it is sent, each droplet before its worker sees it, and each
// deletion. Its record shows what the smoke test created, whatever the sagas know.
import { z } from 'zod';
import type { OutcomeKind } from '../../do/outcome.ts';
import { classify } from '../../do/outcome.ts';
import { isSagaTag } from '../../steps/tags.ts';
import { printable } from '../../platform/text.ts';
import type { GateAnswer, GateRequest, GateWatch } from './gate.ts';
import type { MadeDroplet, StateFile } from './state.ts';
import { openCreates, withAnswer, withDroplet, withNewDroplet } from './state.ts';

/** A droplet that was just created, or whose deletion was just accepted. `atMs` is by the clock of `performance.now()`. */
export type Sighting = Readonly<{ droplet: MadeDroplet; atMs: number }>;

export type Witness = GateWatch &
  Readonly<{
    /** Runs once between DigitalOcean's response to the create of a droplet with this name and the worker. */
    onCreated(name: string, then: () => Promise<'pass' | 'lose'>): void;
    onMade(listener: (sighting: Sighting) => void): void;
    onDeleted(listener: (sighting: Sighting) => void): void;
  }>;

// After these, DigitalOcean has created nothing.
const refusals: ReadonlySet<OutcomeKind> = new Set(['rejected', 'throttled', 'unauthorized']);

const createBody = z.object({ name: z.string(), tags: z.array(z.string()).catch([]) });
const shown = z.object({ id: z.int().positive(), name: z.string(), tags: z.array(z.string()).catch([]) });
const oneDroplet = z.object({ droplet: shown });
const manyDroplets = z.object({ droplets: z.array(shown) });

/**
 * Creates the witness. Workers may create and delete only the droplets of the smoke test, whatever the database tells them.
 *
 * @param mayMake how many droplets the run may make at most, none where it only finishes an earlier run; a saga repeats a create whose droplet does not appear
 */
export function createWitness(state: StateFile, mayMake: number): Witness {
  const afterCreate = new Map<string, () => Promise<'pass' | 'lose'>>();
  const madeListeners: ((sighting: Sighting) => void)[] = [];
  const deletedListeners: ((sighting: Sighting) => void)[] = [];
  const madeAtMs = new Map<number, number>();
  const wasPending = new Set<number>();
  const placeOf = new WeakMap<GateRequest, number>();

  const isOurName = (name: string): boolean => state.read().acts.some((act) => act.dropletName === name);
  const known = (id: number): MadeDroplet | undefined => state.read().droplets.find((droplet) => droplet.id === id);

  /** `place`: that of the create that was answered with the droplet; null: another answer shows it. */
  const learn = async (found: z.infer<typeof shown>, tags: readonly string[], place: number | null): Promise<void> => {
    if (!isOurName(found.name)) return;
    if (known(found.id) !== undefined) {
      if (place !== null && state.read().creates[place]?.dropletId !== found.id) await state.change('create is answered', (current) => withAnswer(current, place, found.id));
      return;
    }
    const atMs = performance.now();
    await state.change('droplet made', (current) => withNewDroplet(current, { id: found.id, name: found.name, tags: [...new Set([...found.tags, ...tags])] }, place));
    madeAtMs.set(found.id, atMs);
    const droplet = known(found.id);
    if (droplet !== undefined) for (const tell of madeListeners) tell({ droplet, atMs });
  };

  const learnAll = async (body: unknown): Promise<void> => {
    const one = oneDroplet.safeParse(body).data?.droplet;
    for (const found of one === undefined ? (manyDroplets.safeParse(body).data?.droplets ?? []) : [one]) await learn(found, [], null);
  };

  const deleted = async (id: number): Promise<void> => {
    const droplet = known(id);
    if (droplet === undefined || droplet.deletedAt !== null) return;
    const atMs = performance.now();
    const sinceMadeMs = Math.round(atMs - (madeAtMs.get(id) ?? atMs));
    // For a droplet deleted long after it became active, the response shows no lag.
    const isEarly = state.read().acts.some(({ act, dropletName }) => act === 'cancel' && dropletName === droplet.name);
    const pendingEventMs = wasPending.has(id) ? sinceMadeMs : isEarly ? 0 : null;
    await state.change('deletion accepted', (current) => withDroplet(current, id, (one) => ({ ...one, deletedAt: new Date().toISOString(), lags: { ...one.lags, pendingEventMs } })));
    for (const tell of deletedListeners) tell({ droplet, atMs });
  };

  const gone = async (id: number): Promise<void> => {
    const droplet = known(id);
    if (droplet === undefined || droplet.deletedAt === null || droplet.goneAt !== null) return;
    await state.change('droplet gone', (current) => withDroplet(current, id, (one) => ({ ...one, goneAt: new Date().toISOString() })));
  };

  const judge = ({ method, path, body }: GateRequest): string | null => {
    if (method === 'GET') return null;
    // It would destroy everything that carries a tag.
    if (method === 'DELETE' && path.replace(/\/+$/, '') === '/v2/droplets') return 'the smoke deletes droplets by their ids alone';
    if (method === 'POST' && path === '/v2/droplets') return refusalOfCreate(createBody.safeParse(body).data?.name ?? null);
    const id = dropletIdIn(path);
    if (method === 'DELETE' && id !== null) return known(id) === undefined ? `droplet ${id} was not made by the smoke` : null;
    const tag = /^\/v2\/tags\/([^/]+)$/.exec(path)?.[1];
    if (method === 'DELETE' && tag !== undefined) return refusalOfTag(tag);
    return `${method} ${path} is no request of the smoke`;
  };

  const refusalOfTag = (tag: string): string | null => {
    const owner = isSagaTag(tag) ? state.read().droplets.find(({ tags }) => tags.includes(tag)) : undefined;
    if (owner === undefined) return `tag ${tag} was not made by the smoke`;
    // It proves whose a droplet is that may still appear.
    return openCreates(state.read(), new Date()).some(({ name }) => name === owner.name) ? `tag ${tag} is still needed` : null;
  };
  const refusalOfCreate = (name: string | null): string | null => {
    if (name === null || !isOurName(name)) return `${name === null ? 'a create without a name' : `droplet ${printable(name)}`} is not of the smoke test that runs on this database; start it again once that is over`;
    if (mayMake === 0) return `droplet ${name} is not made: this run only finishes an earlier one`;
    const mayExist = state.read().creates.filter(({ isRefused }) => !isRefused).length;
    return mayExist < mayMake ? null : `droplet ${name} would be number ${mayExist + 1} of this run, and --max-usd pays for ${mayMake}: an earlier create was not answered in time`;
  };

  return {
    onRequest: async (request) => {
      const refusal = judge(request);
      if (refusal !== null) {
        // A worker's tag cleanup is not a fault: the run deletes its own tags.
        if (!(request.method === 'DELETE' && request.path.startsWith('/v2/tags/'))) await record(`${request.method} ${request.path}: ${refusal}`);
        return refusal;
      }
      if (request.method !== 'POST' || request.path !== '/v2/droplets') return null;
      const { name } = createBody.parse(request.body);
      await state.change('create is sent', (current) => {
        placeOf.set(request, current.creates.length);
        return { ...current, creates: [...current.creates, { name, at: new Date().toISOString(), isRefused: false, dropletId: null }] };
      });
      return null;
    },
    onAnswer: async (request, answer) => {
      const id = dropletIdIn(request.path);
      if (request.method === 'POST' && request.path === '/v2/droplets') return afterPost(request, answer);
      if (request.method === 'GET' && answer.status === 200) await learnAll(answer.body);
      if (id !== null && request.method === 'GET' && answer.status === 404) await gone(id);
      if (id !== null && request.method === 'DELETE' && answer.status === 422) wasPending.add(id);
      if (id !== null && request.method === 'DELETE' && answer.status === 204) await deleted(id);
      return 'pass';
    },
    onCreated: (name, then) => void afterCreate.set(name, then),
    onMade: (listener) => void madeListeners.push(listener),
    onDeleted: (listener) => void deletedListeners.push(listener),
  };

  /** In the state, so that the receipt has it even if this call is killed. */
  async function record(refusal: string): Promise<void> {
    if (state.read().refused.includes(refusal)) return;
    await state.change('request is refused', (current) => ({ ...current, refused: [...new Set([...current.refused, refusal])] }));
  }

  async function afterPost(request: GateRequest, answer: GateAnswer): Promise<'pass' | 'lose'> {
    const made = answer.status === 202 ? oneDroplet.safeParse(answer.body).data?.droplet : undefined;
    const place = placeOf.get(request) ?? null;
    if (made === undefined) {
      const isRefused = refusals.has(classify('POST', { status: answer.status, body: 'invalid' }));
      if (isRefused) await state.change('create is refused', (current) => ({ ...current, creates: current.creates.map((one, index) => (index === place ? { ...one, isRefused } : one)) }));
      return 'pass';
    }
    // DigitalOcean tags a droplet after it has responded.
    await learn(made, createBody.safeParse(request.body).data?.tags ?? [], place);
    const then = afterCreate.get(made.name);
    afterCreate.delete(made.name);
    return then === undefined ? 'pass' : then();
  }
}

function dropletIdIn(path: string): number | null {
  const id = /^\/v2\/droplets\/(\d+)\/?$/.exec(path)?.[1];
  return id === undefined ? null : Number(id);
}
