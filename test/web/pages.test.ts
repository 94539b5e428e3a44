// The pages over HTTP: what stands on them, for whom, and that nothing that a caller wrote becomes HTML. With nobody
// working on the sagas.
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startPrivateRedis } from '../support/services-redis-server.ts';
import { waitFor } from '../support/wait-for.ts';
import { basic, bearer, credentials, droplet, openWebStage, sagaIdOf, secrets } from './stage.ts';
import type { Answer, Web } from './stage.ts';

const HOSTILE = `"><script>alert('x')</script>&`;

let web: Web;
beforeAll(async () => {
  web = await openWebStage(credentials);
});
afterAll(() => web[Symbol.asyncDispose]());

const operator = { ...basic(), accept: 'text/html' };
const viewer = { ...bearer(secrets.read), accept: 'text/html' };
const form = { ...operator, 'content-type': 'application/x-www-form-urlencoded' };

const start = async (input: object = {}, headers: Record<string, string> = {}): Promise<string> =>
  sagaIdOf(await web.call('POST', '/v1/sagas/provision_droplet', { body: { ...droplet, ...input }, headers: { ...basic(), ...headers } }));
const page = async (path: string, headers: Record<string, string> = operator): Promise<string> => (await web.call('GET', path, { headers })).text;
const namesOn = (html: string): string[] => [...html.matchAll(/data-walk>([^<]*)</g)].map(([, name]) => name ?? '');
const linkOn = (html: string, words: string): string => (html.match(new RegExp(`<a [^>]*href="([^"]+)"[^>]*>${words}</a>`))?.[1] ?? '').replaceAll('&amp;', '&');
const setStatus = (id: string, status: string) =>
  web.db.sql`
    update arcadia.sagas
    set status = ${status}, finished_at = case when ${status} = 'completed' then now() end, wake_at = case when ${status} not in ('completed', 'stuck') then wake_at end
    where id = ${id}`;

/** What the form of a bulk action's preview sends. */
const formOn = (preview: string): string =>
  new URLSearchParams([...preview.matchAll(/<input type="(?:hidden|checkbox)" name="([^"]*)" value="([^"]*)"/g)].map(([, name = '', value = '']): [string, string] => [name, value])).toString();

describe('the list', () => {
  test('puts what is stuck first, then what is under way, then what is over, also from page to page', async () => {
    const names: Record<string, string[]> = { stuck: [], running: [], completed: [] };
    for (let index = 0; index < 23; index += 1) {
      for (const status of ['completed', 'stuck', 'running']) {
        const name = `order-${status}-${index}`;
        names[status]?.unshift(name);
        await setStatus(await start({ name }), status);
      }
    }
    const first = await page('/sagas?q=order-');
    const next = /<a rel="next" href="([^"]+)"/.exec(first)?.[1]?.replaceAll('&amp;', '&') ?? '';
    const second = await page(next);
    expect([...namesOn(first), ...namesOn(second)]).toEqual([...(names['stuck'] ?? []), ...(names['running'] ?? []), ...(names['completed'] ?? [])]);
    expect(namesOn(first).length).toBe(50);
    expect(second).not.toContain('rel="next"');
    expect(first).toContain('<b>69</b> all');
    expect(first).toMatch(/class="count stuck telling"[^>]*><b>23<\/b> needs attention/);
  });

  test("finds by a saga's id, its short id, the droplet's id, and by part of its name; and by status, tag and time", async () => {
    const id = await start({ name: 'needle-1', tags: ['team:blue'] });
    await web.db.sql`update arcadia.sagas set context = '{"droplet_id": 31337001}' where id = ${id}`;
    for (const query of [`q=${id}`, `q=${id.slice(0, 8)}`, `q=${id.toUpperCase().slice(0, 8)}`, 'q=31337001', 'q=EEDLE', 'tag=team:blue', 'q=needle&status=pending&status=running']) {
      expect({ query, found: namesOn(await page(`/sagas?${query}`)) }).toEqual({ query, found: ['needle-1'] });
    }
    const soon = new Date(Date.now() + 3_600_000).toISOString().slice(0, 16);
    for (const query of ['q=needle&status=stuck', 'q=3133700', 'q=%25', 'q=needle&name=destroy_droplet', `q=needle&from=${soon}`]) {
      expect({ query, found: namesOn(await page(`/sagas?${query}`)) }).toEqual({ query, found: [] });
    }
    expect(namesOn(await page(`/sagas?q=needle&before=${soon}`))).toEqual(['needle-1']);
    const short = await web.call('GET', `/sagas/${id.slice(0, 8)}`, { headers: operator });
    expect([short.status, short.headers.get('location')]).toEqual([302, `/sagas?q=${id.slice(0, 8)}`]);
  });

  test('sorts by age, either way, over all statuses and from page to page', async () => {
    const names = Array.from({ length: 53 }, (_, index) => `aged-${index}`);
    for (const [index, name] of names.entries()) await setStatus(await start({ name }), ['running', 'completed', 'stuck'][index % 3] ?? 'running');
    for (const [sort, expected] of [['age', names.toReversed()], ['-age', names]] as const) {
      const first = await page(`/sagas?q=aged-&sort=${sort}`);
      const second = await page(/<a rel="next" href="([^"]+)"/.exec(first)?.[1]?.replaceAll('&amp;', '&') ?? '');
      expect([...namesOn(first), ...namesOn(second)]).toEqual(expected);
      expect(first).toContain(`aria-sort="${sort === 'age' ? 'ascending' : 'descending'}"`);
    }
  });

  test.each([
    ['saga', ['Column-1', 'column-2', 'COLUMN-2', 'column-3'], ['unnamed-2', 'unnamed-1']],
    ['about', ['column-3', 'COLUMN-2', 'unnamed-1', 'unnamed-2'], ['column-2', 'Column-1']],
  ] as const)('sorts by the column %s, either way, with what has no value at the end, and walks from saga to saga in that order', async (sort, sorted, rest) => {
    await web.db.sql`delete from arcadia.sagas where input->>'tags' like '%sort-test%'`;
    const ids: Record<string, string> = {};
    for (const [name, dropletId] of [['Column-1', null], ['column-3', 9_000_001], ['column-2', null], ['COLUMN-2', 9_000_002], ['unnamed-1', 9_000_003], ['unnamed-2', 9_000_004]] as const) {
      const id = await start({ name, tags: ['sort-test'] });
      ids[name] = id;
      if (dropletId !== null) await web.db.sql`update arcadia.sagas set context = ${JSON.stringify({ droplet_id: dropletId })}::text::jsonb where id = ${id}`;
      if (name.startsWith('unnamed')) await web.db.sql`update arcadia.sagas set input = input - 'name' where id = ${id}`;
    }
    // The same but for the case: their ids decide.
    const same = (['column-2', 'COLUMN-2'] as const).toSorted((one, other) => ((ids[one] ?? '') < (ids[other] ?? '') ? -1 : 1));
    const byValue = sort === 'saga' ? ['Column-1', ...same, 'column-3'] : [...sorted];
    const nameOf = (id: string) => Object.entries(ids).find(([, one]) => one === id)?.[0] ?? id;
    const listed = (text: string) => [...text.matchAll(/<a href="\/sagas\/([0-9a-f-]{36})[^"]*" data-walk>/g)].map(([, id = '']) => nameOf(id));
    for (const [query, expected] of [[sort, [...byValue, ...rest]], [`-${sort}`, [...byValue.toReversed(), ...rest]]] as const) {
      const first = await page(`/sagas?tag=sort-test&sort=${query}`);
      expect(listed(first)).toEqual(expected);
      expect(first).toMatch(new RegExp(`aria-sort="${query === sort ? 'ascending' : 'descending'}"><a href="/sagas\\?tag=sort-test&amp;sort=${query === sort ? '-' : ''}${sort}">`));
      const walked: string[] = [];
      for (let at = first.match(/<a href="(\/sagas\/[0-9a-f-]{36}\?[^"]*)" data-walk>/)?.[1]?.replaceAll('&amp;', '&') ?? ''; at !== ''; at = linkOn(await page(at), 'Next')) walked.push(nameOf(at.slice(7, 43)));
      expect(walked).toEqual(expected);
      const last = await page(`/sagas/${ids[expected.at(-1) ?? '']}?${new URLSearchParams({ list: `tag=sort-test&sort=${query}` }).toString()}`);
      expect(linkOn(last, 'Previous')).toContain(ids[expected.at(-2) ?? ''] ?? 'none');
    }
  });

  test('sorted by name goes from page to page without losing a saga', async () => {
    const names = Array.from({ length: 53 }, (_, index) => `paged-${String(index).padStart(2, '0')}`);
    for (const name of names.toReversed()) await start({ name });
    for (const [sort, expected] of [['saga', names], ['-saga', names.toReversed()]] as const) {
      const first = await page(`/sagas?q=paged-&sort=${sort}`);
      const second = await page(linkOn(first, 'Next page'));
      expect([...namesOn(first), ...namesOn(second)]).toEqual(expected);
      expect(linkOn(second, 'Next page')).toBe('');
    }
    // A cursor of another order leads nowhere.
    expect((await web.call('GET', `/sagas?sort=age&cursor=0.${Buffer.from(JSON.stringify(['paged-01', crypto.randomUUID()])).toString('base64url')}`, { headers: operator })).status).toBe(400);
  });

  test("finds what one person requested, and offers a person their own", async () => {
    const mine = await start({ name: 'mine-1' });
    await start({ name: 'not-mine-1' }, bearer(secrets.all));
    const [{ requestedBy } = { requestedBy: '' }] = await web.db.sql<{ requestedBy: string }[]>`select requested_by from arcadia.sagas where id = ${mine}`;
    const query = new URLSearchParams({ requester: requestedBy }).toString();
    expect(await page('/sagas')).toContain(`href="/sagas?${query}">Mine</a>`);
    expect(namesOn(await page(`/sagas?q=mine-1&${query}`))).toEqual(['mine-1']);
    const preview = await page(`/sagas/bulk?action=cancel&q=mine-1&${query}`);
    expect(preview).toContain(mine);
    expect(preview).toContain('Roll back 1 saga?');
  });

  test('leads to a saga and back to the same place, and from there to the ones before and after it', async () => {
    const ids: Record<string, string> = {};
    for (const [name, status] of [['walk-done', 'completed'], ['walk-running-1', 'running'], ['walk-running-2', 'running'], ['walk-stuck', 'stuck']] as const) {
      ids[name] = await start({ name });
      await setStatus(ids[name], status);
    }
    const list = '/sagas?q=walk-';
    const walked: string[] = [];
    const back: string[] = [];
    for (let at = linkOn(await page(list), 'walk-stuck'); at !== ''; ) {
      const html = await page(at);
      walked.push(Object.entries(ids).find(([, id]) => at.includes(id))?.[0] ?? at);
      back.unshift(Object.entries(ids).find(([, id]) => linkOn(html, 'Previous').includes(id))?.[0] ?? '');
      expect(html).toContain(`<a href="${list}" data-up>Sagas</a>`);
      at = linkOn(html, 'Next');
    }
    expect(walked).toEqual(['walk-stuck', 'walk-running-2', 'walk-running-1', 'walk-done']);
    expect(back).toEqual(['walk-running-1', 'walk-running-2', 'walk-stuck', '']);
    expect(linkOn(await page(linkOn(await page(`${list}&sort=-age`), 'walk-done')), 'Next')).toContain(ids['walk-running-1'] ?? 'none');
    // A list that is none: the saga is shown all the same.
    for (const given of ['status=nope', 'cursor=9.x', '%00']) {
      const html = await page(`/sagas/${ids['walk-stuck']}?${new URLSearchParams({ list: given }).toString()}`);
      expect(html).toContain('<h1>walk-stuck</h1>');
    }
    const plain = await page(`/sagas/${ids['walk-stuck']}`);
    expect(plain).toContain('<a href="/sagas" data-up>Sagas</a>');
    expect(linkOn(plain, 'Next')).toBe('');
  });

  test('says in its title what it shows', async () => {
    expect(await page('/sagas?q=web&status=stuck')).toContain('<title>web, needs attention · Sagas · arcadia-cloud</title>');
  });

  test('has an address without what was left empty, and says on a page what is wrong with one', async () => {
    const sent = await web.call('GET', '/sagas?q=web&name=&tag=&from=&before=', { headers: operator });
    expect([sent.status, sent.headers.get('location')]).toEqual([302, '/sagas?q=web']);
    for (const [query, said] of [['status=nope', 'expected one of pending'], ['from=yesterday', 'expected a time'], ['cursor=9.x', 'nextCursor'], ['cursor=1.x', 'nextCursor'], ['q=%00', 'without NUL']] as const) {
      const answer = await web.call('GET', `/sagas?${query}`, { headers: operator });
      expect([answer.status, answer.headers.get('content-type')]).toEqual([400, 'text/html; charset=utf-8']);
      expect(answer.text).toContain(said);
    }
    const program = await web.call('GET', '/sagas?status=nope', { headers: bearer(secrets.read) });
    expect(program.headers.get('content-type')).toContain('application/problem+json');
    const stranger = await web.call('GET', '/sagas', { headers: { accept: 'text/html' } });
    expect([stranger.status, stranger.headers.get('www-authenticate')]).toEqual([401, expect.stringContaining('Basic')]);
  });
});

test('nothing that a caller wrote becomes HTML, and user data is nowhere', async () => {
  const id = sagaIdOf(
    await web.call('POST', '/v1/sagas/provision_droplet', {
      body: { ...droplet, name: 'hostile', user_data: 'canary-user-data-77', tags: ['x'] },
      headers: { ...basic(), 'idempotency-key': HOSTILE },
    }),
  );
  const hostile = JSON.stringify(HOSTILE);
  await web.db.sql`
    update arcadia.sagas set requested_by = ${HOSTILE}, context = ${`{"droplet_id": 7, "public_ipv4": ${hostile}}`}::text::jsonb,
      input = input || ${`{"name": ${hostile}, "tags": [${hostile}]}`}::text::jsonb, error = ${`{"code": "x", "step": "create_droplet", "message": ${hostile}, "retryable": false}`}::text::jsonb
    where id = ${id}`;
  await web.db.sql`insert into arcadia.saga_events (saga_id, seq, kind, step, attempt, detail, worker) values (${id}, 1, 'step_retried', 'create_droplet', 1, ${`{"message": ${hostile}, "delayMs": 10}`}::text::jsonb, ${HOSTILE})`;
  await web.db.sql`update arcadia.sagas set revision = 1, status = 'running' where id = ${id}`;
  await web.call('POST', `/sagas/${id}/cancel`, { body: new URLSearchParams({ reason: HOSTILE }).toString(), headers: form });
  const query = new URLSearchParams({ q: HOSTILE, tag: HOSTILE }).toString();
  for (const html of [await page(`/sagas/${id}`), await page(`/sagas/${id}?told=${encodeURIComponent(HOSTILE)}`), await page('/sagas'), await page(`/sagas?${query}`), await page(`/sagas/bulk?action=cancel&${query}`)]) {
    expect(html).toContain('</html>');
    expect(html).not.toContain('<script>alert');
    expect(html).not.toContain('canary-user-data-77');
  }
  expect(await page(`/sagas/${id}`)).toContain('&quot;&gt;&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;');
});

test("a saga's page has its JSON, its line for a terminal, the reason that was given at its start, and the droplet's name", async () => {
  await web.db.sql`
    insert into arcadia.cloud_resources (provider, provider_id, kind, name, region, status, size_slug, tags, attrs, last_seen_at)
    values ('digitalocean', '31337555', 'droplet', 'db-7', 'fra1', 'active', 's-1vcpu-1gb', '{}', '{}', now())`;
  const id = sagaIdOf(await web.call('POST', '/v1/sagas/destroy_droplet', { body: { droplet_id: 31337555, reason: 'the customer left' }, headers: basic() }));
  const html = await page(`/sagas/${id}`);
  expect(html).toContain(`href="/v1/sagas/${id}" download="saga-${id.slice(0, 8)}.json"`);
  expect(html).toContain(`<code data-copy>arcadia saga ${id}</code>`);
  expect(html).toMatch(/<td>saga_created<\/td><td>the customer left<\/td>/);
  expect(html).toMatch(/31337555<\/code>(<\/a>)?<\/span> db-7 /);
});

test('the page of a saga that was rolled back says that nothing is left, or which droplets a person has to look at', async () => {
  const [clean, doubtful] = [await start(), await start()];
  await web.db.sql`
    update arcadia.sagas set status = 'compensated', wake_at = null, finished_at = now(), error = '{"code": "cancelled", "step": "create_droplet", "message": "not needed"}'
    where id in (${clean}, ${doubtful})`;
  await web.db.sql`update arcadia.sagas set context = '{"unproven_droplets": [7, 8]}' where id = ${doubtful}`;
  expect(await page(`/sagas/${clean}`)).toContain('Rolled back. Nothing is left.');
  const told = await page(`/sagas/${doubtful}`);
  expect(told).toContain('Rolled back, but check droplets 7, 8 at DigitalOcean.');
  expect(told).not.toContain('Nothing is left');
});

const destroyed = async (row: { status: string; error?: object; context?: object }) => {
  const id = sagaIdOf(await web.call('POST', '/v1/sagas/destroy_droplet', { body: { droplet_id: 4711 }, headers: basic() }));
  await web.db.sql`
    update arcadia.sagas set status = ${row.status}, wake_at = null, finished_at = ${row.status === 'stuck' ? null : new Date()},
      error = ${row.error === undefined ? null : JSON.stringify(row.error)}::text::jsonb, context = ${JSON.stringify(row.context ?? {})}::text::jsonb
    where id = ${id}`;
  return { html: await page(`/sagas/${id}`), list: await page(`/sagas?q=${id}`) };
};
const errorOf = (code: string, message: string, more: object = {}) => ({ code, message, step: 'destroy_droplet', retryable: false, ...more });

describe('the page of a destroy says what became of the droplet', () => {
  test('destroyed, or gone already', async () => {
    expect((await destroyed({ status: 'completed', context: { destroy_result: 'destroyed' } })).html).toContain('Droplet 4711 is destroyed.');
    expect((await destroyed({ status: 'completed', context: { destroy_result: 'already_gone' } })).html).toContain('Droplet 4711 no longer existed.');
  });

  test.each([
    ['refused as not ours', errorOf('droplet_not_ours', 'droplet 4711 was neither provisioned nor adopted by this arcadia-cloud'), 'not_destroyed', 'Droplet 4711 was not destroyed.', 'not destroyed'],
    ['unknown', errorOf('droplet_unknown', 'there is no droplet 4711'), 'not_destroyed', 'Nothing was destroyed: droplet 4711 is unknown.', 'nothing destroyed'],
    ['cancelled in time', errorOf('cancelled', 'cancelled by ann'), 'not_destroyed', 'Droplet 4711 was not destroyed.', 'not destroyed'],
    ['cancelled too late', errorOf('cancelled', 'cancelled by ann'), 'destroyed', 'The cancel came too late: droplet 4711 is destroyed.', 'destroyed'],
  ])('%s', async (_title, error, result, text, label) => {
    const { html, list } = await destroyed({ status: 'compensated', error, context: { destroy_result: result } });
    expect(html).toContain(text);
    expect(html).toContain(error.message);
    expect(html).not.toMatch(/nothing is left|cannot be restored|>rolled back</i);
    for (const shown of [html, list]) expect(shown).toMatch(new RegExp(`class="badge compensated \\w+">${label}<`));
  });

  test('stuck: why, what it costs, and what to press', async () => {
    const { html, list } = await destroyed({ status: 'stuck', error: errorOf('digitalocean_later', 'DigitalOcean: Droplet is locked.', { direction: 'forward' }) });
    expect(html).toContain('Droplet 4711 may still exist and cost money.');
    for (const button of ['popovertarget="retry">Retry…', 'popovertarget="cancel">Cancel…']) expect(html).toContain(button);
    expect(html).not.toContain('rolled back');
    expect(list).toContain('<b>destroy_droplet failed</b>');
  });
});

test('a command in an error is marked as one; a single backtick of others is left as it is', async () => {
  const id = await start({ name: 'typed' });
  const shown = async (message: string) => {
    await web.db.sql`
      update arcadia.sagas set status = 'compensated', wake_at = null, finished_at = now(), error = ${JSON.stringify({ code: 'droplet_protected', message, step: 'create_droplet', retryable: false })}::text::jsonb
      where id = ${id}`;
    return page(`/sagas/${id}`);
  };
  expect(await shown('it is protected: run `arcadia unprotect 7`, then try again')).toContain('<q>it is protected: run <code>arcadia unprotect 7</code>, then try again</q>');
  expect(await shown('no such tag: `<b>')).toContain('<q>no such tag: `&lt;b&gt;</q>');
});

describe('buttons', () => {
  test('are there for those who may press them, and only for them', async () => {
    const running = await start({ name: 'button-running' });
    const stuck = await start({ name: 'button-stuck' });
    await setStatus(stuck, 'stuck');
    const paths = [`/sagas/${running}`, `/sagas/${stuck}`, '/sagas?q=button-'];
    for (const path of paths) {
      expect(await page(path, operator)).toMatch(/(Cancel|Retry)[^<]*…/);
      const seen = await page(path, viewer);
      expect(seen).toContain('button-');
      expect(seen).not.toMatch(/…<\/(?:a|button)>|method="post"/);
    }
    for (const path of [`/sagas/${running}/cancel`, `/sagas/${stuck}/retry`]) expect((await web.call('POST', path, { headers: viewer })).status).toBe(403);
  });

  test('send on to the page, which tells what came of it', async () => {
    const id = await start({ name: 'pressed' });
    const press = async (): Promise<Answer> => web.call('POST', `/sagas/${id}/cancel`, { body: 'reason=', headers: form });
    const [first, again] = [await press(), await press()];
    expect([first.status, first.headers.get('location')]).toEqual([303, `/sagas/${id}?told=cancelled`]);
    expect(again.headers.get('location')).toBe(`/sagas/${id}?told=already`);
    expect(await page(`/sagas/${id}?told=already`)).toContain('Nothing to do');
    const retried = await web.call('POST', `/sagas/${id}/retry`, { headers: form });
    expect(retried.headers.get('location')).toBe(`/sagas/${id}?told=refused`);
    const gone = await web.call('POST', '/sagas/b7c9f6e0-1f5a-4a53-9d4e-1d9f64c1a001/cancel', { headers: form });
    expect([gone.status, gone.headers.get('content-type')]).toEqual([404, 'text/html; charset=utf-8']);
  });

  test('say what they began, and not that it is done', async () => {
    const id = await start({ name: 'begun' });
    const told = async (path: string) => {
      const answer = await web.call('POST', `/sagas/${id}/${path}`, { headers: form });
      return /<p class="notice" role="status">([^<]*)</.exec(await page(answer.headers.get('location') ?? ''))?.[1];
    };
    await setStatus(id, 'stuck');
    expect(await told('retry')).toBe('The retry has begun.');
    await setStatus(id, 'running');
    expect(await told('cancel')).toBe('The rollback has begun.');
    for (const what of ['accepted', 'not_found', 'toString']) expect(await page(`/sagas/${id}?told=${what}`)).not.toContain('class="notice"');
  });

  test('are not taken from pages of another site, nor forms by the API', async () => {
    const id = await start({ name: 'tricked' });
    for (const header of [{ origin: 'https://evil.example' }, { 'sec-fetch-site': 'cross-site' }, { origin: 'null' }] as Record<string, string>[]) {
      expect((await web.call('POST', `/sagas/${id}/cancel`, { body: '', headers: { ...form, ...header } })).status).toBe(403);
    }
    expect((await web.call('POST', `/v1/sagas/${id}/cancel`, { body: 'reason=x', headers: form })).status).toBe(415);
    expect(await page(`/sagas/${id}`)).toContain('badge pending');
  });

  test('for many say first which, need a condition, and tell what came of each', async () => {
    const ids = [await start({ name: 'many-1' }), await start({ name: 'many-2' })];
    const stuck = await start({ name: 'many-stuck' });
    await setStatus(stuck, 'stuck');
    const asked = await page('/sagas/bulk?action=cancel&q=many-');
    expect(asked).toContain('Roll back 2 sagas?');
    expect(asked).not.toContain('many-stuck');
    expect((await web.call('GET', '/sagas/bulk?action=cancel', { headers: operator })).status).toBe(400);
    expect((await web.call('POST', '/sagas/bulk', { body: `action=cancel&id=${ids[0]}`, headers: form })).status).toBe(400);
    expect(await page('/sagas/bulk?action=cancel&q=many-&status=stuck')).toContain('Nothing to cancel');
    const done = await web.call('POST', '/sagas/bulk', { body: `${formOn(asked)}&reason=clean+up`, headers: form });
    expect(done.text).toContain('2 of 2 are being rolled back');
    for (const id of ids) expect(done.text).toContain(id);
    const retried = await web.call('POST', '/sagas/bulk', { body: formOn(await page('/sagas/bulk?action=retry&q=many-')), headers: form });
    expect(retried.text).toContain('<h1>1 of 1 is tried again</h1>');
    const audited = await web.db.sql`select actor, action, detail->>'reason' as reason from arcadia.audit where saga_id in ${web.db.sql(ids.concat(stuck))} and action <> 'saga_created' order by action`;
    expect([...audited]).toEqual([
      { actor: 'http:ada', action: 'cancel_requested', reason: 'clean up' },
      { actor: 'http:ada', action: 'cancel_requested', reason: 'clean up' },
      { actor: 'http:ada', action: 'retry_requested', reason: null },
    ]);
  });
});

describe('a bulk action', () => {
  test('touches the sagas that the preview showed, and no other', async () => {
    const [first, second, third] = [await start({ name: 'shown-1' }), await start({ name: 'shown-2' }), await start({ name: 'shown-3' })];
    const preview = await page('/sagas/bulk?action=cancel&q=shown-');
    for (const id of [first, second, third]) expect(preview).toContain(`<input type="checkbox" name="id" value="${id}" checked`);
    const late = await start({ name: 'shown-4' });
    await setStatus(second, 'completed');
    const done = await web.call('POST', '/sagas/bulk', { body: formOn(preview), headers: form });
    expect(done.text).toContain('<h1>2 of 3 are being rolled back; 1 had completed</h1>');
    expect(done.text).toContain('1 more matches.');
    expect(done.text).not.toContain(late);
    expect(await page(`/sagas/${late}`)).toContain('badge pending');
    // Once more, as a reload of the answer sends it.
    const again = await web.call('POST', '/sagas/bulk', { body: formOn(preview), headers: form });
    expect(again.text).toContain('<h1>0 of 3 are being rolled back; 2 had been rolled back; 1 had completed</h1>');
  });

  test('touches only the sagas that are selected, and shows the reason of each before', async () => {
    const [one, other] = [await start({ name: 'picked-1' }), await start({ name: 'picked-2' })];
    await setStatus(one, 'stuck');
    await setStatus(other, 'stuck');
    await web.db.sql`update arcadia.saga_events set detail = '{"message": "DELETE 422: pending event"}' where saga_id = ${one}`;
    const preview = await page('/sagas/bulk?action=retry&q=picked-');
    expect(preview).toContain('<td class="why">DELETE 422: pending event</td>');
    expect(preview).toContain('<td class="why"><span class="none">no reason is on record</span></td>');
    // A browser leaves out a box that is not ticked.
    const selected = formOn(preview).replace(`&id=${other}`, '');
    expect((await web.call('POST', '/sagas/bulk', { body: selected, headers: form })).text).toContain('<h1>1 of 1 is tried again</h1>');
    expect(await page(`/sagas/${other}`)).toContain('badge stuck');
    expect(await page('/sagas/bulk?action=cancel&q=mine-1')).toContain('<td class="why"><code>create_droplet</code></td>');
  });

  test('of retry, too', async () => {
    const [shown, gone, late] = [await start({ name: 'jammed-1' }), await start({ name: 'jammed-2' }), await start({ name: 'jammed-3' })];
    await setStatus(shown, 'stuck');
    await setStatus(gone, 'stuck');
    const preview = await page('/sagas/bulk?action=retry&q=jammed-');
    await setStatus(late, 'stuck');
    await web.db.sql`delete from arcadia.sagas where id = ${gone}`;
    const done = await web.call('POST', '/sagas/bulk', { body: formOn(preview), headers: form });
    expect(done.text).toContain('<h1>1 of 2 is tried again; 1 no longer existed</h1>');
    expect(await page(`/sagas/${late}`)).toContain('badge stuck');
  });

  test('of a form without a list shows the preview first', async () => {
    const id = await start({ name: 'unseen' });
    const answer = await web.call('POST', '/sagas/bulk', { body: 'action=cancel&q=unseen', headers: form });
    expect([answer.status, answer.headers.get('location')]).toEqual([303, '/sagas/bulk?q=unseen&action=cancel']);
    expect(await page(`/sagas/${id}`)).toContain('badge pending');
  });

  test('takes a bounded number of sagas, and says so', async () => {
    await web.db.sql`
      insert into arcadia.sagas (id, saga8, name, status, steps, cursor, revision, input, wake_at)
      select id, left(id::text, 8), 'provision_droplet', 'running', '{create_droplet}', 0, 1, '{"name": "crowd"}', now() + interval '1 day'
      from (select gen_random_uuid() as id from generate_series(1, 210)) as made on conflict do nothing`;
    const preview = await page('/sagas/bulk?action=cancel&q=crowd');
    expect(preview).toMatch(/2\d\d match\. A bulk action changes at most 200 sagas: these are the newest\. Repeat it for the rest\./);
    expect(preview).toContain('Roll back 200 sagas?');
    expect(preview.match(/name="id"/g)).toHaveLength(200);
    const many = Array.from({ length: 201 }, () => `id=${randomUUID()}`).join('&');
    expect((await web.call('POST', '/sagas/bulk', { body: `action=cancel&q=crowd&${many}`, headers: form })).status).toBe(400);
  });
});

test("while the queues do not answer, the pages do, and say so", async () => {
  const redis = await startPrivateRedis();
  try {
    await using other = await openWebStage({ ...credentials, REDIS_URL: redis.url });
    const id = sagaIdOf(await other.call('POST', '/v1/sagas/provision_droplet', { body: droplet, headers: basic() }));
    redis.pause();
    try {
      expect(namesOn((await other.call('GET', '/sagas', { headers: operator })).text)).toEqual(['web-1']);
      const shown = await other.call('GET', `/sagas/${id}`, { headers: operator });
      expect(shown.text).toContain('The queues do not answer.');
      // Without a live worker, nobody has it: that much Postgres knows.
      await other.db.sql`
        insert into arcadia.workers (id, name, host, pid, version, node_version, started_at, last_seen_at, concurrency, jobs)
        values (gen_random_uuid(), 'host:1', 'host', 1, '0.1.0', 'v24.0.0', clock_timestamp(), clock_timestamp() + interval '1 minute', 50, 0)`;
      const unclear = await waitFor(async () => {
        const { text } = await other.call('GET', `/sagas/${id}`, { headers: operator });
        return text.includes('not known: the queues do not answer') && text;
      }, { what: 'the page that knows of the worker' });
      expect(unclear).toContain('<li class="wait wait">');
      expect(unclear).not.toContain('<li class="attempt live">');
    } finally {
      redis.resume();
    }
  } finally {
    await redis.stop();
  }
});
