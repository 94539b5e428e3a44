// /audit: who did what, to which saga, when and why; newest first, with filters.
import { z } from 'zod';
import type { AuditLine, AuditPage } from '../../saga/audit.ts';
import { shortTextOf } from '../../platform/text.ts';
import type { App } from '../app.ts';
import type { Html } from '../html.ts';
import { html } from '../html.ts';
import type { WebPorts } from '../ports.ts';
import { storableText } from '../storable.ts';
import { withReasons } from './audit-reasons.ts';
import { sendErrorPage } from './error-page.ts';
import { localTime, timeField, withoutEmpty } from './filter.ts';
import { sendPage } from './layout.ts';
import { ago } from './times.ts';

const PAGE = 100;

const text = storableText(255);
const auditQuery = z.object({
  actor: text.optional(),
  action: text.optional(),
  saga: z.uuid('expected a saga id, a UUID').toLowerCase().optional(),
  from: timeField.optional(),
  before: timeField.optional(),
  cursor: z.string().max(500).optional(),
});

type Filter = Readonly<Omit<z.infer<typeof auditQuery>, 'cursor'>>;

/** Adds the page. */
export function addAuditPage(app: App, { audit, sagas }: Pick<WebPorts, 'audit' | 'sagas'>): void {
  void app.register(async (scope: App) => {
    scope.setErrorHandler(sendErrorPage);
    scope.get(
      '/audit',
      {
        schema: { hide: true, querystring: auditQuery },
        // Runs before validation: an empty field counts as absent.
        preValidation: async (request, reply) => {
          const address = withoutEmpty(request.url);
          return address === null ? undefined : reply.redirect(address);
        },
      },
      async (request, reply) => {
        const { cursor, ...filter } = request.query;
        const { saga, ...conditions } = filter;
        const [page, actions] = await Promise.all([audit.search({ ...conditions, sagaId: saga }, { limit: PAGE, cursor }), audit.actions()]);
        const rows = await withReasons(page.rows, sagas);
        return sendPage(reply, { title: 'Audit', place: 'audit', body: renderAudit({ ...page, rows }, { filter, actions, isFirstPage: cursor === undefined, now: new Date(Date.now()) }) });
      },
    );
    await Promise.resolve();
  });
}

function renderAudit(page: AuditPage, { filter, actions, isFirstPage, now }: { filter: Filter; actions: readonly string[]; isFirstPage: boolean; now: Date }): Html {
  const isNarrowed = Object.values(filter).some((value) => value !== undefined);
  const none = html`<p class="none">${isNarrowed ? 'No action matches the filters.' : 'No actions recorded.'}</p>`;
  return html`<h1>Audit</h1>
<form class="search" role="search" action="/audit" method="get"><div class="fields">
<label>Who <input name="actor" value="${filter.actor}" maxlength="255" placeholder="http:ada" autocomplete="off" spellcheck="false"></label>
<label>What <select name="action"><option value="">anything</option>${actions.map((action) => html`<option value="${action}"${filter.action === action ? html` selected` : null}>${action}</option>`)}</select></label>
<label>Saga <input name="saga" value="${filter.saga}" maxlength="36" placeholder="id" autocomplete="off" spellcheck="false"></label>
<label>From (UTC) <input type="datetime-local" name="from" value="${localTime(filter.from)}"></label>
<label>Before (UTC) <input type="datetime-local" name="before" value="${localTime(filter.before)}"></label>
<button type="submit">Apply</button></div>
${isNarrowed ? html`<a class="clear" href="/audit">Clear</a>` : null}</form>
${page.rows.length === 0 ? none : html`<div class="wide" tabindex="0"><table class="audit stacked"><thead><tr><th scope="col">When</th><th scope="col">Who</th><th scope="col">What</th><th scope="col">Saga</th><th scope="col">Why, and details</th><th scope="col">Database role</th></tr></thead><tbody>${page.rows.map((line) => row(line, filter, now))}</tbody></table></div>`}
<nav class="pages" aria-label="Pages">${isFirstPage ? null : html`<a href="${addressOf(filter)}">First page</a>`}${page.nextCursor === null ? null : html`<a rel="next" href="${addressOf(filter, { cursor: page.nextCursor })}">Next page</a>`}</nav>`;
}

function row({ at, actor, action, sagaId, detail, databaseRole }: AuditLine, filter: Filter, now: Date): Html {
  const { reason, ...others } = detail;
  const details = Object.entries(others).map(([name, value]) => html`<span class="detail">${name} <code>${shortTextOf(value)}</code></span> `);
  return html`<tr><td>${ago(at, now)}</td><td><a href="${addressOf({ ...filter, actor })}"><code>${actor}</code></a></td><td><a href="${addressOf({ ...filter, action })}">${action}</a></td><td>${sagaId === null ? null : html`<a href="/sagas/${sagaId}"><code>${sagaId.slice(0, 8)}</code></a>`}</td><td class="why">${shortTextOf(reason)} ${details}</td><td>${databaseRole === null ? null : html`<code>${databaseRole}</code>`}</td></tr>`;
}

function addressOf({ actor, action, saga, from, before }: Filter, more: Readonly<Record<string, string>> = {}): string {
  const all: [string, string | undefined][] = [['actor', actor], ['action', action], ['saga', saga], ['from', from?.toISOString()], ['before', before?.toISOString()]];
  const query = new URLSearchParams([...all.filter((field): field is [string, string] => field[1] !== undefined), ...Object.entries(more)]).toString();
  return query === '' ? '/audit' : `/audit?${query}`;
}
