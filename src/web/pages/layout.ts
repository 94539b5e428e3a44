// The frame of every page, and its style sheet. No script, no style and no font from elsewhere, and none inline.
import type { FastifyReply } from 'fastify';
import type { App } from '../app.ts';
import type { Html } from '../html.ts';
import { html } from '../html.ts';

const STYLE_PATH = '/assets/pages.css';

const style = `:root { color-scheme: light dark; --line: #8884; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1rem; }
nav a { margin-right: 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
code, pre { font: 13px/1.45 ui-monospace, monospace; }
pre { overflow-x: auto; padding: .75rem; border: 1px solid var(--line); border-radius: 4px; }
table { border-collapse: collapse; } td, th { text-align: left; padding: .2rem 1rem .2rem 0; vertical-align: top; border-bottom: 1px solid var(--line); }
details { margin: .5rem 0; } summary { cursor: pointer; }
.method { display: inline-block; min-width: 3.5rem; font-weight: 600; }
`;

/** Adds the style sheet of the pages. */
export function addStyle(app: App): void {
  app.get(STYLE_PATH, { schema: { hide: true } }, async (_request, reply) => reply.type('text/css; charset=utf-8').send(style));
}

/** Answers with a page. */
export async function sendPage(reply: FastifyReply, title: string, body: Html): Promise<FastifyReply> {
  const page = html`<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>${title} · arcadia-cloud</title><link rel="stylesheet" href="${STYLE_PATH}"></head>
<body><nav><a href="/sagas">sagas</a><a href="/queues">queues</a><a href="/docs">API</a></nav><h1>${title}</h1>
${body}
</body>
</html>
`;
  return reply.type('text/html; charset=utf-8').send(page.text);
}
