// Builds HTML that is safe by construction: interpolated values are escaped unless they are Html objects. Invisible
// characters in text are shown, so that a name with bidi controls cannot imitate another.
import { shorten, visibleLines } from '../platform/text.ts';

/** A piece of HTML. */
export class Html {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

type Part = Html | string | number | null | undefined | readonly Part[];

// A row shows some texts several times, and a list has fifty rows: texts of megabytes would block the process.
const MAX_TEXT_LENGTH = 4_000;

/**
 * Builds HTML. Values are escaped, arrays joined, null and undefined omitted. Text is cut at 4,000 characters (except
 * {@link longText}). An attribute value (`name="${…}"`) is not cut, because a form may send it back.
 */
export function html(strings: TemplateStringsArray, ...parts: readonly Part[]): Html {
  return new Html(strings.map((string, index) => string + render(parts[index], string.endsWith('="') ? escapeHtml : toText)).join(''));
}

function render(part: Part, escape: (text: string) => string): string {
  if (part === null || part === undefined) return '';
  if (part instanceof Html) return part.text;
  if (typeof part === 'object') return part.map((entry) => render(entry, escape)).join('');
  return escape(String(part));
}

function toText(text: string, max = MAX_TEXT_LENGTH): string {
  return escapeHtml(visibleLines(shorten(text, max)));
}

/** Long text, such as a document, cut at `max` characters. */
export function longText(text: string, max: number): Html {
  return new Html(toText(text, max));
}

/** Text exactly as it is, of any length: for a text area, which a form sends back. */
export function exactText(text: string): Html {
  return new Html(escapeHtml(text));
}

/** One pass per character is five times as fast as a single pass if a long text contains many. */
function escapeHtml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;').replaceAll("'", '&#39;');
}
