// The frame of every page. No script, no style and no font from elsewhere, and none inline.
import type { FastifyReply } from 'fastify';
import type { Html } from '../html.ts';
import { withBasePath } from '../base-path.ts';
import { html } from '../html.ts';
import { may } from '../auth.ts';
import { scriptUrl, styleUrl } from './assets.ts';
import { renderStrip } from './fleet-strip.ts';

type Place = 'sagas' | 'docs';

export type Page = Readonly<{
  title: string;
  /** Which entry of the navigation it belongs to. */
  place: Place;
  body: Html;
}>;

const places: readonly { place: Place | 'queues'; path: string; text: string }[] = [
  { place: 'sagas', path: '/sagas', text: 'Sagas' },
  { place: 'queues', path: '/queues', text: 'Queues' },
  { place: 'docs', path: '/docs', text: 'API' },
];

/** Answers with a page. Its addresses are written from the root of the web: a base path is put before them here. */
export async function sendPage(reply: FastifyReply, { title, place, body }: Page): Promise<FastifyReply> {
  const links = places.map((link) => html`<a href="${link.path}"${link.place === place ? html` aria-current="page"` : null}>${link.text}</a>`);
  const strip = renderStrip(may(reply.request.principal, 'read') ? await reply.server.fleet.glance() : null);
  const page = html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<title>${title} · arcadia-cloud</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="${styleUrl}">
<script type="module" src="${scriptUrl}"></script>
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header class="top"><a class="brand" href="/sagas">arcadia-cloud</a><nav aria-label="Main">${links}</nav></header>
${strip}
<main id="main" tabindex="-1">
${body}
</main>
<p id="told" class="unseen" role="status" aria-live="polite"></p>
</body>
</html>
`;
  return reply.type('text/html; charset=utf-8').send(withBasePath(page.text, reply.server.basePath));
}
