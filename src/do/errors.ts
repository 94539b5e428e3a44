// The one error that leaves the DigitalOcean client. Its text never contains the token, the request's user_data or an
// HTML page, because it is written to logs, job records and Postgres.

import type { FailureKind, Method } from './outcome.ts';

/** The fields of a `DigitalOceanError`, apart from its message. */
export type DigitalOceanFailure = {
  /** What is known about the request; see `OutcomeKind`. */
  readonly kind: FailureKind;
  /** DigitalOcean's own error id (`unprocessable_entity`), the network's code (`ECONNREFUSED`), `timeout` or `invalid_answer`. */
  readonly code: string;
  /** The HTTP status; null without a response. */
  readonly status: number | null;
  /** DigitalOcean's support asks for this id. */
  readonly requestId: string | null;
  /** The wait that the API asked for; always set if `kind` is `throttled`. */
  readonly retryAfterMs: number | null;
  readonly method: Method;
  /** Without the query string. */
  readonly path: string;
  /** Only for `unauthorized`, and `throttled` by a full account: what is refused, as far as known. */
  readonly hold?: Hold | undefined;
};

/**
 * What a refused request waits for. `circuit`: the open circuit that holds it; null: none. `scopes`: the scopes that the
 * token probably lacks. `isAccountFull`: it waits until the account has room for another droplet.
 */
export type Hold = Readonly<{ circuit: string | null; isTokenRefused: boolean; scopes: readonly string[]; isAccountFull?: true }>;

/**
 * A request to DigitalOcean that was not done. It has no `cause` on purpose: an error of the HTTP library contains the
 * token and the request body, and logs would print them.
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

  /** Returns the same error with another `kind`, for when more is known about the request than its method tells. */
  as(kind: FailureKind): DigitalOceanError {
    const { code, status, requestId, retryAfterMs, method, path, hold } = this;
    return new DigitalOceanError(this.message, { kind, code, status, requestId, retryAfterMs, method, path, hold });
  }
}

/** Values in a request that must not reappear in an error. */
export type Secrets = {
  readonly token: string;
  readonly userData: string | undefined;
};

const MAX_MESSAGE_LENGTH = 500;
const MAX_ID_LENGTH = 100;
const MAX_READ_LENGTH = 64 * 1024;
// A shorter common run of characters is chance; a longer one is an echo.
const ECHO_LENGTH = 12;

/**
 * Makes text from the API safe for logs: one line, at most 500 characters, without the token. Returns null if nothing can
 * be kept: the text is empty, exceeds 64 KiB, is an HTML page, repeats part of the request's user_data, or encodes the
 * token or the user_data.
 */
export function cleanMessage(text: string, secrets: Secrets): string | null {
  // Cutting could leave part of the token at the end, so an oversized text is dropped.
  if (text.length > MAX_READ_LENGTH) return null;
  const struck = toLine(text).replaceAll(secrets.token, '[redacted]');
  const line = struck.slice(0, MAX_MESSAGE_LENGTH);
  if (line === '' || /<(?:!doctype|html|head|body)\b/i.test(line)) return null;
  // Decode beyond the cut too: a token that the cut truncates would no longer be recognized.
  const readings = [line, ...decodingsOf(struck.slice(0, 2 * MAX_MESSAGE_LENGTH))];
  if (readings.some((reading) => reading.includes(secrets.token))) return null;
  return repeatsUserData(readings.map(toLine), secrets.userData) ? null : line;
}

/**
 * Does the same for an identifier from the API (an error id, a request id). Returns null unless it looks like an
 * identifier and is not secret.
 */
export function cleanId(text: string, secrets: Secrets): string | null {
  if (text.length > MAX_ID_LENGTH || !/^[\w.:-]+$/.test(text) || text.includes(secrets.token)) return null;
  return repeatsUserData([text], secrets.userData) ? null : text;
}

// An echo may be truncated, or may be the JSON that was sent. A part of either form is enough.
function repeatsUserData(lines: readonly string[], userData = ''): boolean {
  const plain = toLine(userData);
  if (plain === '') return false;
  const length = Math.min(ECHO_LENGTH, plain.length);
  // One pass through each form. Searching for the parts one by one would take as many passes as there are parts.
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

/** Decodes the text as if it were URL-encoded, and its longer runs as if they were base64. */
function decodingsOf(text: string): string[] {
  const runs = [...text.matchAll(/[\w+/-]{16,}/g)].map(([run]) => run);
  // The offset of a run within a base64 group of four is unknown, so try all four.
  const bytes = runs.flatMap((run) => [0, 1, 2, 3].map((skip) => Buffer.from(run.slice(skip), 'base64').toString()));
  return [...bytes, text.replaceAll(/(?:%[0-9a-f]{2})+/gi, (codes) => Buffer.from(codes.replaceAll('%', ''), 'hex').toString())];
}

function toLine(text: string): string {
  return text.replaceAll(/[\s\p{Cc}]+/gu, ' ').trim();
}

/**
 * The message of an answer that is no success.
 *
 * @param request method and path
 */
export function returned(status: number, request: string, why: string): string {
  return `DigitalOcean returned ${status} for ${request}: ${why}`;
}

/** Cuts the request from such a message, which leaves `422: …`. Other messages stay as they are. */
export function withoutRequest(message: string): string {
  return message.replace(/^DigitalOcean returned (\d+) for \S+ \S+: /, '$1: ');
}
