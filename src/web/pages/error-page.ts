// Errors on the pages: people get a page, programs the usual problem document.
import type { FastifyReply, FastifyRequest } from 'fastify';
import { html } from '../html.ts';
import { describeProblem, sendError, setProblemHeaders } from '../problems.ts';
import { sendPage } from './layout.ts';
import { withCode } from './parts.ts';

/** Responds with the error in the format that the caller accepts. */
export async function sendErrorPage(error: unknown, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  if (!(request.headers.accept ?? '').includes('text/html')) return sendError(error, request, reply);
  const { status, title, detail } = describeProblem(error, request);
  setProblemHeaders(error, reply);
  const body = html`<p class="crumbs"><a href="/sagas" data-up>Sagas</a></p><h1>${title}</h1><div class="now bad"><p>${withCode(detail)}</p></div><p><a href="/sagas">All sagas</a></p>`;
  return sendPage(reply.code(status), { title, place: 'sagas', body });
}
