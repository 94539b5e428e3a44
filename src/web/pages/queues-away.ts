// What stands in the place of Bull Board while the queue store does not answer: the board itself would show no queues.
import type { FastifyReply } from 'fastify';
import { html } from '../html.ts';
import type { Problem } from '../problems.ts';
import { setProblemHeaders } from '../problems.ts';
import { sendPage } from './layout.ts';

/** Responds with the page. */
export async function sendQueuesAway(problem: Problem, reply: FastifyReply): Promise<FastifyReply> {
  setProblemHeaders(problem, reply);
  const body = html`<h1>The queue store does not answer</h1>
<div class="now bad"><p>So the queues cannot be shown. Sagas are in Postgres, and go on once the queue store answers.</p></div>
<p>What is known of the fleet is on the <a href="/fleet">Fleet page</a>.</p>`;
  return sendPage(reply.code(503), { title: 'Queues', place: 'queues', body });
}
