// The frame of every page. No external scripts, styles or fonts, and no inline ones.
import type { FastifyInstance, FastifyReply } from 'fastify';
import type { Html } from '../html.ts';
import { withBasePath } from '../base-path.ts';
import { html } from '../html.ts';
import { may } from '../auth.ts';
import { iconUrl, scriptUrl, styleUrl } from './assets.ts';
import { renderStrip } from './fleet-strip.ts';

type Place = 'sagas' | 'droplets' | 'leases' | 'start' | 'fleet' | 'queues' | 'audit' | 'docs';

export type Page = Readonly<{
  title: string;
  /** The navigation entry it belongs to. */
  place: Place;
  body: Html;
  /** Only of an answer to a form: the page that Back leads to. A browser cannot show such an answer again. */
  back?: string;
}>;

const places: readonly { place: Place; path: string; text: string }[] = [
  { place: 'sagas', path: '/sagas', text: 'Sagas' },
  { place: 'droplets', path: '/droplets', text: 'Droplets' },
  { place: 'leases', path: '/leases', text: 'Leases' },
  { place: 'start', path: '/start', text: 'New droplet' },
  { place: 'fleet', path: '/fleet', text: 'Fleet' },
  { place: 'queues', path: '/queues', text: 'Queues' },
  { place: 'audit', path: '/audit', text: 'Audit' },
  { place: 'docs', path: '/docs', text: 'API' },
];

/** The pages that a server has, as its navigation names them. */
export function pagesOf(app: FastifyInstance): typeof places {
  const hidden: readonly string[] = [...(app.hasRoute({ method: 'GET', url: '/start' }) ? [] : ['start']), ...(app.hasDroplets ? [] : ['droplets', 'leases'])];
  return places.filter(({ place }) => !hidden.includes(place));
}

/** Responds with a page. URLs in it start at the root; this adds the base path. */
export async function sendPage(reply: FastifyReply, { title, place, body, back }: Page): Promise<FastifyReply> {
  const { principal } = reply.request;
  const mayStart = may(principal, 'read') && may(principal, 'start');
  const links = pagesOf(reply.server).filter((link) => link.place !== 'start' || mayStart).map((link) => html`<a href="${link.path}"${link.place === place ? html` aria-current="page"` : null}>${link.text}</a>`);
  const strip = renderStrip(may(principal, 'read') ? await reply.server.fleet.glance() : null);
  const page = html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<title>${title} · arcadia-cloud</title>
<link rel="icon" type="image/svg+xml" href="${iconUrl}">
<link rel="stylesheet" href="${styleUrl}">
<script type="module" src="${scriptUrl}"></script>
</head>
<body>
<a class="skip" href="#main">Skip to content</a>
<header class="top"><a class="brand" href="/sagas">arcadia-cloud</a><nav aria-label="Main">${links}</nav></header>
${strip}
<main id="main" tabindex="-1"${back === undefined ? null : html` data-back="${back}"`}>
${body}
</main>
<p id="told" class="unseen" role="status" aria-live="polite"></p>
</body>
</html>
`;
  return reply.type('text/html; charset=utf-8').send(withBasePath(page.text, reply.server.basePath));
}
