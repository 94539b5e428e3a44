// A confirmation dialog: a form that the browser opens by itself, without JavaScript.
import type { Html } from '../html.ts';
import { html } from '../html.ts';

export type Question = Readonly<{ id: string; action: string; title: string; no: string; yes: string; isDangerous?: boolean }>;

/** Renders the form. A button with `popovertarget` of its id opens it. */
export function dialog({ id, action, title, no, yes, isDangerous = false }: Question, body: Html): Html {
  return html`<form id="${id}" popover class="dialog" method="post" action="${action}" aria-labelledby="${id}-title"><h2 id="${id}-title">${title}</h2>
${body}
<div class="actions"><button type="button" popovertarget="${id}" popovertargetaction="hide">${no}</button><button class="${isDangerous ? 'danger' : 'primary'}" type="submit">${yes}</button></div></form>`;
}
