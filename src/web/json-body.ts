// Reads JSON bodies. Fastify's parser refuses fields that would change the prototype of an object, and says only that the
// body is no JSON: this one names the field. An empty body is none, also from a client that sets the content type always.
import { firstProblems, sentenceOf } from '../platform/request-problems.ts';
import type { App } from './app.ts';
import { expectationOf, mayBeLeftOut } from './expected-body.ts';
import { Problem } from './problems.ts';

const MAX_SHOWN_DEPTH = 10;

/** Adds the parser to the application. */
export function addJsonParser(app: App): void {
  const parse = app.getDefaultJsonParser('error', 'error');
  app.addContentTypeParser('application/json', { parseAs: 'string' }, (request, body, done) => {
    const text = String(body);
    if (text === '') {
      const schema = request.routeOptions.schema?.body;
      if (mayBeLeftOut(schema)) done(null, undefined);
      else done(refuse('body', expectationOf(schema)));
      return;
    }
    void parse(request, text, (error, value: unknown) => {
      if (error === null) done(null, value);
      else done(refusedFieldOf(text) ?? error);
    });
  });
}

function refuse(field: string, message: string): Problem {
  const errors = firstProblems([{ field, message }]);
  return new Problem('invalid_request', sentenceOf(errors), { errors });
}

/** Names the field because of which a JSON text was refused; null: the text is no JSON. */
function refusedFieldOf(text: string): Problem | null {
  const field = findForbidden(text);
  if (field === null) return null;
  return refuse(field, 'a field of this name is not accepted');
}

function findForbidden(text: string): string | null {
  const left: { value: unknown; path: readonly string[] }[] = [{ value: parsed(text), path: [] }];
  // Not recursive: the body may be nested as deep as it is large.
  for (let next = left.pop(); next !== undefined; next = left.pop()) {
    const { value, path } = next;
    if (typeof value !== 'object' || value === null) continue;
    for (const [key, entry] of Object.entries(value)) {
      if (key === '__proto__') return [...path, key].join('.');
      if (key === 'constructor' && typeof entry === 'object' && entry !== null && Object.hasOwn(entry, 'prototype')) return [...path, key, 'prototype'].join('.');
      left.push({ value: entry, path: path.length < MAX_SHOWN_DEPTH ? [...path, key] : path });
    }
  }
  return null;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text.replace(/^\ufeff/, ''));
  } catch {
    return null;
  }
}
