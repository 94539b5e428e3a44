// HTML that is safe by construction: what is put into a template is text, unless it is HTML made here. Text is shown with
// what it would hide: a name with characters that turn the text beside it around must not pass for another.
import { shorten, visibleLines } from '../platform/text.ts';

/** A piece of HTML. */
export class Html {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

type Part = Html | string | number | null | undefined | readonly Part[];

// A row of the list shows some texts several times, and there are fifty rows: texts of megabytes would hold the process.
const MAX_TEXT_LENGTH = 4_000;

/**
 * Makes HTML; what is put in is escaped, lists are joined, null and undefined are nothing. Text is cut at 4,000
 * characters ({@link longText} is not); the value of an attribute (`name="${…}"`) stays as it is, as it may be sent back.
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

/** Text that is longer than others may be, such as a document: cut at `max` characters. */
export function longText(text: string, max: number): Html {
  return new Html(toText(text, max));
}

/** One pass for each character: five times as quick as one for all, where a long text is full of them. */
function escapeHtml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;').replaceAll("'", '&#39;');
}
