// The webhook: one signed POST per outcome, and the meaning of its answer.
//
// Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
import { Webhook } from 'standardwebhooks';
import type { WebhookConfig } from '../platform/config.ts';
import { errorCodeOf } from '../platform/error-code.ts';
import type { Io } from '../platform/io.ts';
import { packageVersion } from '../platform/package-version.ts';
import { parseRetryAfterMs } from '../platform/retry-after.ts';

/**
 * The result of a POST. `gone`: the receiver unsubscribed (410). `failed`: any other answer than 2xx, or none; with the delay
 * that the receiver asked for, in milliseconds.
 */
export type PostResult = Readonly<{ kind: 'delivered' }> | Readonly<{ kind: 'gone' | 'failed'; error: string; retryAfterMs: number | null }>;

/** Sends a body under a message id. */
export type Post = (id: string, body: string) => Promise<PostResult>;

const TIMEOUT_MS = 15_000;

// Nobody reads the answer. A short one is read off the connection, so that the connection can be reused.
const MAX_ANSWER_BYTES = 65_536;

// A receiver that asks for a longer delay is tried again after this one.
const MAX_RETRY_AFTER_MS = 24 * 3_600_000;

/**
 * Opens a webhook.
 *
 * @param webhook.url the receiver; redirects are not followed
 * @param webhook.secrets each of them signs, so that a receiver can change from one to the other
 */
export function openWebhook({ url, secrets }: WebhookConfig, io: Io, timeoutMs = TIMEOUT_MS): Post {
  const signers = secrets.map((secret) => new Webhook(secret));
  return async (id, body) => {
    const now = new Date(Date.now());
    const headers = {
      'content-type': 'application/json',
      'user-agent': `arcadia-cloud/${packageVersion()}`,
      'webhook-id': id,
      'webhook-timestamp': String(Math.floor(now.getTime() / 1_000)),
      'webhook-signature': signers.map((signer) => signer.sign(id, now, body)).join(' '),
    };
    try {
      return await io('http', 'POST webhook', async () => {
        const response = await fetch(url, { method: 'POST', headers, body, redirect: 'manual', signal: AbortSignal.timeout(timeoutMs) });
        await discard(response);
        return resultOf(response, now);
      });
    } catch (error) {
      return { kind: 'failed', error: `no answer (${labelOf(error)})`, retryAfterMs: null };
    }
  };
}

async function discard({ body }: Response): Promise<void> {
  let bytes = 0;
  for await (const chunk of body ?? []) {
    bytes += chunk.length;
    // Leaving the loop closes the connection.
    if (bytes > MAX_ANSWER_BYTES) return;
  }
}

function resultOf({ status, headers }: Response, now: Date): PostResult {
  if (status >= 200 && status < 300) return { kind: 'delivered' };
  if (status === 410) return { kind: 'gone', error: 'the receiver answered 410 Gone', retryAfterMs: null };
  const redirected = status >= 300 && status < 400 ? '; redirects are not followed' : '';
  return { kind: 'failed', error: `the receiver answered ${status}${redirected}`, retryAfterMs: readRetryAfter(headers.get('retry-after'), now) };
}

function readRetryAfter(value: string | null, now: Date): number | null {
  const ms = value === null ? null : parseRetryAfterMs(value.trim(), now.getTime());
  return ms === null ? null : Math.min(Math.max(0, ms), MAX_RETRY_AFTER_MS);
}

/** Returns no message: it may contain the address, and a secret in it. */
function labelOf(error: unknown): string {
  const cause = error instanceof Error ? error.cause : undefined;
  return errorCodeOf(cause) ?? errorCodeOf(error) ?? (error instanceof Error ? error.name : 'Error');
}
