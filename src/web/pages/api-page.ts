// /docs shows the OpenAPI document to people: an index, and for each operation its parameters, bodies with examples, code samples,
// and a form that sends it. /openapi.json serves the document to programs.
import type { App } from '../app.ts';
import type { Html } from '../html.ts';
import { html, longText } from '../html.ts';
import { tryUrl } from './assets.ts';
import { samplesOf } from './code-samples.ts';
import { sendPage } from './layout.ts';

type Media = Readonly<Record<string, Readonly<{ schema?: unknown; example?: unknown }>>>;
type Parameter = Readonly<{ name?: string; in?: string; required?: boolean; description?: string; example?: unknown }>;
type Operation = Readonly<{
  operationId?: string;
  tags?: readonly string[];
  summary?: string;
  description?: string;
  security?: readonly unknown[];
  parameters?: readonly Parameter[];
  requestBody?: Readonly<{ required?: boolean; content?: Media }>;
  responses?: Readonly<Record<string, Readonly<{ description?: string; content?: Media }>>>;
}>;
type Shown = Readonly<{ id: string; path: string; method: string; operation: Operation }>;

const JSON_TYPE = 'application/json';

/** Adds both routes. */
export function addApiPages(app: App): void {
  app.get('/openapi.json', { schema: { hide: true } }, async (_request, reply) => reply.type('application/json').send(JSON.stringify(app.swagger())));

  // The document does not change while the process runs. Only the address by which people reach it differs.
  let last: { origin: string; body: Html } | null = null;
  app.get('/docs', { schema: { hide: true } }, async (request, reply) => {
    const origin = `${request.protocol}://${request.host}${app.basePath}`;
    if (last?.origin !== origin) last = { origin, body: renderApi(app, origin) };
    return sendPage(reply, { title: 'HTTP API', place: 'docs', body: last.body });
  });
}

function renderApi(app: App, origin: string): Html {
  const document = app.swagger();
  const shown: Shown[] = Object.entries(document.paths ?? {}).flatMap(([path, item]) =>
    Object.entries<Operation>(item).map(([method, operation]) => ({ id: operation.operationId ?? `${method}-${path}`, path, method: method.toUpperCase(), operation })),
  );
  const groups = Map.groupBy(shown, ({ operation }) => operation.tags?.[0] ?? 'other');
  const about = new Map((document.tags ?? []).map(({ name, description }) => [name, description]));
  const known = [...about.keys()];
  const placeOf = (tag: string): number => (known.includes(tag) ? known.indexOf(tag) : known.length);
  const ordered = [...groups].toSorted(([one], [other]) => placeOf(one) - placeOf(other));
  const index = ordered.map(([tag, some]) => html`<li><a href="#${`tag-${tag}`}"><b>${tag}</b></a><ul>${some.map(({ id, method, path, operation }) => html`<li><a href="#${id}"><code><span class="method">${method}</span> ${path}</code></a> <span class="hint">${operation.summary}</span></li>`)}</ul></li>`);
  const sections = ordered.map(([tag, some]) => html`<h2 id="${`tag-${tag}`}">${tag}${about.get(tag) === undefined ? null : html`: ${about.get(tag)}`}</h2>${some.map((one) => renderOperation(one, origin))}`);
  return html`<h1>HTTP API</h1><p>${document.info.description} The same for programs: <a href="/openapi.json">/openapi.json</a></p>
<p>Samples read a bearer token from the variable <code>ARCADIA_TOKEN</code>. Their ids are made up.</p>
<nav class="index" aria-label="Operations"><ul>${index}</ul></nav>
<div class="api">${sections}</div><script type="module" src="${tryUrl}"></script>`;
}

function renderOperation({ id, path, method, operation }: Shown, origin: string): Html {
  const { parameters = [], requestBody, responses = {}, summary, description } = operation;
  const rows = parameters.map((parameter) => html`<tr><td><code>${parameter.name}</code></td><td>${parameter.in}</td><td>${parameter.required === true ? 'required' : 'optional'}</td><td>${parameter.description}</td></tr>`);
  const table = rows.length === 0 ? null : html`<div class="wide" tabindex="0"><table><thead><tr><th scope="col">Parameter</th><th scope="col">In</th><th scope="col">Needed</th><th scope="col">Meaning</th></tr></thead><tbody>${rows}</tbody></table></div>`;
  const isStream = Object.values(responses).some(({ content }) => content?.['text/event-stream'] !== undefined);
  const body = requestBody?.content?.[JSON_TYPE]?.example;
  const isPublic = operation.security?.length === 0;
  const headers = Object.fromEntries(parameters.flatMap(({ name = '', in: place, example }) => (place === 'header' && example !== undefined ? [[name === 'idempotency-key' ? 'Idempotency-Key' : name, valueOf(example)]] : [])));
  const samples = samplesOf({ method, url: `${origin}${fillPath(path, parameters)}`, headers, body, isPublic, isStream });
  const answers = Object.entries(responses).flatMap(([status, { content = {}, description: meaning }]) =>
    Object.entries(content).map(([type, { schema, example }]) => html`<details><summary>Answer ${status}${type === JSON_TYPE ? null : ` (${type})`}</summary>${meaning === undefined || meaning === 'Default Response' ? null : html`<p>${meaning}</p>`}${example === undefined ? null : html`<p class="hint">Example</p><pre tabindex="0">${pretty(example)}</pre>`}<p class="hint">Schema</p><pre tabindex="0">${pretty(schema)}</pre></details>`),
  );
  return html`<section class="operation" id="${id}"><h3><a href="#${id}"><code><span class="method">${method}</span> ${path}</code></a></h3><p>${summary}. ${description}</p>${table}
${requestBody === undefined ? null : html`<details><summary>Body${requestBody.required === false ? ' (optional)' : ''}</summary>${body === undefined ? null : html`<p class="hint">Example</p><pre tabindex="0">${pretty(body)}</pre>`}<p class="hint">Schema</p><pre tabindex="0">${pretty(requestBody.content?.[JSON_TYPE]?.schema)}</pre></details>`}
${answers}
<div class="samples">${samples.map(({ language, code }, at) => html`<details name="${`samples-${id}`}"${at === 0 ? html` open` : null}><summary>${language}</summary><pre tabindex="0" class="sample" data-language="${language}">${longText(code, Number.MAX_SAFE_INTEGER)}</pre></details>`)}</div>
${isStream || isPublic ? null : tryForm({ id, path, method, operation }, body)}</section>`;
}

/** The script shows this form; without the script nothing could send it. */
function tryForm({ id, path, method, operation }: Shown, body: unknown): Html {
  const { parameters = [] } = operation;
  const fields = parameters.filter(({ in: place }) => place === 'path' || place === 'query').map(({ name = '', in: place, required, example }) => html`<label>${name}${required === true ? null : html` <span class="hint">optional</span>`}<input name="${name}" data-in="${place}" value="${place === 'path' && example !== undefined ? valueOf(example) : ''}" autocomplete="off" spellcheck="false"></label>`);
  const text = body === undefined ? null : html`<label>Body<textarea name="body" rows="8" spellcheck="false">
${pretty(body)}</textarea></label>`;
  const warning = method === 'GET' ? null : html`<p class="hint">This is sent for real, with your login.</p>`;
  return html`<details class="try" hidden><summary>Try it</summary><form data-method="${method}" data-url="${path}" aria-label="${`Try ${id}`}">${fields}${text}${warning}<button type="submit">Send ${method}</button><output></output></form></details>`;
}

function fillPath(path: string, parameters: readonly Parameter[]): string {
  return path.replaceAll(/\{(\w+)\}/g, (whole, name: string) => {
    const example = parameters.find((one) => one.name === name && one.in === 'path')?.example;
    return example === undefined ? whole : encodeURIComponent(valueOf(example));
  });
}

/** An example of a parameter, as it stands in a URL or a header. */
function valueOf(example: unknown): string {
  return typeof example === 'string' ? example : JSON.stringify(example);
}

function pretty(value: unknown): Html {
  return longText(JSON.stringify(value, null, 2), Number.MAX_SAFE_INTEGER);
}
