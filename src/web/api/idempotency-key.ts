// The header Idempotency-Key: a key is the same text over HTTP, in SQL and in the queue.
import type { IncomingMessage } from 'node:http';
import type { StartRequest } from '../../saga/start.ts';
import { InvalidRequestError } from '../../saga/start-errors.ts';
import { headerText } from '../header-text.ts';

const NAME = 'idempotency-key';

/**
 * Reads the key of a request. `formerKey`: the key as earlier versions stored it, with its bytes read as Latin-1, if that
 * differs.
 *
 * @throws {InvalidRequestError} for more than one such header, or bytes that are not UTF-8
 */
export function readIdempotencyKey({ rawHeaders }: Pick<IncomingMessage, 'rawHeaders'>): Pick<StartRequest, 'idempotencyKey' | 'formerKey'> {
  const [given, ...others] = rawHeaders.filter((_value, place) => place % 2 === 1 && rawHeaders[place - 1]?.toLowerCase() === NAME);
  if (given === undefined) return {};
  if (others.length > 0) throw refused(`found ${others.length + 1} of these headers; send one, with one key`);
  const key = headerText(given);
  if (key === null) throw refused('expected UTF-8; encode the key as UTF-8, or use only ASCII characters');
  return key === given ? { idempotencyKey: key } : { idempotencyKey: key, formerKey: given };
}

function refused(message: string): InvalidRequestError {
  return new InvalidRequestError([{ field: 'idempotencyKey', message }]);
}
