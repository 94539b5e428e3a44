// Looks for secrets in text, in whatever form they may have got there.

/** Secrets by what they are. */
export type Secrets = Readonly<Record<string, string>>;

/** Texts by where they were found. */
export type Places = Readonly<Record<string, string>>;

/** Says which secret stands where, and in which form; empty: none. */
export function leaks(secrets: Secrets, places: Places): string[] {
  return Object.entries(places).flatMap(([place, text]) =>
    Object.entries(secrets).flatMap(([what, secret]) =>
      Object.entries(formsOf(secret))
        .filter(([, form]) => text.includes(form))
        .map(([how, form]) => `${what} (${how}) in ${place}: …${around(text, form)}…`),
    ),
  );
}

function around(text: string, form: string): string {
  const at = text.indexOf(form);
  return text.slice(Math.max(0, at - 80), at + form.length + 40).replaceAll(/\s+/g, ' ');
}

function formsOf(secret: string): Record<string, string> {
  const bytes = Buffer.from(secret);
  return {
    plain: secret,
    'in JSON': JSON.stringify(secret).slice(1, -1),
    'in a URL': encodeURIComponent(secret),
    hexadecimal: bytes.toString('hex'),
    ...Object.fromEntries([0, 1, 2].flatMap((offset) => base64At(bytes, offset).map((form, index) => [`base64${index === 0 ? '' : 'url'} at ${offset}`, form]))),
  };
}

/** What remains the same of the base64 of any text that has these bytes at an offset of so many beyond a multiple of three. */
function base64At(bytes: Buffer, offset: number): [string, string] {
  const padded = Buffer.concat([Buffer.alloc(offset), bytes]);
  const sure = padded.subarray(0, padded.length - (padded.length % 3));
  const from = [0, 2, 3][offset] ?? 0;
  return [sure.toString('base64').slice(from), sure.toString('base64url').slice(from)];
}
