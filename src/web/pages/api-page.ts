// /docs: the OpenAPI document for people to read, and /openapi.json for programs.
import type { App } from '../app.ts';
import type { Html } from '../html.ts';
import { html, longText } from '../html.ts';
import { sendPage } from './layout.ts';

type Operation = Readonly<{
  summary?: string;
  description?: string;
  parameters?: readonly Readonly<{ name?: string; in?: string; required?: boolean; description?: string }>[];
  requestBody?: Readonly<{ content?: Readonly<Record<string, Readonly<{ schema?: unknown }>>> }>;
  responses?: Readonly<Record<string, Readonly<{ description?: string; content?: Readonly<Record<string, Readonly<{ schema?: unknown }>>> }>>>;
}>;

/** Adds both. */
export function addApiPages(app: App): void {
  app.get('/openapi.json', { schema: { hide: true } }, async (_request, reply) => reply.type('application/json').send(JSON.stringify(app.swagger())));

  app.get('/docs', { schema: { hide: true } }, async (_request, reply) => {
    const document = app.swagger();
    const operations = Object.entries(document.paths ?? {}).flatMap(([path, item]) =>
      Object.entries<Operation>(item).map(([method, operation]) => ({ path, method, operation })),
    );
    const sections = operations.map(({ path, method, operation }) => {
      const parameters = (operation.parameters ?? []).map(
        (parameter) => html`<tr><td><code>${parameter.name}</code></td><td>${parameter.in}</td><td>${parameter.required === true ? 'required' : ''}</td><td>${parameter.description}</td></tr>`,
      );
      const bodies = Object.values(operation.requestBody?.content ?? {}).map(({ schema }) => html`<details><summary>body</summary><pre>${pretty(schema)}</pre></details>`);
      const answers = Object.entries(operation.responses ?? {}).flatMap(([status, { content }]) =>
        Object.values(content ?? {}).map(({ schema }) => html`<details><summary>${status}</summary><pre>${pretty(schema)}</pre></details>`),
      );
      return html`<h2><code><span class="method">${method.toUpperCase()}</span> ${path}</code></h2><p>${operation.summary}. ${operation.description}</p><table>${parameters}</table>${bodies}${answers}`;
    });
    return sendPage(reply, { title: 'HTTP API', place: 'docs', body: html`<h1>HTTP API</h1><p>${document.info.description} The same for programs: <a href="/openapi.json">/openapi.json</a></p>${sections}` });
  });
}

function pretty(schema: unknown): Html {
  return longText(JSON.stringify(schema, null, 2), Number.MAX_SAFE_INTEGER);
}
