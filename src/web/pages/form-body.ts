// Reads the bodies of forms. Only scopes with forms do: elsewhere, what a form of another site could send is not read at all.
import type { App } from '../app.ts';

/** Lets the routes of a scope take forms. */
export function acceptForms(scope: App): void {
  scope.addContentTypeParser('application/x-www-form-urlencoded', { parseAs: 'string' }, (_request, body, done) => done(null, readForm(body.toString())));
}

/** Reads the fields of a form, or of a query in an address. A field that is given several times is a list; one that was left empty is left out. */
export function readForm(body: string): Record<string, string | string[]> {
  const form = new URLSearchParams(body);
  const names = [...new Set(form.keys())];
  return Object.fromEntries(
    names.flatMap((name) => {
      const [first, ...rest] = form.getAll(name).filter((value) => value !== '');
      return first === undefined ? [] : [[name, rest.length === 0 ? first : [first, ...rest]]];
    }),
  );
}
