// Server-sent events: a saga's timeline as a resumable stream.
import { Readable } from 'node:stream';
import type { FastifyReply } from 'fastify';
import type { Redaction } from '../saga/redact.ts';
import type { EventFeed } from '../saga/event-feed.ts';
import { Problem } from './problems.ts';

export type EventStreams = Readonly<{
  /**
   * Responds with a stream of the saga's events after `afterSeq`, until it is at rest.
   *
   * @param holder the caller: each has a share of the streams
   * @throws {Problem} if all streams, or the holder's share of them, are in use
   */
  open(reply: FastifyReply, sagaId: string, afterSeq: number, holder: string): FastifyReply;
  /** Ends all streams. Clients reconnect to another process. */
  closeAll(): void;
}>;

// Proxies close idle connections after a while, often a minute.
const HEARTBEAT_MS = 15_000;

const MAX_STREAMS = 1_000;
const MAX_STREAMS_EACH = 200;

// A slower client is disconnected at this backlog and resumes later.
const MAX_BEHIND_BYTES = 1024 * 1024;

/** Creates the streams from a feed. `redact` removes secrets from events. */
export function createEventStreams(feed: EventFeed, redact: Redaction, { heartbeatMs = HEARTBEAT_MS, most = MAX_STREAMS, mostEach = MAX_STREAMS_EACH } = {}): EventStreams {
  const open = new Set<() => void>();
  const held = new Map<string, number>();
  const take = (holder: string): (() => void) => {
    if (open.size >= most) throw new Problem('unavailable', 'too many streams are open', { retryAfterSeconds: 10 });
    const count = held.get(holder) ?? 0;
    if (count >= mostEach) throw new Problem('too_many_streams', `${holder} has ${count} streams open, and may have ${mostEach}: close some, or follow the sagas by GET /v1/sagas/:id`, { retryAfterSeconds: 10 });
    held.set(holder, count + 1);
    return () => {
      const left = (held.get(holder) ?? 1) - 1;
      if (left > 0) held.set(holder, left);
      else held.delete(holder);
    };
  };
  return {
    open: (reply, sagaId, afterSeq, holder) => {
      let giveBack: (() => void) | null = take(holder);
      const stream = new Readable({ read: () => undefined });
      let isOver = false;
      const write = (text: string): void => {
        if (isOver || stream.destroyed) return;
        stream.push(text);
        if (stream.readableLength > MAX_BEHIND_BYTES) stream.destroy();
      };
      const finish = (): void => {
        isOver = true;
        stream.push(null);
      };
      const heartbeat = setInterval(() => write(': still here\n\n'), heartbeatMs);
      open.add(finish);
      write('retry: 1000\n\n');
      const leave = feed.listen(sagaId, afterSeq, {
        onEvent: (event) => write(`id: ${event.seq}\ndata: ${JSON.stringify(redact.value(event))}\n\n`),
        onEnd: (status) => {
          write(`event: end\ndata: ${JSON.stringify({ status })}\n\n`);
          finish();
        },
      });
      const end = (): void => {
        clearInterval(heartbeat);
        leave();
        open.delete(finish);
        giveBack?.();
        giveBack = null;
      };
      stream.once('end', end);
      stream.once('close', end);
      return reply.header('x-accel-buffering', 'no').type('text/event-stream; charset=utf-8').send(stream);
    },
    closeAll: () => {
      for (const finish of open) finish();
    },
  };
}
