// Who did what: the page and the route, their filters, and the time they take among a million rows.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { listAuditActions, listAuditOf, recordAudit, searchAudit } from '../../src/saga/audit.ts';
import { auditAnswer } from '../../src/web/api/audit.ts';
import { explaining } from '../support/explain.ts';
import { bearer, credentials, droplet, openWebStage, sagaIdOf, secrets } from './stage.ts';
import type { Web } from './stage.ts';

const reader = bearer(secrets.read);
const operator = bearer(secrets.all);

describe('the audit', () => {
  let web: Web;
  let sagaId: string;
  beforeAll(async () => {
    web = await openWebStage(credentials);
    sagaId = sagaIdOf(await web.call('POST', '/v1/sagas/provision_droplet', { body: droplet, headers: bearer(secrets.start) }));
    await web.call('POST', `/v1/sagas/${sagaId}/cancel`, { body: { reason: 'nobody needs it' }, headers: operator });
    await recordAudit(web.db, { actor: 'cli:<b>eve</b>', action: 'drift_accepted', detail: { droplet_id: 4711, user_data: 'a secret' } });
  });
  afterAll(() => web[Symbol.asyncDispose]());

  const list = async (query = '') => {
    const answer = await web.call('GET', `/v1/audit${query}`, { headers: reader });
    expect(answer.status).toBe(200);
    return auditAnswer.parse(answer.json());
  };
  const actionsIn = async (query: string) => (await list(query)).audit.map(({ action }) => action);

  test('lists the newest action first, with who, what, which saga, when and why', async () => {
    const { audit, nextCursor } = await list();
    expect(audit).toMatchObject([
      { actor: 'cli:<b>eve</b>', action: 'drift_accepted', sagaId: null, detail: { droplet_id: 4711, user_data: '[redacted]' } },
      { actor: 'http:token-4', action: 'cancel_requested', sagaId, detail: { reason: 'nobody needs it' } },
      { actor: 'http:starter', action: 'saga_created', sagaId, detail: { name: 'provision_droplet' } },
    ]);
    expect(nextCursor).toBeNull();
  });

  test('finds by who, what, which saga and when', async () => {
    const [, cancelled] = (await list()).audit;
    expect(await actionsIn('?actor=http:starter')).toEqual(['saga_created']);
    expect(await actionsIn('?action=cancel_requested')).toEqual(['cancel_requested']);
    expect(await actionsIn(`?saga_id=${sagaId}`)).toEqual(['cancel_requested', 'saga_created']);
    expect(await actionsIn(`?before=${cancelled?.at}`)).toEqual(['saga_created']);
    expect(await actionsIn(`?from=${cancelled?.at}&saga_id=${sagaId}`)).toEqual(['cancel_requested']);
    expect(await actionsIn('?actor=http:nobody')).toEqual([]);
  });

  test('goes on page by page, without a gap and without a row twice', async () => {
    const seen: string[] = [];
    for (let cursor: string | null = ''; cursor !== null;) {
      const page = await list(`?limit=1${cursor === '' ? '' : `&cursor=${cursor}`}`);
      seen.push(...page.audit.map(({ action }) => action));
      cursor = page.nextCursor;
    }
    expect(seen).toEqual(['drift_accepted', 'cancel_requested', 'saga_created']);
  });

  test.each([
    ['limit=0', 'limit'],
    ['saga_id=7', 'saga_id'],
    ['from=yesterday', 'from'],
    ['cursor=x', 'cursor'],
    ['who=ada', 'who'],
  ])('refuses %s, naming the field', async (query, field) => {
    const refused = await web.call('GET', `/v1/audit?${query}`, { headers: reader });
    expect(refused.status).toBe(400);
    expect(refused.text).toContain(field);
  });

  test('is a page, on which each name and each action is a filter', async () => {
    const page = await web.call('GET', '/audit', { headers: reader });
    expect(page.status).toBe(200);
    expect(page.text).toContain('nobody needs it');
    expect(page.text).toContain('href="/audit?actor=http%3Astarter"');
    expect(page.text).toContain('<option value="cancel_requested">');
    expect(page.text).toContain(`href="/sagas/${sagaId}"`);
    expect(page.text).toContain('cli:&lt;b&gt;eve');
    expect(page.text).not.toContain('a secret');

    const narrowed = await web.call('GET', '/audit?actor=http%3Astarter&action=', { headers: reader });
    expect(narrowed.headers.get('location')).toBe('/audit?actor=http%3Astarter');
    const found = await web.call('GET', '/audit?actor=http%3Astarter', { headers: reader });
    expect(found.text).toContain('saga_created');
    expect(found.text).not.toContain('nobody needs it');
    expect((await web.call('GET', '/audit?actor=http%3Anobody', { headers: reader })).text).toContain('No action matches the filters.');
    expect((await web.call('GET', '/audit?saga=x', { headers: reader })).status).toBe(400);
  });

  test('is in the order of time although the ids have more and more digits, page by page and for sagas', async () => {
    const other = '00000000-0000-4000-8000-000000000001';
    for (const step of Array.from({ length: 123 }, (_, at) => at)) await recordAudit(web.db, { actor: 'cli:counter', action: 'retry_requested', sagaId: other, detail: { step } });
    const seen: unknown[] = [];
    for (let cursor: string | null = ''; cursor !== null;) {
      const page = await list(`?actor=cli:counter&limit=10${cursor === '' ? '' : `&cursor=${cursor}`}`);
      seen.push(...page.audit.map(({ detail }) => detail['step']));
      cursor = page.nextCursor;
    }
    const newestFirst = Array.from({ length: 123 }, (_, at) => 122 - at);
    expect(seen).toEqual(newestFirst);
    expect((await listAuditOf(web.db, [other], 50)).map(({ detail }) => detail['step'])).toEqual(newestFirst.slice(0, 50));
  });

  test('finds the few actions of a person among very many by an index', async () => {
    await web.db.sql`insert into arcadia.audit (actor, action) select 'sql:backend', 'saga_created' from generate_series(1, 100000)`;
    await web.db.sql`analyze arcadia.audit`;
    const { db, statements } = explaining(web.db);
    expect((await searchAudit(db, { actor: 'http:starter' }, { limit: 100 })).rows).toHaveLength(1);
    expect((await searchAudit(db, { action: 'cancel_requested' }, { limit: 100 })).rows).toHaveLength(1);
    expect(await listAuditActions(db)).toEqual(['cancel_requested', 'drift_accepted', 'retry_requested', 'saga_created']);
    for (const { plan } of statements) expect(plan).not.toContain('Seq Scan');
  });
});
