// The one error that leaves the DigitalOcean client, and the care about what its text may hold: never the token, the
// request's user_data, or a page of HTML. It is written into logs, job records and Postgres.

import type { FailureKind, Method } from './outcome.ts';

/** What a `DigitalOceanError` says, beside its message. */
export type DigitalOceanFailure = {
  /** What is known about the request; see `OutcomeKind`. */
  readonly kind: FailureKind;
  /** DigitalOcean's own error id (`unprocessable_entity`), the network's code (`ECONNREFUSED`), `timeout` or `invalid_answer`. */
  readonly code: string;
  /** The HTTP status, or null when there was no answer. */
  readonly status: number | null;
  /** What DigitalOcean's support asks for. */
  readonly requestId: string | null;
  /** How long the API asked to wait; always set when `kind` is `throttled`. */
  readonly retryAfterMs: number | null;
  readonly method: Method;
  /** Without the query. */
  readonly path: string;
  /** Of an `unauthorized` one: what is refused, as far as it is known. */
  readonly hold?: Hold | undefined;
};

/** What a refused request waits for. `circuit`: the one that is open for it; null: none. `scopes`: those that the token probably lacks. */
export type Hold = Readonly<{ circuit: string | null; isTokenRefused: boolean; scopes: readonly string[] }>;

/**
 * A request to DigitalOcean that was not done. It carries no `cause` on purpose: an error of the HTTP library holds the
 * token and the request's body, and logs would print them.
 */
export class DigitalOceanError extends Error implements DigitalOceanFailure {
  override readonly name = 'DigitalOceanError';
  readonly kind: FailureKind;
  readonly code: string;
  readonly status: number | null;
  readonly requestId: string | null;
  readonly retryAfterMs: number | null;
  readonly method: Method;
  readonly path: string;
  readonly hold: Hold | undefined;

  constructor(message: string, failure: DigitalOceanFailure) {
    super(message);
    this.kind = failure.kind;
    this.code = failure.code;
    this.status = failure.status;
    this.requestId = failure.requestId;
    this.retryAfterMs = failure.retryAfterMs;
    this.method = failure.method;
    this.path = failure.path;
    this.hold = failure.hold;
  }
}

/** What a request carried that must not come back in an error. */
export type Secrets = {
  readonly token: string;
  readonly userData: string | undefined;
};

const MAX_MESSAGE_LENGTH = 500;
const MAX_ID_LENGTH = 100;
const MAX_READ_LENGTH = 64 * 1024;
// A shorter run of equal characters is chance; a longer one is an echo.
const ECHO_LENGTH = 12;

/**
 * Makes text from the API fit for logs: on one line, at most 500 characters, the token struck out. Null when nothing
 * can be kept: an empty text, one of more than 64 KiB, a page of HTML, or one that repeats a part of the request's user_data, or encodes either.
 */
export function cleanMessage(text: string, secrets: Secrets): string | null {
  // Cut anywhere, it might end in a part of the token: nothing of it is kept.
  if (text.length > MAX_READ_LENGTH) return null;
  const struck = toLine(text).replaceAll(secrets.token, '[redacted]');
  const line = struck.slice(0, MAX_MESSAGE_LENGTH);
  if (line === '' || /<(?:!doctype|html|head|body)\b/i.test(line)) return null;
  // Beyond the cut too: what it left of a token would not be known again.
  const readings = [line, ...decodingsOf(struck.slice(0, 2 * MAX_MESSAGE_LENGTH))];
  if (readings.some((reading) => reading.includes(secrets.token))) return null;
  return repeatsUserData(readings.map(toLine), secrets.userData) ? null : line;
}

/** The same for an identifier from the API (an error's id, a request's id): null unless it looks like one and is no secret. */
export function cleanId(text: string, secrets: Secrets): string | null {
  if (text.length > MAX_ID_LENGTH || !/^[\w.:-]+$/.test(text) || text.includes(secrets.token)) return null;
  return repeatsUserData([text], secrets.userData) ? null : text;
}

// An echo may be cut short, or be the JSON that was sent, so a part of either form is enough.
function repeatsUserData(lines: readonly string[], userData = ''): boolean {
  const plain = toLine(userData);
  if (plain === '') return false;
  const length = Math.min(ECHO_LENGTH, plain.length);
  // In one pass through each form: to look for one part after another takes as many, each as long as the form.
  const parts = new Set(lines.flatMap((line) => partsOf(line, length)));
  return [plain, toLine(JSON.stringify(userData).slice(1, -1))].some((form) => {
    for (let start = 0; start + length <= form.length; start++) {
      if (parts.has(form.slice(start, start + length))) return true;
    }
    return false;
  });
}

function partsOf(line: string, length: number): string[] {
  return Array.from({ length: Math.max(0, line.length - length + 1) }, (_, start) => line.slice(start, start + length));
}

/** What a text would be if it were encoded for a URL, and what its longer runs would be if they were base64. */
function decodingsOf(text: string): string[] {
  const runs = [...text.matchAll(/[\w+/-]{16,}/g)].map(([run]) => run);
  // Where a run begins within a group of four is not known.
  const bytes = runs.flatMap((run) => [0, 1, 2, 3].map((skip) => Buffer.from(run.slice(skip), 'base64').toString()));
  return [...bytes, text.replaceAll(/(?:%[0-9a-f]{2})+/gi, (codes) => Buffer.from(codes.replaceAll('%', ''), 'hex').toString())];
}

function toLine(text: string): string {
  return text.replaceAll(/[\s\p{Cc}]+/gu, ' ').trim();
}
